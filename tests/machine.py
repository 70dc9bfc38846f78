"""What this machine can do: the one place that decides which tests are skipped here, and for which need.

A test names what it needs: `@pytest.mark.needs("message queues")`. It is skipped if this machine lacks that.
A helper that finds out later calls `require`. Each need is tried out once, when a test first asks for it.
Being root proves nothing, because root in a container may lack any right.

Each need has a kind. PACKAGE: `.ci/run` installs it or sets it. RIGHT: a container or an ordinary user may
lack it. GIVEN: this machine, this Python or this checkout has it or not, and no installation adds it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import posix_ipc
import pytest

from bench import namespaces
from tests.cachee_shm.suspending import can_suspend

NOBODY = 65534
SHARED_MEMORY_MIB = 1024
"""What the tests that make large segments, or many at once, may need of /dev/shm."""


class Kind(Enum):
    """Who could bring what is missing."""

    PACKAGE = "package"
    RIGHT = "right"
    GIVEN = "given"


class Need:
    """One thing that some tests need: its name, its kind, and how it is found out."""

    def __init__(self, name: str, kind: Kind, probe: Callable[[], str]) -> None:
        """`probe`: why it is missing; "" where it is there."""
        self.name = name
        self.kind = kind
        self.why_missing = functools.cache(probe)


NEEDS: dict[str, Need] = {}


def need(name: str, kind: Kind) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Enters the probe below it into the table."""

    def enter(probe: Callable[[], str]) -> Callable[[], str]:
        NEEDS[name] = Need(name, kind, probe)
        return probe

    return enter


def why_missing(name: str) -> str:
    """Why this machine lacks `name`, in one line that begins with "no" and the name; "" if it has it."""
    why = NEEDS[name].why_missing()
    return f"no {name}: {why}" if why else ""


def require(name: str) -> None:
    """Skips the test that calls it where this machine lacks `name`."""
    if reason := why_missing(name):
        pytest.skip(reason, allow_module_level=True)


def skip(name: str, why: str) -> None:
    """Skips the test that has found out by itself that `name` is missing."""
    assert name in NEEDS
    pytest.skip(f"no {name}: {why}")


def kind_of(reason: str) -> Kind | None:
    """Of which kind a skip with this reason is; None for one that names no need."""
    found = re.match(r"no ([^:]+):", reason)
    return NEEDS[found[1]].kind if found and found[1] in NEEDS else None


# Rights


