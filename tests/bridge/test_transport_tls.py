"""The transport with certificates, over real TCP on loopback."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from cachee_bridge.carriers import connection, unproven
from cachee_bridge.carriers.tls import Contexts, Files
from tests.bridge.certificates import YESTERDAY, Authority
from tests.bridge.networks import Side, until

ALERT, TLS_1_3 = b"\x15", b"\x16\x03"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-ca"))


def run(
    left_files: Files | None, right_files: Files | None, test: Callable[[Side, Side], Awaitable[None]]
) -> None:
    async def main() -> None:
        left, right = Side(), Side()
        for side, files in ((left, left_files), (right, right_files)):
            side.network.tls = Contexts(files) if files is not None else None
            await side.listen()
        await test(left, right)
        left.network.stop()
        right.network.stop()

    uvloop.run(main())


async def linked(left: Side, right: Side) -> None:
    left.dial(right.port)
    await until(lambda: left.seen.told and right.seen.told)


def failures(side: Side) -> list[str]:
    return [str(event[-1]) for event in side.seen.told if event[0] in ("failed", "refused", "closed")]


def test_both_sides_are_told_whom_they_are_linked_with(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        assert left.seen.told == [("opened", 1, f"127.0.0.1:{right.port}", "127.0.0.1")]
        assert right.seen.told == [("opened", 1, None, "127.0.0.1")]
        assert str(left.seen.identities[1]) == "'web-2'"
        assert str(right.seen.identities[1]) == "'web-1'"

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_bytes_arrive_in_order_and_are_not_to_be_read_on_the_way(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        carried: list[bytes] = []
        relay = await asyncio.start_server(functools.partial(relayed, right.port, carried), "127.0.0.1", 0)
        left.dial(relay.sockets[0].getsockname()[1])
        await until(lambda: left.seen.told and right.seen.told)
        sent = b"a word that nobody else shall read" * 9000
        assert left.network.send(1, b"hello") is True
        left.network.send(1, sent)
        await until(lambda: right.seen.data.get(1) == b"hello" + sent)
        right.network.send(1, b"and back")
        await until(lambda: left.seen.data.get(1) == b"and back")
        assert len(b"".join(carried)) > len(sent)
        assert b"a word" not in b"".join(carried)
        relay.close()

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_records_of_one_byte_are_told_with_all_that_they_took(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        before = right.seen.wire_bytes
        for _ in range(100):
            left.network.send(1, b"x")
        await until(lambda: right.seen.data.get(1) == b"x" * 100)
        assert right.seen.wire_bytes - before == 2300

    run(authority.issue("web-1"), authority.issue("web-2"), test)


async def relayed(
    port: int, carried: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carries bytes on to `port`, and keeps them."""
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            carried.append(data)
            target.write(data)
        target.close()

    await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))


