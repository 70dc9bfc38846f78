"""The unit, judged by systemd-analyze and run by a real systemd (booted.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.booted import PYTHON, Booted, booted
from tests.bridge.hosts import until

SHIPPED = Path(__file__).resolve().parents[2] / "bridge" / "systemd"
UNIT = "cachee-bridge.service"
EXPOSURE_MAX = 20
"""In tenths of what `systemd-analyze security` calls exposure: 18 as it was written, 96 without hardening.
What is left is the bridge's work: the network, other users' shared memory, and their processes."""
CONFIG = """
[host]
name = "web-1"
group = "cachee"
[defaults]
memory = "4MiB"
[namespaces.shop]
[bridge]
listen = "127.0.0.1:7946"
drain = "5s"
"""
WORKER = """
import sys, cachee_shm
cache = cachee_shm.attach("shop", config="/etc/cachee/cachee.toml")
print(cache.health().bridge, flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""

pytestmark = pytest.mark.needs("systemd")


def analysed(tmp_path: Path, verb: str, *options: str, leave_out: str = "") -> tuple[int, str]:
    """What systemd-analyze says of the unit, its command one that is there."""
    text = (SHIPPED / UNIT).read_text().replace("/usr/bin/cachee-bridge", sys.executable)
    path = tmp_path / UNIT
    path.write_text(
        "".join(line for line in text.splitlines(True) if not (leave_out and re.match(leave_out, line)))
    )
    done = subprocess.run(
        ["systemd-analyze", verb, *options, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    return done.returncode, done.stdout


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    assert analysed(tmp_path, "verify", "--man=no") == (0, "")
    text = (SHIPPED / UNIT).read_text()
    (tmp_path / "wrong").mkdir()
    wrong = tmp_path / "wrong" / UNIT
    wrong.write_text(
        text.replace("ProtectClock", "ProtectClocks").replace("/usr/bin/cachee-bridge", "/bin/true")
    )
    said = subprocess.run(["systemd-analyze", "verify", str(wrong)], capture_output=True, text=True).stderr
    assert "ProtectClocks" in said


def test_the_unit_is_exposed_to_no_more_than_its_work_needs(tmp_path: Path) -> None:
    options = ("--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager")
    code, said = analysed(tmp_path, "security", *options)
    assert code == 0, said
    assert analysed(tmp_path, "security", *options, leave_out="Restrict|Protect|SystemCall")[0] != 0


@contextmanager
def served(folder: Path) -> Iterator[Booted]:
    """A host as ../bridge/OPERATING.md sets it up, its bridge not started."""
    with booted(folder) as machine:
        shipped = "/opt/cachee/bridge/systemd"
        machine.run("mkdir", "-p", "/etc/sysusers.d", "/etc/tmpfiles.d")
        machine.run("cp", f"{shipped}/{UNIT}", "/etc/systemd/system/")
        machine.run("cp", f"{shipped}/sysusers.d/cachee.conf", "/etc/sysusers.d/")
        machine.run("cp", f"{shipped}/tmpfiles.d/cachee.conf", "/etc/tmpfiles.d/")
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "cachee.conf")
        machine.run("useradd", "--groups", "cachee", "shop")
        machine.write("/etc/cachee/cachee.toml", CONFIG)
        machine.run("chown", "root:cachee", "/etc/cachee/cachee.toml")
        # The guard against a bridge that hangs, sooner than 10 s.
        machine.run("mkdir", "/run/systemd/system/cachee-bridge.service.d")
        machine.write("/run/systemd/system/cachee-bridge.service.d/soon.conf", "[Service]\nWatchdogSec=2s\n")
        machine.run("systemctl", "daemon-reload")
        try:
            yield machine
        except BaseException:
            print(machine.run("journalctl", "--no-pager"))  # pytest shows it beside the failure
            raise


class Worker:
    """A process of the user `shop`, attached to the segment."""

    def __init__(self, machine: Booted) -> None:
        paths = [path for path in sys.path if path.endswith("site-packages")]
        site = "/opt/cachee/" + os.path.relpath(paths[0], SHIPPED.parents[1])
        environ = f"PYTHONPATH={site}:/opt/cachee"
        command = [
            "setpriv",
            "--reuid=shop",
            "--regid=shop",
            "--init-groups",
            "env",
            environ,
            PYTHON,
            "-c",
            WORKER,
        ]
        self._process = machine.start(*command)
        self.bridge = self._line()

    def __call__(self, expression: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait() == 0


def journal(machine: Booted) -> list[dict[str, Any]]:
    """The bridge's own lines, each with the priority that the journal keeps for it."""
    entries = [
        json.loads(line)
        for line in machine.run("journalctl", "-u", UNIT, "-o", "json", "--no-pager").splitlines()
    ]
    return [
        {**json.loads(entry["MESSAGE"]), "priority": int(entry["PRIORITY"])}
        for entry in entries
        if entry.get("_TRANSPORT") == "stdout" and str(entry["MESSAGE"]).startswith("{")
    ]


def said(machine: Booted, text: str) -> bool:
    return any(text in line["message"] for line in journal(machine))


@pytest.mark.needs("systemd as process 1")
def test_a_real_systemd_starts_reloads_watches_and_stops_it(tmp_path: Path) -> None:
    with served(tmp_path) as machine:
        machine.run("systemctl", "start", "cachee-bridge")
        assert machine.shows(UNIT, "ActiveState") == "active"
        assert "1 namespaces" in machine.shows(UNIT, "StatusText") or "serving" in machine.shows(
            UNIT, "StatusText"
        )
        worker = Worker(machine)
        assert worker.bridge == "up"
        assert worker("cache.set('k', 1)") == worker("cache.wait_synced(5)") == "True"
        (line,) = [line for line in journal(machine) if line["message"] == "serving"]
        assert (line["namespaces"], line["level"], line["priority"]) == ("shop", "info", 6)

        # A faulty configuration fails the reload. The bridge goes on.
        before = machine.shows(UNIT, "MainPID")
        machine.write("/etc/cachee/cachee.toml", CONFIG.replace("5s", "5"))
        refused = machine.run("systemctl", "reload", "cachee-bridge", check=False)
        assert "failed" in refused
        assert machine.shows(UNIT, "ActiveState") == "active"
        assert not said(machine, "read again") and not said(machine, "has changed")
        machine.write("/etc/cachee/cachee.toml", CONFIG.replace("5s", "6s"))
        machine.run("systemctl", "reload", "cachee-bridge")
        until(lambda: said(machine, "read again"), "the reload")
        (line,) = [line for line in journal(machine) if "has changed" in line["message"]]
        assert (line["key"], line["before"], line["after"]) == ("bridge.drain", "5.0", "6.0")
        assert machine.shows(UNIT, "MainPID") == before

        # Killed: it is back at once. Hung: the watchdog ends it.
        for number in ("KILL", "STOP"):
            before = machine.shows(UNIT, "MainPID")
            machine.run("systemctl", "kill", "--signal", number, "--kill-who=main", "cachee-bridge")
            until(
                lambda before=before: (
                    machine.shows(UNIT, "MainPID") not in (before, "0")
                    and machine.shows(UNIT, "ActiveState") == "active"
                ),
                f"the restart after SIG{number}",
            )
        assert worker("cache.health().bridge") == "up"

        # Told to stop, it waits for the last worker, and leaves for good.
        machine.run("systemctl", "stop", "--no-block", "cachee-bridge")
        until(lambda: said(machine, "workers are attached"), "the drain")
        worker.end()
        until(lambda: machine.shows(UNIT, "ActiveState") == "inactive", "the end")
        assert said(machine, "left for good")
        assert machine.shows(UNIT, "Result") == "success"


@pytest.mark.needs("systemd as process 1")
def test_a_real_systemd_does_not_start_it_again_where_the_configuration_is_at_fault(tmp_path: Path) -> None:
    with served(tmp_path) as machine:
        machine.write("/etc/cachee/cachee.toml", CONFIG.replace("5s", "5"))
        machine.run("systemctl", "start", "cachee-bridge", check=False)
        until(lambda: machine.shows(UNIT, "ActiveState") == "failed", "the unit to fail")
        assert machine.shows(UNIT, "ExecMainStatus") == "2"
        assert machine.shows(UNIT, "NRestarts") == "0"
        (line,) = journal(machine)
        assert "bridge.drain" in line["message"] and line["priority"] == 3
        assert machine.run("ls", "/dev/shm") == ""
        started = time.monotonic()
        machine.write("/etc/cachee/cachee.toml", CONFIG)
        machine.run("systemctl", "start", "cachee-bridge")
        assert machine.shows(UNIT, "ActiveState") == "active", f"after {time.monotonic() - started:g} s"


@pytest.mark.needs("systemd as process 1")
def test_secrets_are_the_bridges_alone_and_the_configuration_the_groups(tmp_path: Path) -> None:
    with served(tmp_path) as machine:
        for name in ("secret", "hash.key", "tokens"):
            machine.write(f"/etc/cachee/{name}", "sixteen bytes and some more")
        machine.run("systemd-tmpfiles", "--create", "cachee.conf")
        assert "Permission denied" in machine.run("cat", "/etc/cachee/secret", user="shop", check=False)
        assert machine.run("cat", "/etc/cachee/hash.key", user="shop") == "sixteen bytes and some more"
        assert machine.run("cat", "/etc/cachee/secret", user="cachee") == "sixteen bytes and some more"
        assert "Permission denied" in machine.run(
            "sh", "-c", "echo >>/etc/cachee/cachee.toml", user="cachee", check=False
        )
