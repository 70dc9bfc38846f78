"""R12 over HTTP: whatever a client does, others are answered, and nothing of it is left."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
from pathlib import Path

import pytest

from cachee_bridge.carriers.tls import load
from cachee_bridge.http import connection, server, turns
from cachee_bridge.http.messages import Response
from tests.bridge.certificates import Authority
from tests.bridge.webs import GET, Web, all_of, parsed, served, shortened, until

CLOSING = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def is_well(web: Web) -> None:
    """Somebody else is answered, and in the end no connection is left."""
    assert await web.get() == (200, b"hello\n")
    await until(lambda: not web.server._connections and not web.server._arriving)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"G",
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1234",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_a_request_that_does_not_come_to_its_end_is_cut(said: bytes) -> None:
    async def test(web: Web) -> None:
        answer = await web.say(said)
        assert answer in (b"", b"HTTP/1.1 100 \r\n\r\n")
        await is_well(web)

    with shortened(READ_S=0.1):
        served(test)


def test_a_request_that_comes_byte_by_byte_is_cut_though_something_always_comes() -> None:
    async def test(web: Web) -> None:
        reader, writer = await web.connect()

        async def trickle() -> None:
            while not writer.is_closing():
                writer.write(b"a")
                await asyncio.sleep(0.01)

        writer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: ")
        task = asyncio.create_task(trickle())
        assert await all_of(reader, writer) == b""
        await task
        await is_well(web)

    with shortened(READ_S=0.2):
        served(test)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (1 << 20), 431),
        (b"GET /" + b"a" * (1 << 20), 414),
        (b"GET /hello HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000, 431),
        (
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + b"a" * (1 << 20),
            413,
        ),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 999 + b"\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"3e8\r\n" + b"a" * 1000 + b"\r\n") * 1000,
            413,
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: 3\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n",
            0,
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600) + b"\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\nHost: localhost\n\n", 0),
        (b"GET  /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"\r\n" * 100_000, 0),
        (bytes(1 << 20), 0),
    ],
)
def test_what_is_too_large_or_no_http_is_refused_and_ends_the_connection(said: bytes, status: int) -> None:
    async def test(web: Web) -> None:
        answer = await web.say(said)
        if status:
            found = parsed(answer)[0]
            assert found in (status, 431 if status == 414 else status)
        await is_well(web)

    with shortened(READ_S=0.3, END_S=0.3, WAIT_S=0.3):
        served(test)


def test_random_bytes_and_broken_requests_end_their_connections_alone() -> None:
    rng = random.Random(14)
    whole = b"POST /echo?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd"

    def broken() -> bytes:
        if rng.random() < 0.3:
            return rng.randbytes(rng.randrange(1, 2000))
        data = bytearray(whole * rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randrange(1, len(data) + 1)])

    async def test(web: Web) -> None:
        await asyncio.gather(*(web.say(broken()) for _ in range(60)))
        await asyncio.gather(*(web.say(broken()) for _ in range(60)))
        await is_well(web)

    with shortened(READ_S=0.2, END_S=0.2, WAIT_S=0.2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "REQUESTS_PER_S", 1e6)
        served(test)


def test_of_many_requests_sent_at_once_each_is_answered_and_the_loop_has_its_turn_between() -> None:
    async def test(web: Web) -> None:
        loop, answered, between = asyncio.get_running_loop(), [0], []

        def counts(request: object) -> Response:
            answered[0] += 1
            return Response(200, b"x" * 1000)

        def beats() -> None:
            between.append(answered[0])
            if answered[0] < 50:
                loop.call_soon(beats)

        web.routes.add("GET", "/many", counts)
        reader, writer = await web.connect()
        writer.write((GET * 49 + CLOSING).replace(b"/hello", b"/many"))
        beats()
        assert (await all_of(reader, writer)).count(b"HTTP/1.1 200 ") == 50
        assert max(later - before for before, later in itertools.pairwise(between)) <= 1
        await is_well(web)

    served(test)


def test_beyond_the_rate_requests_wait_in_their_order_and_a_flood_pushes_nobody_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "REQUESTS_BURST", 5)
    monkeypatch.setattr(turns, "REQUESTS_PER_S", 200.0)

    async def test(web: Web) -> None:
        order: list[str] = []

        def notes(request: object) -> Response:
            order.append(request.path)  # type: ignore[attr-defined]
            return Response(200, b"")

        web.routes.add("GET", "/flood", notes)
        web.routes.add("GET", "/other", notes)
        _, writer = await web.connect()
        writer.write(GET.replace(b"/hello", b"/flood") * 100)
        await until(lambda: len(order) >= 6)
        assert (await web.get("/other"))[0] == 200
        assert order.index("/other") < 90
        await until(lambda: len(order) == 101)
        writer.close()
        await is_well(web)

    served(test)


def test_a_client_that_never_reads_is_cut_and_its_requests_are_not_worked_on_meanwhile() -> None:
    async def test(web: Web) -> None:
        made = [0]

        def large(request: object) -> Response:
            made[0] += 1
            return Response(200, bytes(8 << 20))

        web.routes.add("GET", "/large", large)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", web.port))
            sock.sendall(GET.replace(b"/hello", b"/large") * 20)
            await until(lambda: made[0])
            assert (await web.get())[0] == 200
            await until(lambda: not web.server._connections)
            assert made[0] == 1
        await is_well(web)

    with shortened(SEND_S=0.3):
        served(test)


def test_a_client_that_sends_on_after_it_was_refused_is_not_listened_to_for_ever() -> None:
    async def test(web: Web) -> None:
        reader, writer = await web.connect()

        async def sends() -> None:
            while not writer.is_closing():
                writer.write(b"x" * 1000)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(sends())
        assert parsed(await all_of(reader, writer))[0] == 431
        await task
        await is_well(web)

    with shortened(END_S=0.2):
        served(test)


def test_when_there_are_too_many_the_oldest_that_waits_gives_way_and_one_that_is_answered_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 8)

    async def test(web: Web) -> None:
        go_on = asyncio.Event()

        async def waits(request: object) -> Response:
            await go_on.wait()
            return Response(200, b"waited")

        web.routes.add("GET", "/waits", waits)
        busy = [asyncio.create_task(web.get("/waits")) for _ in range(3)]
        await until(lambda: [c.state for c in web.server._connections].count("answering") == 3)
        silent = [await web.connect() for _ in range(20)]
        assert (await web.get())[0] == 200
        assert len(web.server._connections) <= 8
        go_on.set()
        assert await asyncio.gather(*busy) == [(200, b"waited")] * 3
        for _, writer in silent:
            writer.close()
        await is_well(web)

    served(test)


def test_handshakes_that_never_end_give_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(server, "HANDSHAKE_S", 60.0)
    contexts, _, _ = load(Authority(tmp_path / "ca").issue("web-1"))

    async def test(web: Web) -> None:
        before = open_sockets()
        silent = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(20)]
        for sock in silent[::2]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: len(web.server._connections) <= 4 and len(web.server._arriving) <= 4)
        await until(lambda: len([sock for sock in silent if _is_ended(sock)]) >= 16)
        for sock in silent:
            sock.close()
        await until(lambda: not web.server._connections and not web.server._arriving)
        await until(lambda: open_sockets() <= before)

    served(test, tls=contexts.serve())


def open_sockets() -> int:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.path.lexists(link) and os.readlink(link).startswith("socket:") for link in links)


def _is_ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_the_limits_are_what_the_documents_say() -> None:
    assert connection.HEAD_BYTES_MAX == 16 << 10
    assert connection.BODY_BYTES_MAX == 64 << 10
    assert server.CONNECTIONS_MAX == 64