def _in_a_child(act: Callable[[], object]) -> str:
    """Try an act in a forked child. Returns why it failed; "" if it could be done."""
    came, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException as error:
            os.write(say, str(error).encode()[:500] or b"it failed")
        finally:
            os._exit(0)
    os.close(say)
    with open(came, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "it failed"


@need("other users", Kind.RIGHT)
def _other_users() -> str:
    def act() -> None:
        with tempfile.TemporaryFile() as file:
            os.fchown(file.fileno(), NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    return _in_a_child(act)


@need("root directories", Kind.RIGHT)
def _root_directories() -> str:
    return _in_a_child(lambda: os.chroot("/"))


@need("mount namespaces", Kind.RIGHT)
def _mount_namespaces() -> str:
    return _run("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm")


@need("control groups", Kind.RIGHT)
def _control_groups() -> str:
    """Of memory, in version 1."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = [line.rstrip("\n").split(":")[2] for line in file if ":memory:" in line]
    if not own:
        return "there is no controller of memory of version 1"
    folder = f"/sys/fs/cgroup/memory{own[0]}/cachee-probe-{os.getpid()}"
    try:
        os.mkdir(folder)
        os.rmdir(folder)
    except OSError as error:
        return str(error)
    return ""


@need("time namespaces", Kind.RIGHT)
def _time_namespaces() -> str:
    return "" if can_suspend() else "this user may not make them, or this kernel has none"


@need("IPC namespaces", Kind.RIGHT)
def _ipc_namespaces() -> str:
    return _run("unshare", "--ipc", "true")


@need("network namespaces", Kind.RIGHT)
def _network_namespaces() -> str:
    return namespaces.missing()


@need("systemd as process 1", Kind.RIGHT)
def _systemd_as_process_1() -> str:
    """Namespaces, an overlay of the machine's files, a tree of control groups (tests/bridge/booted.py)."""
    act = (
        "at=$(mktemp -d); mount -t tmpfs tmpfs $at; cd $at; mkdir upper work root groups; "
        "mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root; "
        "mount -t cgroup2 cgroup2 groups; rmdir $(mktemp -d groups/cachee-probe-XXXXXX); "
        "umount root groups; cd /; umount $at; rmdir $at"
    )
    return _run("unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "sh", "-ec", act)


@need("filters of system calls", Kind.RIGHT)
def _filters_of_system_calls() -> str:
    return ""  # the test that sets one finds out: see `skip`


@need("message queues", Kind.RIGHT)
def _message_queues() -> str:
    name = f"/cachee.probe.{os.getpid()}"
    try:
        posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=8, max_message_size=64).close()
        posix_ipc.unlink_message_queue(name)
    except (posix_ipc.Error, OSError) as error:
        return f"{error} (see `ulimit -q`)"
    return ""


@need("room in shared memory", Kind.RIGHT)
def _room_in_shared_memory() -> str:
    free_mib = shutil.disk_usage("/dev/shm").free >> 20
    return "" if free_mib >= SHARED_MEMORY_MIB else f"/dev/shm has {free_mib} MiB, not {SHARED_MEMORY_MIB}"


# Packages


def _command(name: str, package: str) -> str:
    return "" if shutil.which(name) else f"there is no {name!r} on the path (apt-get install {package})"


@need("C compiler", Kind.PACKAGE)
def _c_compiler() -> str:
    return "" if shutil.which("gcc") or shutil.which("cc") else "apt-get install gcc"


@need("curl", Kind.PACKAGE)
def _curl() -> str:
    return _command("curl", "curl")


@need("dnsmasq", Kind.PACKAGE)
def _dnsmasq() -> str:
    return _command("dnsmasq", "dnsmasq-base")


@need("spin", Kind.PACKAGE)
def _spin() -> str:
    return _command("spin", "spin")


@need("valgrind", Kind.PACKAGE)
def _valgrind() -> str:
    return _command("valgrind", "valgrind")


@need("systemd", Kind.PACKAGE)
def _systemd() -> str:
    return _command("systemd-analyze", "systemd")


@need("kubectl", Kind.PACKAGE)
def _kubectl() -> str:
    return _command("kubectl", "kubernetes-client")


@need("schemas of Kubernetes", Kind.PACKAGE)
def _schemas_of_kubernetes() -> str:
    return _modules("kubernetes_validate")


@need("tools of a release", Kind.PACKAGE)
def _tools_of_a_release() -> str:
    return _modules("auditwheel", "build", "mesonpy") or _command("make", "make")


@need("zsh", Kind.PACKAGE)
def _zsh() -> str:
    return _command("zsh", "zsh")


@need("fish", Kind.PACKAGE)
def _fish() -> str:
    return _command("fish", "fish")


@need("OpenSSL 3", Kind.PACKAGE)
def _openssl() -> str:
    if why := _command("openssl", "openssl"):
        return why
    version = subprocess.check_output(["openssl", "version"], text=True)
    return "" if version.startswith("OpenSSL 3") else f"it is {version.strip()}"


@need("musl", Kind.PACKAGE)
def _musl() -> str:
    return _command("musl-gcc", "musl-tools")


@need("aarch64", Kind.PACKAGE)
def _aarch64() -> str:
    if os.uname().machine == "aarch64":
        return ""
    return _command("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross") or _command(
        "qemu-aarch64", "qemu-user"
    )


@need("PostgreSQL", Kind.PACKAGE)
def _postgresql() -> str:
    return ""  # databases.py looks for it: see `skip`


@need("MariaDB", Kind.PACKAGE)
def _mariadb() -> str:
    return ""  # the same


def _modules(*names: str) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else ""


@need("Django", Kind.PACKAGE)
def _django() -> str:
    return _modules("django", "pymysql")


@need("SQLAlchemy", Kind.PACKAGE)
def _sqlalchemy() -> str:
    return _modules("sqlalchemy")


@need("released source", Kind.PACKAGE)
def _released_source() -> str:
    return ""  # foreign/suites.py asks pip for it: see `skip`


@need("frameworks", Kind.PACKAGE)
def _frameworks() -> str:
    return _modules(
        "aiocache",
        "cachelib",
        "cashews",
        "celery",
        "dogpile",
        "flask_caching",
        "jinja2",
        "litestar",
        "starlette",
    )


@need("opentelemetry", Kind.PACKAGE)
def _opentelemetry() -> str:
    has_api = importlib.util.find_spec("opentelemetry") is not None
    has_sdk = has_api and importlib.util.find_spec("opentelemetry.sdk") is not None
    return "" if has_sdk else "pip install opentelemetry-sdk"


@need("rival", Kind.PACKAGE)
def _rival() -> str:
    return ""  # each says by itself what it misses: see `skip`


@need("long benches", Kind.PACKAGE)
def _long_benches() -> str:
    return "" if os.environ.get("CACHEE_BENCHES") == "all" else "CACHEE_BENCHES=all tries them"


@need("Chromium", Kind.PACKAGE)
def _chromium() -> str:
    return _command("chromium", "chromium")


@need("axe-core", Kind.PACKAGE)
def _axe_core() -> str:
    return _command("npm", "npm")  # axe.py asks npm for it: see `skip`


@need("Prometheus", Kind.PACKAGE)
def _prometheus() -> str:
    return _command("promtool", "prometheus") or _command("amtool", "prometheus-alertmanager")


@need("what is migrated from", Kind.PACKAGE)
def _what_is_migrated_from() -> str:
    return _modules("cachetools", "django", "redis") or _command("redis-server", "redis-server")


# What is given


@need("atheris", Kind.GIVEN)
def _atheris() -> str:
    if importlib.util.find_spec("atheris"):
        return ""
    return "random inputs instead of guided ones (`make fuzz` installs it where this Python has it)"


@need("second Python", Kind.GIVEN)
def _second_python() -> str:
    return ""  # its tests look for one: see `skip`


@need("release before", Kind.GIVEN)
def _release_before() -> str:
    return ""  # releases.py asks git for it: see `skip`


@need("subinterpreters", Kind.GIVEN)
def _subinterpreters() -> str:
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    return "" if importlib.util.find_spec(name) else f"this Python has no {name}"


@need("huge pages", Kind.GIVEN)
def _huge_pages() -> str:
    """madvise(MADV_COLLAPSE) gives shared memory huge pages: Linux 6.1, unless they are forbidden."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if release >= (6, 1) and setting.exists() and "[deny]" not in setting.read_text():
        return ""
    return "this kernel gives shared memory none when asked"
