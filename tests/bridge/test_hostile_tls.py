"""Strangers and odd certificates at a port that speaks TLS, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

import pytest

from cachee_bridge.carriers import connection
from cachee_bridge.carriers.tls import Files
from tests.bridge.certificates import Authority
from tests.bridge.networks import Side, until
from tests.bridge.test_transport_tls import linked, run

CLIENT_HELLO = bytes.fromhex("16030100050100000100")
GARBAGE = [
    b"\xff" * 4096,
    b"GET / HTTP/1.0\r\n\r\n",
    CLIENT_HELLO,
    b"\x16\x03\x01\xff\xff" + bytes(70000),
    b"\x00",
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def context_of(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.cert, files.key)
    return context


async def still_linked(left: Side, right: Side) -> None:
    right.seen.data.pop(1, None)
    left.network.send(1, b"still there")
    await until(lambda: right.seen.data.get(1) == b"still there")


class Client:
    """A TLS client by hand, so that what it sends can be cut anywhere."""

    def __init__(self, files: Files, port: int) -> None:
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context_of(files).wrap_bio(self.into, self.out)
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)

    async def shake(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.tls.do_handshake()
                await loop.sock_sendall(self.sock, self.out.read())
                return
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self.sock, self.out.read())
                self.into.write(await loop.sock_recv(self.sock, 1 << 16))


@pytest.mark.parametrize("data", GARBAGE, ids=len)
def test_garbage_ends_its_own_connection(authority: Authority, data: bytes) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        with socket.create_connection(("127.0.0.1", right.port)) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: right.seen.events("refused"))
        assert len(right.seen.events("opened")) == 1
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_a_handshake_byte_by_byte_is_turned_away_in_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_S", 0.2)

    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        client = Client(authority.issue("web-3"), right.port)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        for byte in client.out.read():
            if right.seen.events("refused"):
                break
            client.sock.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert "no TLS handshake" in str(right.seen.events("refused")[0][2])
        client.sock.close()
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)


@pytest.mark.parametrize("cut", [1, 5, 60, 200, 100_000])
def test_a_reset_at_any_byte_of_the_handshake_ends_that_connection(authority: Authority, cut: int) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        client = Client(authority.issue("web-3"), right.port)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.sock.send(client.out.read()[:cut])
        await asyncio.sleep(0.02)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        await until(lambda: right.seen.events("refused"))
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)


@pytest.mark.parametrize("kind", [0x81, 0x82, 0x86], ids=["email", "dns", "uri"])
def test_a_certificate_that_cannot_be_read_costs_its_connection_only(authority: Authority, kind: int) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        client = Client(authority.issue_bytes(b"web-9", b"\xff\xfe", kind=kind), right.port)
        await client.shake()
        await until(lambda: right.seen.events("refused"))
        assert "certificate" in str(right.seen.events("refused")[0][2])
        client.sock.close()
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_a_library_that_raises_what_nobody_expects_costs_its_connection_only(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)

        def mistaken(tls: ssl.SSLObject) -> None:
            raise RuntimeError("on purpose")

        monkeypatch.setattr("cachee_bridge.carriers.tls._alternative_names", mistaken)
        client = Client(authority.issue("web-3"), right.port)
        await client.shake()
        await until(lambda: right.seen.events("refused"))
        monkeypatch.undo()
        client.sock.close()
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_of_records_of_one_byte_a_bounded_part_is_read_at_once(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        client = Client(authority.issue("web-3"), right.port)
        await client.shake()
        await until(lambda: right.seen.events("opened"))
        parts: list[int] = []
        right.seen.on_received = lambda link, data: parts.append(len(data))
        for _ in range(20_000):
            client.tls.write(b"x")
        client.sock.setblocking(True)
        flood = client.out.read()
        await asyncio.get_running_loop().run_in_executor(None, client.sock.sendall, flood)
        await until(lambda: sum(parts) == 20_000)
        assert max(parts) <= (64 << 10) // 22
        client.sock.close()

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_a_closed_connection_that_is_written_to_ends_nothing(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        client = Client(authority.issue("web-3"), right.port)
        await client.shake()
        await until(lambda: len(right.seen.events("opened")) == 2)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        for _ in range(50):
            right.network.send(2, bytes(100_000))
        await until(lambda: right.seen.events("closed"))
        right.network.send(2, b"to nobody")
        await still_linked(left, right)

    run(authority.issue("web-1"), authority.issue("web-2"), test)
