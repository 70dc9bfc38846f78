"""A systemd of its own: the machine's files under an overlay, in namespaces, with systemd as process 1.

    with booted(folder) as machine:
        machine.run("systemctl", "start", "cachee-bridge")

What is written there is gone afterwards. It has a network, a /dev/shm, message queues and a tree of control
groups of its own. No unit of the machine is started, but for the journal. This checkout is /opt/cachee there,
its Python /opt/python, and the bridge's command /usr/bin/cachee-bridge, as after an install.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bench.namespaces import Place
from tests.bridge.hosts import until

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
PYTHON = "/opt/python/bin/python3"
BOOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$at"
mkdir "$at/upper" "$at/work" "$at/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$at/upper",workdir="$at/work" "$at/root"
mkdir -p "$at/root/opt/cachee" "$at/root/opt/python" "$at/root/.old" "$at/groups"
mount --bind "$checkout" "$at/root/opt/cachee"
mount --bind "$python" "$at/root/opt/python"
mkdir -p "$at/root/opt/shop"
[ -z "$shop" ] || mount --bind "$shop" "$at/root/opt/shop"
# Systemd moves all that it finds in its tree of control groups: it gets a tree of its own.
mount -t cgroup2 cgroup2 "$at/groups"
mkdir -p "$at/groups/$group"
echo 0 >"$at/groups/$group/cgroup.procs"
cd "$at/root"
rm -rf etc/systemd/system/* etc/fstab lib/systemd/system/*.wants lib/systemd/system-generators/*
mkdir -p lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service lib/systemd/system/sysinit.target.wants/
printf '[Unit]\\nDescription=Nothing yet\\nRequires=basic.target\\nAfter=basic.target\\n' \\
  >etc/systemd/system/nothing.target
mount -t proc proc proc
mount -t sysfs sysfs sys
mkdir -p sys/fs/cgroup
mount -t tmpfs tmpfs dev
mkdir dev/shm dev/mqueue dev/pts
for device in null zero full random urandom tty; do cp -a "/dev/$device" dev/; done
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
ip link set lo up
exec unshare --cgroup sh -euc '
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  pivot_root . .old
  cd /
  umount -l /.old
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --unit=nothing.target </dev/null'
"""
COMMAND = """#!/bin/sh
export PYTHONPATH={paths} LD_LIBRARY_PATH=/opt/python/lib
exec {python} -c 'import sys; from {module} import main; sys.exit(main())' "$@"
"""


class Booted:
    """The machine in the machine."""

    def __init__(self, pid: int) -> None:
        self._enter = ["nsenter", "--target", str(pid), "--all"]

    def run(self, *command: str, check: bool = True, user: str = "") -> str:
        """What a command says there, on both streams."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        done = subprocess.run(
            [*self._enter, *as_user, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A process there that goes on; its input and output are pipes."""
        return subprocess.Popen(
            [*self._enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def write(self, path: str, text: str) -> None:
        """A file there, made anew."""
        subprocess.run(
            [*self._enter, "sh", "-c", f"cat >{shlex.quote(path)}"], input=text, text=True, check=True
        )

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()


@contextmanager
def booted(folder: Path, place: Place | None = None, shop: Path | None = None) -> Iterator[Booted]:
    """Booted to basic.target. ``place``: the network that it is in. ``shop``: what is /opt/shop there."""
    at = folder / "booted"
    at.mkdir()
    script = folder / "boot"
    script.write_text(BOOT)
    variables = {
        "at": str(at),
        "checkout": str(ROOT),
        "python": sys.base_prefix,
        "group": f"cachee-test-{os.getpid()}-{folder.name}",
        "shop": str(shop or ""),
    }
    command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    command += ["sh"] if place else ["--net", "sh"]
    with open(folder / "boot.log", "w") as log, place.inside() if place else nullcontext():
        process = subprocess.Popen(
            [*command, str(script)], stdout=log, stderr=log, env={**os.environ, **variables}
        )
    try:
        machine = Booted(_first(process))
        until(lambda: _is_up(machine, process, folder), "systemd to boot")
        for name, module in (("cachee", "cachee_shm.cli"), ("cachee-bridge", "cachee_bridge.__main__")):
            paths = ":".join((f"/opt/cachee/{_site()}", "/opt/cachee", "/opt/cachee/bridge"))
            machine.write(f"/usr/bin/{name}", COMMAND.format(paths=paths, python=PYTHON, module=module))
            machine.run("chmod", "755", f"/usr/bin/{name}")
        yield machine
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        _remove_group(variables["group"])
        shutil.rmtree(at, ignore_errors=True)


def _site() -> str:
    """Where this environment's packages are, below the checkout."""
    return os.path.relpath(sysconfig.get_path("purelib"), ROOT)


def _first(process: subprocess.Popen[bytes]) -> int:
    """Its child: process 1 of the namespace."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: path.exists() and path.read_text().split())
    return int(path.read_text().split()[0])


def _is_up(machine: Booted, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "boot.log").read_text()
    return "active" in machine.run("systemctl", "is-active", "nothing.target", check=False).split()


def _remove_group(name: str) -> None:
    """The kernel lets an empty group go, deepest first; its processes may take a moment to be gone."""
    script = (
        'at=$(mktemp -d); mount -t cgroup2 cgroup2 "$at"; cd "$at"; '
        'for _ in $(seq 100); do find "$name" -depth -type d -exec rmdir {} + 2>/dev/null && break; '
        "sleep .05; done; "
        'cd /; umount "$at"; rmdir "$at"'
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", script], env={**os.environ, "name": name})
