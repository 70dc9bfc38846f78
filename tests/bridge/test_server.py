"""The HTTP server over real sockets: which request gets which answer, and what a handler can cause."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from pathlib import Path

import pytest

from cachee_bridge.carriers.tls import load
from cachee_bridge.http import server as server_module
from cachee_bridge.http.hosts import OwnNames
from cachee_bridge.http.messages import HttpError, Request, Response
from tests.bridge.certificates import Authority
from tests.bridge.webs import GET, Web, all_of, parsed, served, shortened, until


def test_a_request_gets_what_its_handler_says_and_the_connection_stays_for_the_next() -> None:
    async def test(web: Web) -> None:
        reader, writer = await web.connect()
        for _ in range(3):
            writer.write(GET)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"Content-Length: 6\r\n" in head and b"nosniff" in head
            assert b"default-src 'self'" in head and b"Access-Control" not in head and b"Cookie" not in head
            assert await reader.readexactly(6) == b"hello\n"
        writer.close()

    served(test)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def test(web: Web) -> None:
        reader, writer = await web.connect()
        writer.write(GET.replace(b"GET", b"HEAD") + GET)
        assert b"Content-Length: 6\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(6) == b"hello\n"
        writer.close()

    served(test)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /nothing HTTP/1.1", 404, b"/echo, /hello"),
        (b"GET /hello/ HTTP/1.1", 404, b""),
        (b"GET /../hello HTTP/1.1", 404, b""),
        (b"POST /hello HTTP/1.1\r\nContent-Length: 0", 405, b"GET, HEAD"),
        (b"OPTIONS /hello HTTP/1.1", 405, b""),
        (b"GET http://elsewhere/hello HTTP/1.1", 400, b"path"),
        (b"CONNECT elsewhere:443 HTTP/1.1", 400, b""),
        (b"GET /hello?" + b"&".join(b"a=%d" % i for i in range(99)) + b" HTTP/1.1", 400, b"fields"),
    ],
)
def test_what_there_is_no_answer_to_is_said_in_words(request_: bytes, status: int, words: bytes) -> None:
    async def test(web: Web) -> None:
        answer = await web.say(request_ + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert parsed(answer)[0] == status
        assert words in parsed(answer)[1]
        assert (await web.get())[0] == 200

    served(test)


def test_a_request_arrives_whole_with_its_query_its_headers_and_its_body() -> None:
    async def test(web: Web) -> None:
        body = json.dumps({"key": "<script>\x00"}).encode()
        head = b"POST /echo?a=1&b=%20x&a=2 HTTP/1.1\r\nHost: localhost\r\nX-Thing: one\r\nx-thing: two\r\n"
        head += b"Content-Type: application/json; charset=utf-8\r\nAuthorization: Bearer  t0ken\r\n"
        answer = await web.say(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        assert parsed(answer) == (200, body)
        (request,) = web.asked
        assert (request.method, request.path, dict(request.query)) == ("POST", "/echo", {"a": "2", "b": " x"})
        assert (request.headers["x-thing"], request.client) == ("one, two", "127.0.0.1")
        assert request.json() == {"key": "<script>\x00"}
        assert request.bearer() == "t0ken"

    served(test)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b"[" * 60_000, 400),
        ({"content-type": "application/json"}, b"\xff", 400),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
    ],
)
def test_a_body_that_is_not_json_or_not_called_so_is_refused(
    headers: dict[str, str], body: bytes, status: int
) -> None:
    with pytest.raises(HttpError) as caught:
        Request("POST", "/", headers=headers, body=body).json()
    assert caught.value.status == status


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Basic abc", "bearer"])
def test_what_is_no_bearer_token_is_none(given: str) -> None:
    assert Request("GET", "/", headers={"authorization": given}).bearer() is None


def test_json_escapes_what_is_not_printable() -> None:
    body = Response.json({"key": "a\x1b[31m\n\x00ü\u2028"}).body
    assert all(32 <= byte < 127 for byte in body.rstrip(b"\n"))


def test_a_handler_that_waits_holds_up_nobody_and_one_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "HANDLE_S", 0.05)
    gone = asyncio.Event

    async def test(web: Web) -> None:
        go_on = gone()

        async def waits(request: Request) -> Response:
            await go_on.wait()
            return Response.json({"waited": True})

        async def hangs(request: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

        web.routes.add("GET", "/hangs", hangs)
        assert (await web.get("/hangs"))[0] == 504
        monkeypatch.setattr(server_module, "HANDLE_S", 60.0)
        web.routes.add("GET", "/waits", waits)
        waiting = asyncio.create_task(web.get("/waits"))
        assert (await web.get())[0] == 200
        go_on.set()
        assert await waiting == (200, b'{"waited": true}\n')

    served(test)


def test_a_handler_that_fails_costs_its_client_a_500_and_its_words_are_in_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(request: Request) -> Response:
        raise ZeroDivisionError("the secret")

    async def fails_later(request: Request) -> Response:
        await asyncio.sleep(0)
        raise ZeroDivisionError("the other secret")

    def refuses(request: Request) -> Response:
        raise HttpError(409, "not now")

    async def refuses_later(request: Request) -> Response:
        raise HttpError(409, "not now")

    async def test(web: Web) -> None:
        for handler, status in ((fails, 500), (fails_later, 500), (refuses, 409), (refuses_later, 409)):
            web.routes.add("GET", "/it", handler)
            found, body = await web.get("/it")
            assert found == status
            assert b"secret" not in body
        assert (await web.get())[0] == 200
        assert web.server.statuses == {500: 2, 409: 2, 200: 1}

    with caplog.at_level(logging.ERROR):
        served(test)
    assert "the secret" in caplog.text


def test_a_client_that_goes_while_it_is_answered_takes_its_handler_with_it() -> None:
    async def test(web: Web) -> None:
        cancelled = asyncio.Event()

        async def waits(request: Request) -> Response:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        web.routes.add("GET", "/waits", waits)
        _, writer = await web.connect()
        writer.write(GET.replace(b"/hello", b"/waits"))
        await until(lambda: [c for c in web.server._connections if c._task is not None])
        web.server.close()
        await asyncio.wait_for(cancelled.wait(), 20)
        writer.close()

    served(test)


def test_a_name_that_is_not_this_host_s_is_misdirected_and_an_address_is_not() -> None:
    async def test(web: Web) -> None:
        for host in ("localhost", "127.0.0.1:1", "[::1]:1", "web-1", "WEB-1.:80", "10.1.2.3"):
            assert (await web.get("/hello", f"Host: {host}"))[0] == 200
        for host in ("evil.example", "evil.example:9947", "web-1.evil.example", "localhost.evil.example", ""):
            assert (await web.get("/hello", f"Host: {host}"))[0] == 421
        assert parsed(await web.say(b"GET /hello HTTP/1.0\r\n\r\n"))[0] == 421
        assert parsed(await web.say(b"GET /hello HTTP/1.1\r\nHost: web-1\r\nHost: web-1\r\n\r\n"))[0] == 400
        assert parsed(await web.say(b"GET /hello HTTP/1.1\r\n\r\n"))[0] == 400

    served(test, OwnNames(["web-1"]))


def test_with_a_certificate_it_speaks_tls_and_without_it_a_client_learns_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    contexts, _, _ = load(authority.issue("web-1"))
    assert contexts.names == ("web-1",)

    async def test(web: Web) -> None:
        client = ssl.create_default_context(cafile=str(authority.ca))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", web.port, ssl=client, server_hostname="web-1"
        )
        writer.write(GET + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await all_of(reader, writer)
        assert answer.count(b"hello\n") == 2
        assert await web.say(GET) == b""
        assert b"hello" not in await web.say(b"\x16\x03\x01" + bytes(300))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", web.port, ssl=client, server_hostname="web-1"
        )
        web.server.renew(load(authority.issue("web-1", file="new"))[0].serve())
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"hello" in await all_of(reader, writer)
        await until(lambda: not web.server._connections and not web.server._arriving)

    with shortened(READ_S=0.3):
        served(test, tls=contexts.serve())


def test_after_its_close_nobody_is_answered_and_no_connection_is_left() -> None:
    async def test(web: Web) -> None:
        reader, writer = await web.connect()
        writer.write(GET)
        await reader.readuntil(b"hello\n")
        port = web.port
        web.server.close()
        assert await all_of(reader, writer) == b""
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not web.server._connections

    served(test)
