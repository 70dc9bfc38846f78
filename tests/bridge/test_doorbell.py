"""The doorbell over real message queues and a real event loop."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator

import posix_ipc
import pytest
import uvloop

from cachee_bridge.shell.doorbell import Doorbell, DoorbellUnavailable, queue_name
from cachee_shm.errors import BridgeRunning

WITH_QUEUES = pytest.mark.needs("message queues")


@pytest.fixture
def host() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_message_queue(queue_name(name))


def ring(host: str) -> None:
    """As a writer rings: never waiting."""
    queue = posix_ipc.MessageQueue(queue_name(host))
    with contextlib.suppress(posix_ipc.BusyError):
        queue.send(b"\0", timeout=0)
    queue.close()


@WITH_QUEUES
def test_a_ring_wakes_an_event_loop_that_waits_on_the_descriptor(host: str) -> None:
    bell = Doorbell.create(host, None)

    async def wait() -> bool:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bool] = loop.create_future()
        loop.add_reader(bell.fileno(), lambda: heard.set_result(bell.answer()))
        loop.call_soon(ring, host)
        return await asyncio.wait_for(heard, 10)

    assert uvloop.run(wait())
    bell.close()


@WITH_QUEUES
def test_two_rings_are_one_message(host: str) -> None:
    bell = Doorbell.create(host, None)
    ring(host)
    ring(host)
    assert bell.answer()
    assert not bell.answer()
    bell.close()


@WITH_QUEUES
def test_the_queue_is_private_without_a_group_and_shared_with_one(host: str) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    old = os.umask(0o077)
    try:
        bell = Doorbell.create(host, None)
        assert stat.S_IMODE(os.fstat(bell.fileno()).st_mode) == 0o600
        bell.close()
        bell = Doorbell.create(host, group)
    finally:
        os.umask(old)
    status = os.fstat(bell.fileno())
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())
    bell.close()


@WITH_QUEUES
def test_a_clean_exit_unlinks_the_queue(host: str) -> None:
    Doorbell.create(host, None).close()
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(queue_name(host))


@WITH_QUEUES
def test_after_a_crash_a_writer_that_has_the_queue_open_is_still_heard(host: str) -> None:
    script = f"import os, cachee_bridge.shell.doorbell as d; d.Doorbell.create({host!r}, None); os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "PYTHONPATH": "bridge:."})
    writer = posix_ipc.MessageQueue(queue_name(host))
    bell = Doorbell.create(host, None)
    writer.send(b"\0", timeout=0)
    assert bell.answer()
    writer.close()
    bell.close()


@WITH_QUEUES
def test_the_queue_of_a_live_bridge_is_not_taken_over(host: str) -> None:
    bell = Doorbell.create(host, None)
    with pytest.raises(BridgeRunning, match=host):
        Doorbell.create(host, None)
    ring(host)
    assert bell.answer()
    bell.close()
    Doorbell.create(host, None).close()


@WITH_QUEUES
def test_a_stale_queue_of_another_shape_is_replaced(host: str) -> None:
    posix_ipc.MessageQueue(queue_name(host), posix_ipc.O_CREX, max_messages=3, max_message_size=8).close()
    bell = Doorbell.create(host, None)
    ring(host)
    ring(host)
    assert bell.answer()
    assert not bell.answer()
    bell.close()


@pytest.mark.parametrize(("host_name", "group"), [("h" * 300, None), ("a/b", None)])
def test_a_name_that_no_queue_can_have_is_a_clear_refusal(host_name: str, group: str | None) -> None:
    with pytest.raises(DoorbellUnavailable, match="message queue /cachee"):
        Doorbell.create(host_name, group)


def test_a_group_that_does_not_exist_is_refused_and_leaves_no_queue(host: str) -> None:
    with pytest.raises(DoorbellUnavailable, match="no-such-group"):
        Doorbell.create(host, "no-such-group")
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(queue_name(host))
