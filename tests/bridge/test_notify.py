"""The notify protocol, received by a real datagram socket in the service manager's place."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_bridge.system.notify import Notifier


class Manager:
    """The listening end, as systemd holds it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name if not name.startswith("@") else "\0" + name[1:])
        self.socket.settimeout(5)

    def lines(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@cachee-test-{uuid.uuid4()}"
    manager = Manager(name)
    yield manager
    manager.socket.close()


def test_ready_status_watchdog_and_stopping_arrive_as_assignments(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.name})
    notifier.ready("relaying shop")
    assert manager.lines() == ["READY=1", "STATUS=relaying shop", f"MAINPID={os.getpid()}"]
    notifier.status("2 peers")
    assert manager.lines() == ["STATUS=2 peers"]
    notifier.watchdog()
    assert manager.lines() == ["WATCHDOG=1"]
    notifier.stopping()
    assert manager.lines() == ["STOPPING=1", "STATUS=stopping"]
    notifier.close()


def test_a_status_cannot_smuggle_in_another_assignment(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.name})
    notifier.status("fine\nSTOPPING=1")
    assert manager.lines() == ["STATUS=fine STOPPING=1"]
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_period_is_read_only_when_it_is_meant_for_this_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@nobody", **environ}).watchdog_s == seconds


@pytest.mark.parametrize("name", ["", "relative/path", "/nowhere/at/all", "@cachee-nobody-listens"])
def test_without_a_listening_manager_nothing_happens(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
    notifier.ready("x")
    notifier.watchdog()
    notifier.stopping()
    notifier.close()
    notifier.status("after the end")
