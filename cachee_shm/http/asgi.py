"""ASGI: the cache in front of an application of Starlette, FastAPI, Litestar, Django or of none.

    from cachee_shm.http.asgi import CacheeMiddleware
    app.add_middleware(CacheeMiddleware, cache=cachee_shm.attach("shop"), hosts=["shop.example"])

The application runs in the task in which the server called the middleware. The load that others of the host
wait for is a task of its own. It ends as soon as it is known that the response will not be stored, so that a
stream never holds up the requests that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from cachee_shm.http.fields import Fields
from cachee_shm.http.pages import (
    FAILED,
    FOUND,
    PASSED,
    REFUSED,
    STORED,
    TAG_FIELD,
    TAGS,
    TROUBLE,
    Pages,
    Recorder,
    Visit,
    policy_of,
)
from cachee_shm.http.rules import CONDITIONS, ERRORS, Request, host_of, is_unsafe
from cachee_shm.http.stored import Answer, failed
from cachee_shm.loads import current_load
from cachee_shm.waiting import library

if TYPE_CHECKING:
    from cachee_shm.cache import Cache

__all__ = ["CacheeMiddleware"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LEADS = "leads"
ROUNDS = 3  # of waiting for a load whose page was invalidated as it was made
HIDDEN = tuple(name.encode() for name in CONDITIONS)  # from an application whose response may be stored
START, BODY = "http.response.start", "http.response.body"


class CacheeMiddleware:
    """Serves and stores responses as a shared cache does (RFC 9111)."""

    def __init__(
        self,
        app: Application,
        cache: Cache | str,
        *,
        hosts: Iterable[str],
        cookies: Iterable[str] = (),
        unkeyed: Iterable[str] = (),
        body_bytes_max: int = 1 << 20,
        variants_max: int = 64,
    ) -> None:
        """``cache``: a cache, or the name of a namespace, attached when the first request comes.

        ``hosts``: the values of ``Host`` that are cached, with the port unless it is the scheme's own; any
        other request passes. ``cookies``: patterns of paths (``"/products/*"``) whose responses are the same
        whatever cookies a request has; elsewhere a request with a cookie passes. ``unkeyed``: names of
        further request fields that pages are made of; a request with one passes. ``body_bytes_max``: bytes of
        a body that is stored. ``variants_max``: how many variants (``Vary``) of a URI a host stores.

        Raises ``ValueError`` for what could never work.
        """
        self.app = app
        self._pages = Pages(cache, policy_of(hosts, cookies, unkeyed, body_bytes_max, variants_max))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[TAGS], scope["headers"] = [], list(scope["headers"])
        request = request_of(scope)
        visit = self._pages.visit(request)
        if visit is None:
            await self._pass(request, scope, receive, send)
        elif visit.is_usable:
            await _deliver(send, visit.answer())
            if visit.may_refresh():
                await self._refresh(visit, scope)
        elif visit.wish.only_cached:
            await _deliver(send, failed())
        elif request.method == "HEAD":
            await self._pass(request, scope, receive, send)
        elif visit.wish.reload or library() != "asyncio" or not visit.waits:
            await self._load(visit, scope, receive, send)
        else:
            await self._load_once(visit, scope, receive, send)

    async def _pass(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        forgets: list[tuple[int, Fields]] = []

        async def passing(message: Message) -> None:
            if message["type"] == START:
                fields, message = _fields_of(message)
                if is_unsafe(request.method):
                    forgets.append((message["status"], fields))
                    self._pages.forget(request, *forgets[0])
            await send(message)

        try:
            await self.app(scope, receive, passing)
        finally:
            for each in forgets:  # a transaction may have been committed after the response was sent
                self._pages.forget(request, *each)

    async def _load_once(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(ROUNDS):
            flight = Flight(visit)
            outcome = await flight.board()
            if outcome == LEADS:
                try:
                    await self._load(visit, scope, receive, send, flight.land)
                except asyncio.CancelledError:
                    flight.land(REFUSED)  # one of the waiting requests loads it, and the others wait on
                    raise
                finally:
                    flight.land(FAILED)
                return
            if outcome in (FOUND, STORED) and visit.found():
                await _deliver(send, visit.answer())
                return
            if outcome not in (FOUND, STORED, REFUSED):
                break
        await self._load(visit, scope, receive, send)

    async def _load(
        self,
        visit: Visit,
        scope: Scope,
        receive: Receive,
        send: Send,
        decided: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        recording = Recording(visit, Recorder(visit, scope[TAGS]), send, decided)

        async def receiving() -> Message:
            message = await receive()
            recording.received(message)
            return message

        headers, hidden = scope["headers"], () if visit.keeps_conditions() else HIDDEN
        scope["headers"] = [pair for pair in headers if bytes(pair[0]).lower() not in hidden]
        try:
            await self.app(scope, receiving, recording)
            await recording.ended()
        except Exception:
            await recording.raised()
            raise
        finally:
            scope["headers"] = headers

    async def _refresh(self, visit: Visit, scope: Scope) -> None:
        """Run the application once more, for the cache alone: the client has its answer."""
        visit.request = visit.request._replace(method="GET")
        body = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            for message in body:
                return message
            await asyncio.Event().wait()  # a client that never leaves
            raise AssertionError

        async def send(message: Message) -> None:
            pass

        await self._load(visit, {**scope, "method": "GET", TAGS: []}, receive, send)


class Flight:
    """A load of the host, as one of its callers sees it."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        loop = asyncio.get_running_loop()
        self._leads: asyncio.Future[None] = loop.create_future()
        self._outcome: asyncio.Future[str] = loop.create_future()

    async def board(self) -> str:
        """LEADS, at once, or what became of another caller's load, which was waited for."""
        task: asyncio.Future[Any] = asyncio.ensure_future(self._fly())
        try:
            await asyncio.wait([task, self._leads], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            task.cancel()
            raise
        return str(task.result()) if task.done() else LEADS

    def land(self, outcome: str) -> None:
        """End the load with this outcome: the requests that wait go on. Only the first call counts."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def _fly(self) -> str:
        visit = self._visit
        try:
            return await visit.cache.aget_or_load(visit.flight_key, self._load, tags=[visit.uri_tag])
        except TROUBLE as error:
            visit.pages.failed(error)
            return FAILED

    async def _load(self) -> str:
        load = current_load()
        if load is not None:
            load.skip()
        if self._visit.found():
            return FOUND
        self._leads.set_result(None)
        return await self._outcome


class Recording:
    """The ``send`` of an application whose response may be stored."""

    def __init__(self, visit: Visit, recorder: Recorder, send: Send, decided: Callable[[str], None]) -> None:
        self._visit, self._recorder, self._send, self._decided = visit, recorder, send, decided
        self._start: Message | None = None  # while it is held back
        self._passes = False
        self._answered = False  # by this object; what the application sends after that is dropped
        self._has_body = False

    def received(self, message: Message) -> None:
        """What the application has received: HTTP/2 has bodies that no field announces. No key has them."""
        self._has_body = self._has_body or bool(message.get("body"))

    async def __call__(self, message: Message) -> None:
        if self._answered:
            return
        if self._passes:
            await self._send(message)
        elif message["type"] == START:
            await self._begin(message)
        elif message["type"] == BODY and self._start is not None:
            await self._add(message)
        else:
            await self._give_up()
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        stale = self._visit.error_answer() if message["status"] in ERRORS else None
        if stale is not None:
            await self._answer(FAILED, stale)
            return
        fields, self._start = _fields_of(message)
        begins = self._recorder.begin(message["status"], fields)
        if message.get("trailers") or self._has_body or not begins:
            await self._give_up()

    async def _add(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        is_bounded = self._recorder.is_bounded(None if more else len(body))
        may_grow = self._recorder.add(body) and is_bounded and not self._has_body
        if not may_grow or not (more or self._recorder.is_whole):
            await self._give_up(more)
        elif not more:
            await self._answer(*self._recorder.end())

    async def _answer(self, outcome: str, answer: Answer) -> None:
        self._answered = True
        self._visit.note(outcome)
        self._decided(outcome)
        await _deliver(self._send, answer)

    async def _give_up(self, more: bool = True) -> None:
        """The response is not stored: the client gets what was held back, and the rest as it comes."""
        self._passes = True
        self._visit.note(PASSED)
        self._decided(PASSED)
        start, self._start = self._start, None
        if start is not None:
            await self._send(start)
            body = self._recorder.held()
            if body or not more:
                await self._send({"type": BODY, "body": body, "more_body": more})

    async def ended(self) -> None:
        """The application returned: what it left incomplete is passed on as that."""
        if self._start is not None and not self._answered:
            await self._give_up()

    async def raised(self) -> None:
        """The application raised before anything was sent: a stale page may take its place."""
        if not self._passes and not self._answered:
            stale = self._visit.error_answer()
            if stale is not None:
                await self._answer(FAILED, stale)


def request_of(scope: Scope) -> Request:
    """What a key is made of."""
    fields, scheme = Fields(_text(scope["headers"])), scope.get("scheme", "http")
    raw = scope.get("raw_path") or b""
    return Request(
        scope["method"],
        scheme,
        host_of(fields, scheme),
        scope["path"],
        f"{scope.get('root_path', '')} {raw.decode('latin-1')}",
        (scope.get("query_string") or b"").decode("latin-1"),
        fields,
    )


def _text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def _fields_of(message: Message) -> tuple[Fields, Message]:
    """The fields of a response's start, and the start without the tags that are among them."""
    headers = list(message.get("headers", []))
    kept = [pair for pair in headers if bytes(pair[0]).lower() != TAG_FIELD.encode()]
    return Fields(_text(headers)), {**message, "headers": kept}


async def _deliver(send: Send, answer: Answer) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.fields]
    await send({"type": START, "status": answer.status, "headers": headers})
    await send({"type": BODY, "body": answer.body})