def test_a_slow_reader_leaves_the_send_unfinished_until_it_reads(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.pause(1)
        sent = 0
        while left.network.send(1, bytes(1 << 20)):
            sent += 1 << 20
            assert sent < 1 << 30
        sent += 1 << 20
        await asyncio.sleep(0.05)
        assert not left.seen.events("writable")
        right.network.resume(1)
        await until(lambda: len(right.seen.data.get(1, b"")) == sent)
        await until(lambda: left.seen.events("writable"))

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_the_last_bytes_come_before_the_end(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        left.network.send(1, b"your frame is malformed")
        left.network.close(1)
        await until(lambda: right.seen.events("closed") == [("closed", 1, "closed by the other end")])
        assert right.seen.data[1] == b"your frame is malformed"
        assert not left.seen.events("closed")

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_new_certificates_are_for_new_links(authority: Authority, stranger: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        new = authority.issue("web-1-renewed")
        left.network.tls = Contexts(new)
        left.network.send(1, b"goes on")
        await until(lambda: right.seen.data.get(1) == b"goes on")
        left.dial(right.port)
        await until(lambda: len(right.seen.events("opened")) == 2)
        assert str(right.seen.identities[2]) == "'web-1-renewed'"
        right.dial(left.port)
        await until(lambda: len(right.seen.events("opened")) == 3)
        assert str(right.seen.identities[3]) == "'web-1-renewed'"

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_each_side_says_what_is_wrong_with_a_certificate(authority: Authority, stranger: Authority) -> None:
    wrong = stranger.issue("web-1")
    cases = {
        "unknown ca": Files(wrong.cert, wrong.key, str(authority.ca)),
        "certificate expired": authority.issue("web-1", not_after=YESTERDAY, file="expired"),
    }
    for alert, files in cases.items():

        async def test(left: Side, right: Side, alert: str = alert) -> None:
            left.dial(right.port)
            await until(lambda: failures(left) and failures(right))
            assert f"the other end refuses this host's TLS: {alert}" in failures(left)[0]
            assert "the other end's certificate is refused: " in failures(right)[0]
            assert right.seen.events("refused")[0][1].startswith("127.0.0.1:")  # type: ignore[union-attr]
            assert not right.seen.events("opened")

        run(files, authority.issue("web-2"), test)


def test_a_dialler_refuses_a_certificate_before_it_says_anything(
    authority: Authority, stranger: Authority
) -> None:
    async def test(left: Side, right: Side) -> None:
        address = left.dial(right.port)
        await until(lambda: left.seen.events("failed") and right.seen.events("refused"))
        name, at, reason = left.seen.told[0]
        assert (name, at) == ("failed", address)
        assert "the other end's certificate is refused: " in str(reason)
        assert "other end refuses this host's TLS: unknown ca" in failures(right)[0]

    run(authority.issue("web-1"), stranger.issue("web-2"), test)


def test_where_one_side_alone_speaks_tls_it_says_so(authority: Authority) -> None:
    """The other side hears bytes that are no message: test_link.py."""

    async def plain_to_tls(left: Side, right: Side) -> None:
        left.dial(right.port)
        await until(lambda: left.seen.events("opened"))
        left.network.send(1, b"\x65\x00\x00\x00\x01\x97\xa6cachee")
        await until(lambda: right.seen.events("refused"))
        assert "the other end speaks no TLS" in failures(right)[0]
        await until(lambda: left.seen.events("closed"))
        assert left.seen.data[1].startswith(ALERT)

    async def tls_to_plain(left: Side, right: Side) -> None:
        left.dial(right.port)
        await until(lambda: right.seen.events("opened"))
        right.network.send(1, b"\x65\x00\x00\x00\x01\x97\xa6cachee")
        await until(lambda: left.seen.events("failed"))
        assert "the other end speaks no TLS" in failures(left)[0]
        await until(lambda: right.seen.data.get(1, b"").startswith(TLS_1_3))

    run(None, authority.issue("web-2"), plain_to_tls)
    run(authority.issue("web-1"), None, tls_to_plain)


def test_a_peer_that_sends_nothing_is_closed_after_a_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_S", 0.2)

    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", right.port)) as silent:
            await until(lambda: right.seen.events("refused"))
            silent.setblocking(False)
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(silent, 1) == b""
        assert failures(right) == ["no TLS handshake in 0.2 s"]
        with socket.create_server(("127.0.0.1", 0)) as mute:
            left.dial(mute.getsockname()[1])
            await until(lambda: left.seen.events("failed"))
        assert failures(left) == ["no TLS handshake in 0.2 s"]

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_of_many_who_say_nothing_the_oldest_gives_way(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unproven, "HANDSHAKES_MAX", 3)

    async def test(left: Side, right: Side) -> None:
        crowd = [socket.create_connection(("127.0.0.1", right.port)) for _ in range(5)]
        await until(lambda: len(right.seen.events("refused")) == 2)
        oldest = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in crowd[:2]]
        assert [event[1] for event in right.seen.told] == oldest
        await linked(left, right)
        await until(lambda: right.seen.events("opened"))
        assert failures(right) == ["closed to make room for newer links"] * 3
        for sock in crowd:
            sock.close()

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_a_handshake_that_is_broken_off_is_told(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        socket.create_connection(("127.0.0.1", right.port)).close()
        await until(lambda: right.seen.events("refused"))
        assert failures(right) == ["closed by the other end"]

    run(authority.issue("web-1"), authority.issue("web-2"), test)


def test_a_record_that_was_changed_on_the_way_ends_the_link_and_is_not_told_as_bytes(
    authority: Authority,
) -> None:
    async def test(left: Side, right: Side) -> None:
        files = authority.issue("web-1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(files.ca)
        context.load_cert_chain(files.cert, files.key)
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out)
        reader, writer = await asyncio.open_connection("127.0.0.1", right.port)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(out.read())
                into.write(await reader.read(65536))
        tls.write(b"first")
        writer.write(out.read())
        await until(lambda: right.seen.data.get(1) == b"first")
        tls.write(b"second")
        record = bytearray(out.read())
        record[-1] ^= 1
        writer.write(bytes(record))
        await until(lambda: right.seen.events("closed"))
        assert right.seen.data[1] == b"first"
        assert failures(right)[0].startswith("TLS: ")
        writer.close()

    run(None, authority.issue("web-2"), test)


def test_after_a_stop_no_handshake_goes_on_and_nothing_is_told(authority: Authority) -> None:
    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", right.port)) as stranger:
            await until(lambda: len(right.network.unproven))
            right.network.stop()
            stranger.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
        assert right.seen.told == []

    run(authority.issue("web-1"), authority.issue("web-2"), test)
