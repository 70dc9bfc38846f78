"""Name servers that hang, lie, trickle or break off, behind discovery: each is one failed question."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
import uvloop

from cachee_bridge.shell import resolver as resolver_module
from cachee_bridge.shell.resolver import Resolver, Unresolved

Does = Callable[[socket.socket], None]


def hangs(sock: socket.socket) -> None:
    sock.recv(4096)
    with contextlib.suppress(OSError):
        sock.recv(4096)


def closes(sock: socket.socket) -> None:
    sock.recv(4096)


def resets(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says(data: bytes) -> Does:
    def answers(sock: socket.socket) -> None:
        sock.recv(4096)
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.recv(4096)

    return answers


def answers_another_question(sock: socket.socket) -> None:
    query = sock.recv(4096)
    reply = bytearray(query[2:])
    reply[:2] = b"\xde\xad"
    reply[2] |= 0x80
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!H", len(reply)) + bytes(reply))
        sock.recv(4096)


def points_at_itself(sock: socket.socket) -> None:
    """A name in the answer that is compressed to where it stands."""
    query = sock.recv(4096)[2:]
    reply = query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:]
    reply += b"\xc0" + bytes([len(reply)]) + b"\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x7f\x00\x00\x01"
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!H", len(reply)) + reply)
        sock.recv(4096)


SERVERS: dict[str, Does] = {
    "hangs": hangs,
    "closes": closes,
    "resets": resets,
    "garbage": says(b"\xff" * 70_000),
    "nothing": says(b"\x00\x00"),
    "a part": says(b"\x01\x00" + b"\x00" * 20),
    "zeros": says(b"\x00\x0c" + bytes(12)),
    "another question": answers_another_question,
    "a circle": points_at_itself,
}


@contextlib.contextmanager
def server(does: Does) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=one, args=(sock,), daemon=True).start()

        def one(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                does(sock)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("how", SERVERS)
@pytest.mark.parametrize("discover", ["dns:cachee.test:7946", "srv:cachee.test"])
def test_an_answer_that_is_none_is_a_failed_question_in_time(
    how: str, discover: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "QUERY_S", 0.3)
    monkeypatch.setattr(resolver_module, "ASK_S", 1.0)

    async def ask(address: str) -> str:
        with pytest.raises(Unresolved) as told:
            await asyncio.wait_for(Resolver(discover, address).ask(), 20)
        return str(told.value)

    with server(SERVERS[how]) as address:
        said = uvloop.run(ask(address))
    assert said
    assert "\n" not in said
