"""One HTTP/1.1 connection: h11 reads what the client sends, and a handler of the table answers.

    waiting     for the first byte of a request
    reading     until the whole request is there
    answering   its turn has to come (turns.py), then its handler runs; the socket is not read meanwhile
    sending     until the client has taken the whole response; then `waiting`, or the connection ends
    ending      nothing follows: what the client still sends is thrown away, so that it can read the response

Each state has a time limit, and when it is over the connection is cut. Only `waiting` may last long, and a
connection that waits is the first to go when there are too many (server.py). What one connection keeps is
bounded: HEAD_BYTES_MAX and BODY_BYTES_MAX of a request, one read of the socket beyond it, and one response.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

import h11

from cachee_bridge.http.messages import HttpError, Request, Response

if TYPE_CHECKING:
    from cachee_bridge.http.server import Server

HEAD_BYTES_MAX = 16 << 10
BODY_BYTES_MAX = 64 << 10
QUERY_FIELDS_MAX = 32
WAIT_S = 90.0
"""Prometheus asks once a minute at the most, by default four times."""
READ_S = 5.0
ANSWER_S = 10.0
"""The slowest handler asks other hosts, for 0.2 s; a request may have to wait for its turn."""
SEND_S = 10.0
END_S = 1.0
BAD = "the request is not HTTP/1.1, or one of its parts is too long"

HEADERS = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""Of every response. There is no cookie, and no header that lets other origins in."""


class Connection(asyncio.Protocol):
    """One client. No callback raises: what fails ends this connection alone."""

    def __init__(self, server: Server, client: str) -> None:
        self._server, self._client = server, client
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._head: h11.Request | None = None
        self._body = b""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._full = False
        """The transport has bytes that the client has not taken."""
        self._is_head = False
        self._last = False
        """The response that was written last ends the connection."""
        self.state = "waiting"

    # the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.state == "ending":  # it had to make room while its handshake went on
            self.cut()
            return
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._enter("waiting", READ_S)  # for the first request of a connection, not for long

    def data_received(self, data: bytes) -> None:
        if self.state == "ending":
            return
        if self.state == "waiting":
            self._enter("reading", READ_S)
        try:
            self._http.receive_data(data)
        except RuntimeError:  # it has said that nothing follows, and something follows
            self.cut()
            return
        if self.state == "reading":
            self._read()

    def eof_received(self) -> bool:
        """The client will send no more, and may still read. True: the transport stays open for that."""
        if self.state in ("waiting", "reading", "ending"):
            self.cut()
            return False
        self._http.receive_data(b"")
        return not self._server.is_tls

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self.state == "sending":
            self._sent()

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = "ending"
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._server.ended(self)

    def cut(self) -> None:
        """Ends it now, whatever it is at."""
        self.state = "ending"
        if self._transport is not None:
            self._transport.abort()

    # requests

    def _read(self) -> None:
        """What has come, up to the end of one request."""
        try:
            while self.state == "reading":
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._write(h11.InformationalResponse(status_code=100, headers=[]))
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(HttpError(error.error_status_hint, BAD))
        except HttpError as error:
            self._refuse(error)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._head, self._is_head = event, event.method == b"HEAD"
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
            if len(self._body) > BODY_BYTES_MAX:
                raise HttpError(413, f"the body has more than {BODY_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage):
            assert self._head is not None and self._transport is not None
            self._transport.pause_reading()
            self._enter("answering", ANSWER_S)
            self._server.turns.take(self._answer)
        else:  # ConnectionClosed, or PAUSED, which cannot be while a request is read
            self.cut()

    def _answer(self) -> None:
        """It is this request's turn."""
        head, body = self._head, self._body
        if self.state != "answering" or head is None:
            return
        self._head, self._body = None, b""
        try:
            request = _request(head, body, self._client)
            answer = self._server.answer(request)
        except HttpError as error:
            answer = error.response()
        if isinstance(answer, Response):
            self._respond(answer)
        else:
            self._task = asyncio.get_running_loop().create_task(self._await(request, answer))

    async def _await(self, request: Request, answer: Awaitable[Response]) -> None:
        response = await self._server.awaited(request, answer)
        if self.state == "answering":
            self._respond(response)

    # responses

    def _refuse(self, error: HttpError) -> None:
        """What cannot be read cannot be followed by anything."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._respond(error.response(), last=True)
        else:
            self.cut()

    def _respond(self, response: Response, last: bool = False) -> None:
        self._enter("sending", SEND_S)
        self._server.counted(response.status)
        headers = [
            ("Content-Type", response.type),
            ("Content-Length", str(len(response.body))),
            *HEADERS,
            *response.headers,
            *([("Connection", "close")] if last or self._server.is_closing else []),
        ]
        try:
            body = [h11.Data(data=response.body)] if response.body and not self._is_head else []
            head = h11.Response(status_code=response.status, headers=headers)
            self._write(head, *body, h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            self._server.mistake(error)
            self.cut()
            return
        self._last = last or self._http.our_state is h11.MUST_CLOSE
        if not self._full:
            self._sent()

    def _write(self, *events: h11.Event) -> None:
        """One call of the kernel for all of them."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data and self._transport is not None:
            self._transport.write(data)

    def _sent(self) -> None:
        """The client has taken the whole response."""
        assert self._transport is not None
        if self._last or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._end()
            return
        self._http.start_next_cycle()
        self._transport.resume_reading()
        pending, ended = self._http.trailing_data
        if pending:
            self._go_on()
        elif ended:
            self._end()
        else:
            self._enter("waiting", WAIT_S)

    def _go_on(self) -> None:
        """With a request that has come already. The event loop has its turn before."""
        self._enter("reading", READ_S)
        asyncio.get_running_loop().call_soon(self._read)

    def _end(self) -> None:
        assert self._transport is not None
        self._enter("ending", END_S)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _enter(self, state: str, seconds: float) -> None:
        """The connection is cut unless it has left the state by then."""
        self.state = state
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cut)


def _request(head: h11.Request, body: bytes, client: str) -> Request:
    """HttpError 400 for what is no path or has no Host."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, _, query = head.target.decode("latin-1").partition("?")
    if not path.startswith("/"):
        raise HttpError(400, "the request's target must be a path of this host")
    try:
        fields = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise HttpError(400, f"the query cannot be read; at most {QUERY_FIELDS_MAX} fields") from None
    return Request(head.method.decode("latin-1"), path, dict(fields), headers, body, client)
