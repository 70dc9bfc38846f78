"""Removes everything that a demo made, however the demo ends.

It is started first. The demo writes to its standard input what there is to remove, one line each:

    group PGID      a process group that the demo started       ended PGID     it has ended by itself
    host NAME       a host: its segments and message queue      folder PATH    the demo's folder

When its input ends, it cleans up and exits. The demo closes the input when it is done. If the demo was
killed, even by SIGKILL, the kernel closes it. The janitor has a session of its own, so that Ctrl-C only
reaches the demo.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import posix_ipc

KILL_WAIT_S = 5.0  # SIGKILL is obeyed at once; what is still there then waits in the kernel for a disk


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    hosts: list[str] = []
    folders: list[str] = []
    for line in sys.stdin:
        what, _, value = line.rstrip("\n").partition(" ")
        if what == "group":
            groups.add(int(value))
        elif what == "ended":
            groups.discard(int(value))
        else:
            {"host": hosts, "folder": folders}[what].append(value)
    end(groups)
    for host in hosts:
        unlink(host)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def end(groups: Iterable[int]) -> None:
    """Kills these process groups and waits until they are gone."""
    for group in groups:
        signal_group(group, signal.SIGKILL)
    deadline = time.monotonic() + KILL_WAIT_S
    while any(signal_group(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.02)


def signal_group(group: int, number: int) -> bool:
    """False when the group has no process any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def unlink(host: str) -> None:
    """Unlinks all segments of a host, and its bridge's message queue."""
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{host}."):
            with suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_shared_memory(f"/{name}")
    with suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_message_queue(f"/cachee.{host}")


if __name__ == "__main__":
    main()
