"""Real databases for tests: PostgreSQL and MariaDB, started in a temporary directory as an ordinary user."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cachee_shm.ports import free_ports
from tests import machine

START_S = 30


def ordinary() -> list[str]:
    """What to put before a command so that an ordinary user runs it: no database server runs as root."""
    if os.getuid() != 0:
        return []
    who = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cachee-db-"))
    if os.getuid() == 0:
        shutil.chown(path, "nobody")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def until(works, server: subprocess.Popen) -> None:
    end = time.monotonic() + START_S
    while not works():
        assert server.poll() is None, "the database server ended"
        assert time.monotonic() < end, "the database server does not answer"
        time.sleep(0.05)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres(sockets: str = "") -> Iterator[dict[str, object]]:
    """A server of its own: what to connect with.

    ``sockets``: a folder for its socket, which processes of another network namespace reach too."""
    programs = postgres_programs()
    if programs is None:
        machine.skip("PostgreSQL", "apt-get install postgresql")
    before = ordinary()
    with directory() as path:
        data, port = path / "data", free_ports(1)[0]
        make = [
            *before,
            programs / "initdb",
            "-D",
            data,
            "-A",
            "trust",
            "-N",
            "-U",
            "cachee",
            "--locale=C",
            "-E",
            "UTF8",
        ]
        subprocess.run(make, check=True, capture_output=True, cwd=path)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": sockets,
            "fsync": "off",
            "max_prepared_transactions": 8,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open(path / "log", "wb") as log:
            server = subprocess.Popen(
                [*before, programs / "postgres", "-D", data, *settings], stderr=log, cwd=path
            )
        try:
            ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready).returncode == 0, server)
            yield {"host": "127.0.0.1", "port": port, "user": "cachee", "database": "postgres"}
        finally:
            server.send_signal(2)  # a fast shutdown
            server.wait()


@contextlib.contextmanager
def mariadb() -> Iterator[dict[str, object]]:
    """A server of its own: what to connect with."""
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    install = shutil.which("mariadb-install-db")
    if program is None or install is None:
        machine.skip("MariaDB", "apt-get install mariadb-server")
    before = ordinary()
    with directory() as path:
        data, port = path / "data", free_ports(1)[0]
        common = [
            "--no-defaults",
            f"--datadir={data}",
            "--innodb-buffer-pool-size=8M",
            "--innodb-log-file-size=4M",
        ]
        make = [*before, install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(make, check=True, capture_output=True, cwd=path)
        options = [
            f"--socket={path / 'socket'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
        ]
        more = [f"--pid-file={path / 'pid'}", "--innodb-flush-log-at-trx-commit=0", "--skip-grant-tables"]
        with open(path / "log", "wb") as log:
            command = [*before, program, *common, *options, *more, "--skip-networking=0"]
            server = subprocess.Popen(command, stderr=log, stdout=log, cwd=path)
        try:
            until(lambda: accepts(port), server)
            yield {"host": "127.0.0.1", "port": port, "user": "root", "database": "mysql"}
        finally:
            server.kill()
            server.wait()
