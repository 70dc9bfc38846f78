"""Hosts on which a guide's own commands are run as they stand in it: `web-1`, `web-2`, each a machine of its
own.

Each has its network, its name, its `/etc` (the machine's, with changes of its own), its `/dev/shm` and its
message queues. They share the files, so a guide's project, its virtual environment and the database's
socket are the same on all of them. `scp` copies from one to another.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.namespaces import Place, network
from tests.cachee_shm import databases

__all__ = [
    "Host",
    "blocks",
    "commands",
    "followed",
    "hosts",
    "install",
    "shows",
    "transcript",
    "virtual_environment",
]

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("network namespaces", "mount namespaces", "IPC namespaces", "curl")
EVERY = "every host"
WAIT_S = 120.0
COMMAND_S = 300
SETUP = """
set -e
hostname {name}
mkdir {own}/upper {own}/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={own}/upper,workdir={own}/work /etc
cp {hosts} /etc/hosts
mount -t tmpfs -o size=1g tmpfs /dev/shm
echo ready
exec sleep infinity
"""
SCP = """#!/bin/sh
# As "scp -rp FROM HOST:TO": a folder of this host to another's.
from=$2 host=${{3%%:*}} to=${{3#*:}}
tar -C "$(dirname "$from")" -c "$(basename "$from")" |
  nsenter --mount=/proc/$(cat {folder}/$host.pid)/ns/mnt tar -C "$to" -x
"""


class Host:
    """One of them: its commands run as a user's would who is logged in there."""

    def __init__(
        self, name: str, holder: subprocess.Popen[str], folder: Path, environ: dict[str, str]
    ) -> None:
        self.name = name
        self.folder = folder
        self._holder = holder
        self._environ = environ
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def run(self, command: str, cwd: Path) -> str:
        """What a command of the shell prints; one that ends with & is left running."""
        if command.endswith("&"):
            with self.log.open("ab") as log:
                self._running.append(
                    subprocess.Popen(
                        self._inside(f"exec {command[:-1]}", cwd),
                        cwd=cwd,
                        env=self._environ,
                        stdout=log,
                        stderr=log,
                    )
                )
            return ""
        done = subprocess.run(
            self._inside(command, cwd),
            cwd=cwd,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        assert done.returncode == 0, f"{self.name}$ {command}\n{done.stdout}{done.stderr}{self.said()}"
        return done.stdout

    def until(self, command: str, wanted: str, cwd: Path) -> None:
        """Repeats a command until it prints what is wanted: what is announced is on its way for a moment."""
        end = time.monotonic() + WAIT_S
        said = ""
        while said != wanted:
            assert time.monotonic() < end, f"{self.name}$ {command}\n{said}not {wanted}{self.said()}"
            assert all(process.poll() is None for process in self._running), self.said()
            with contextlib.suppress(AssertionError):
                said = self.run(command, cwd)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(WAIT_S)
        self._holder.kill()
        self._holder.wait()

    def _inside(self, command: str, cwd: Path) -> Sequence[str]:
        return [
            *("nsenter", "--target", str(self._holder.pid), "--mount", "--uts", "--ipc", "--net"),
            *(f"--wd={cwd}", "sh", "-c", command),
        ]


@contextlib.contextmanager
def hosts(names: Sequence[str], folder: Path, environ: dict[str, str]) -> Iterator[list[Host]]:
    """Hosts that know each other by name. ``environ``: of all their commands."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "scp").write_text(SCP.format(folder=folder))
    (tools / "scp").chmod(0o755)
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    path = f"{tools}:{environ['PATH']}"
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(network(list(names)))
        with (folder / "hosts").open("a") as known:
            known.writelines(f"{place.address} {name}\n" for place, name in zip(places, names, strict=True))
        # What the overlay of /etc keeps has to be in memory: it may not be on another overlay.
        made = []
        for place, name in zip(places, names, strict=True):
            own = Path("/dev/shm") / f"cachee-guide-{os.getpid()}-{name}"
            own.mkdir()
            stack.callback(subprocess.run, ["rm", "-rf", str(own)])
            made.append(_host(stack, place, name, own, folder, {**environ, "PATH": path}))
        yield made


def _host(
    stack: contextlib.ExitStack, place: Place, name: str, own: Path, folder: Path, environ: dict[str, str]
) -> Host:
    setup = SETUP.format(name=name, own=own, hosts=folder / "hosts")
    with place.inside():
        holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", "--ipc", "sh", "-c", setup], stdout=subprocess.PIPE, text=True
        )
    host = Host(name, holder, folder, environ)
    stack.callback(host.stop)
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    (folder / f"{name}.pid").write_text(str(holder.pid))
    return host


def virtual_environment(folder: Path) -> dict[str, str]:
    """A clean one in ``folder``, and a built wheel of this tree for pip: the environment of a user there."""
    wheels = folder / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    build.append(f"-Cbuild-dir={ROOT / 'build' / 'wheel'}")  # what is compiled once is not compiled again
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # meson, ninja
    subprocess.run(
        [*build, "--wheel-dir", str(wheels), str(ROOT)], env=tools, check=True, capture_output=True
    )
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LANG", "LC_"))}
    links = f"{kept.get('PIP_FIND_LINKS', '')} {wheels}".strip()
    return {
        **kept,
        "PIP_FIND_LINKS": links,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PATH": f"{folder / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(folder),
    }


def install(lines: Sequence[str], folder: Path, environ: dict[str, str]) -> None:
    """A guide's lines of pip, once for all hosts: they share the files, and have no way to an index."""
    for line in lines:
        done = subprocess.run(
            ["sh", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=COMMAND_S
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def followed(
    example: Path, folder: Path, environment: dict[str, str], page: str, status: int
) -> Iterator[tuple[list[Host], Path]]:
    """Two hosts after all commands of an example's guide, and its project's folder; a database is there.

    ``page`` answers with ``status`` on each of them then.
    """
    project = folder / "project"
    shutil.copytree(example, project, ignore=shutil.ignore_patterns("__pycache__"))
    steps = commands((example / "README.md").read_text())
    with databases.directory() as sockets, databases.postgres(str(sockets)) as server:
        environ = {
            **environment,
            "PGHOST": str(sockets),
            "PGPORT": str(server["port"]),
            "PGUSER": str(server["user"]),
            "PGDATABASE": str(server["database"]),
        }
        install([command for _, command in steps if command.startswith("pip ")], folder, environ)
        with hosts(["web-1", "web-2"], folder, environ) as made:
            for where, command in steps:
                for host in made:
                    if where in (host.name, EVERY) and not command.startswith("pip "):
                        host.run(command, project)
            for host in made:
                shows = "curl -s -o /dev/null -w '%{http_code}' " + f"http://localhost:8000{page}"
                host.until(shows, str(status), project)
            yield made, project


def blocks(text: str, language: str) -> list[str]:
    """The code of a guide in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[tuple[str, str]]:
    """Where and what, of each command that a guide asks for: a block's first line says where."""
    found = []
    for block in blocks(text, "sh"):
        where, *lines = block.strip().splitlines()
        assert where.startswith("# on "), f"where is this block run? {block}"
        found += [(where.removeprefix("# on "), line) for line in lines]
    return found


def transcript(text: str) -> list[tuple[str, str]]:
    """Command and answer, of each pair that a guide shows."""
    pairs = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks(text, "console")), re.MULTILINE)
    return [(command, answer) for command, answer in pairs]


def shows(host: Host, text: str, cwd: Path) -> None:
    """What a guide shows happens on this host, in its order."""
    for command, answer in transcript(text):
        host.until(f"{command}; echo" if command.startswith("curl") else command, answer, cwd)
