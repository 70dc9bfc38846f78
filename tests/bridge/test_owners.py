"""Which owners of a queue or a socket are trusted. A child process acts as another user where that is
needed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc
import pytest
import uvloop

from cachee_bridge.daemon.operator_socket import OperatorSocket
from cachee_bridge.shell.doorbell import Doorbell, DoorbellUnavailable, queue_name
from cachee_bridge.system.owners import wrong_owner

STRANGER, GROUP = 65534, 4242


def status(uid: int, gid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("found", "gid", "complaint"),
    [
        (status(os.geteuid(), 7, 0o666), None, ""),
        (status(0, 0, 0o600), None, ""),
        (status(STRANGER, GROUP, 0o660), GROUP, ""),
        (status(STRANGER, GROUP, 0o660), None, "belongs to user 65534"),
        (status(STRANGER, 7, 0o660), GROUP, "belongs to user 65534"),
        (status(STRANGER, GROUP, 0o666), GROUP, "open to everybody: its mode is 666"),
    ],
)
def test_this_user_root_and_the_group_are_trusted_and_nobody_else(
    found: os.stat_result, gid: int | None, complaint: str
) -> None:
    assert complaint in wrong_owner(found, gid)
    assert bool(complaint) == bool(wrong_owner(found, gid))


@pytest.fixture
def host() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_message_queue(queue_name(name))


class Stranger:
    """A child that did something as another user, and lives on."""

    def __init__(self, does: Callable[[], object]) -> None:
        done, tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setgroups([])
                os.setgid(STRANGER)
                os.setuid(STRANGER)
                kept = does()
                os.write(tell, b"1")
                time.sleep(60)
                del kept
            finally:
                os._exit(1)
        os.close(tell)
        assert os.read(done, 1) == b"1"
        os.close(done)

    def end(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


@pytest.mark.needs("other users", "message queues")
@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_strangers_queue_is_neither_locked_nor_removed_nor_taken_for_a_bridges(
    host: str, mode: int
) -> None:
    def squat() -> posix_ipc.MessageQueue:
        os.umask(0)
        queue = posix_ipc.MessageQueue(
            queue_name(host), posix_ipc.O_CREX, mode=mode, max_messages=1, max_message_size=1
        )
        fcntl.flock(queue.mqd, fcntl.LOCK_EX)
        return queue

    stranger = Stranger(squat)
    try:
        with pytest.raises(DoorbellUnavailable) as told:
            Doorbell.create(host, None)
        assert f"message queue {queue_name(host)} belongs to user {STRANGER}" in str(told.value)
        assert f"`rm /dev/mqueue{queue_name(host)}`" in str(told.value)
        posix_ipc.MessageQueue(queue_name(host)).close()
    finally:
        stranger.end()


@pytest.mark.needs("other users", "message queues")
def test_a_queue_that_this_user_may_not_open_is_named_with_the_command(host: str) -> None:
    bell = Doorbell.create(host, None)

    def create() -> object:
        try:
            Doorbell.create(host, None)
        except DoorbellUnavailable as error:
            text = str(error)
            assert f"`rm /dev/mqueue{queue_name(host)}`" in text
            return text
        sys.exit(1)

    Stranger(create).end()
    bell.close()


@pytest.mark.needs("other users")
def test_a_strangers_socket_is_not_taken_over() -> None:
    folder = Path(tempfile.mkdtemp())  # where another user may write, as in /dev/shm
    folder.chmod(0o1777)
    path = folder / "cachee.web-1.sock"

    def listen() -> object:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        return sock

    async def main() -> None:
        control = OperatorSocket(str(path), None, lambda request: {})
        with pytest.raises(PermissionError, match=rf"belongs to user {STRANGER}.*`rm "):
            await control.open()
        control.close()

    stranger = Stranger(listen)
    try:
        uvloop.run(main())
        assert path.exists()
    finally:
        stranger.end()
        shutil.rmtree(folder)


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "cachee.web-1.sock"
    path.write_text("somebody's")

    async def main() -> None:
        control = OperatorSocket(str(path), None, lambda request: {})
        with pytest.raises(PermissionError, match="is no socket"):
            await control.open()
        control.close()

    uvloop.run(main())
    assert path.read_text() == "somebody's"
