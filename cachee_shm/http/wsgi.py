"""WSGI: the cache in front of an application of Flask, Django, Pyramid or of none.

    from cachee_shm.http.wsgi import CacheeMiddleware
    app.wsgi_app = CacheeMiddleware(app.wsgi_app, cachee_shm.attach("shop"), hosts=["shop.example"])

A load that others of the host wait for ends as soon as it is known that the response will not be stored, so
that a stream never holds up the requests that wait.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import chain, islice
from types import TracebackType
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
from cachee_shm.http.rules import ERRORS, Request, host_of, is_unsafe
from cachee_shm.http.stored import Answer, failed
from cachee_shm.loads import current_load

if TYPE_CHECKING:
    from cachee_shm.cache import Cache

__all__ = ["CacheeMiddleware"]

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

ROUNDS = 3  # of waiting for a load whose page was invalidated as it was made
HIDDEN = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")  # from an application whose response may be stored


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
        """The arguments are those of ``cachee_shm.http.asgi.CacheeMiddleware``."""
        self.app = app
        self._pages = Pages(cache, policy_of(hosts, cookies, unkeyed, body_bytes_max, variants_max))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ[TAGS] = []
        request = request_of(environ)
        visit = self._pages.visit(request)
        if visit is None:
            return self._pass(request, environ, start_response)
        if visit.is_usable:
            body = _deliver(start_response, visit.answer())
            return Body(body, lambda: self._refresh(visit, environ)) if visit.may_refresh() else body
        if visit.wish.only_cached:
            return _deliver(start_response, failed())
        if request.method == "HEAD":
            return self._pass(request, environ, start_response)
        if visit.wish.reload or not visit.waits:
            return self._load(visit, environ, start_response)
        return self._load_once(visit, environ, start_response)

    def _pass(self, request: Request, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        forgets: list[tuple[int, Fields]] = []

        def starts(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None) -> Any:
            fields = Fields(headers)
            if is_unsafe(request.method):
                forgets[:] = [(_status_of(status), fields)]
                self._pages.forget(request, *forgets[0])
            return start_response(status, _without_tags(headers), *_given(exc_info))

        body = self.app(environ, starts)
        if not is_unsafe(request.method):
            return body

        def again() -> None:
            """A transaction may have been committed after the response was made."""
            for each in forgets:
                self._pages.forget(request, *each)

        return Body(body, again)

    def _load_once(self, visit: Visit, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for _ in range(ROUNDS):
            run = Run(self.app, visit, environ, start_response)
            try:
                outcome = visit.cache.get_or_load(visit.flight_key, run.load, tags=[visit.uri_tag])
            except TROUBLE as error:
                visit.pages.failed(error)
                outcome = FAILED
            if run.began:
                return run.respond()
            if outcome in (FOUND, STORED) and visit.found():
                return _deliver(start_response, visit.answer())
            if outcome not in (FOUND, STORED, REFUSED):
                break
        return self._load(visit, environ, start_response)

    def _load(self, visit: Visit, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        run = Run(self.app, visit, environ, start_response)
        run.decide()
        return run.respond()

    def _refresh(self, visit: Visit, environ: Environ) -> None:
        """Run the application once more, for the cache alone: the client has its answer."""
        visit.request = visit.request._replace(method="GET")
        again = {**environ, "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO(), TAGS: []}
        run = Run(self.app, visit, again, lambda *_: lambda data: None)
        run.decide()
        run.close()


class Run:
    """The application's work on one request, up to where it is known what becomes of its response."""

    def __init__(
        self, app: Application, visit: Visit, environ: Environ, start_response: StartResponse
    ) -> None:
        self._app, self._visit, self._environ, self._start = app, visit, environ, start_response
        self.began = False
        self._error: Exception | None = None
        self._answer: Answer | None = None
        self._started: tuple[str, list[tuple[str, str]], ExcInfo] | None = None  # while it is held back
        self._passes = False
        self._body: Iterable[bytes] = ()
        self._writes: Any = None
        self._rest: Iterator[bytes] | None = None  # of the body, once some of it was taken
        self._taken: list[bytes] = []

    def load(self) -> str:
        """For all of this host that wait: what became of it."""
        load = current_load()
        if load is not None:
            load.skip()
        return FOUND if self._visit.found() else self.decide()

    def decide(self) -> str:
        self.began = True
        try:
            outcome = self._run()
        except Exception as error:
            self._error, outcome = error, FAILED
            self._answer = None if self._passes else self._visit.error_answer()
        self._visit.note(outcome)
        return outcome

    def _run(self) -> str:
        recorder = Recorder(self._visit, self._environ[TAGS])
        hidden = () if self._visit.keeps_conditions() else HIDDEN
        asked = {name: value for name, value in self._environ.items() if name not in hidden}
        self._body = self._app(asked, self._start_response)
        if self._started is None and not self._passes:  # a generator calls it for its first chunk
            self._rest = iter(self._body)
            self._taken = list(islice(self._rest, 1))
        if self._passes:
            return PASSED
        if self._started is None:
            raise RuntimeError("The application returned and has not called start_response.")
        status, headers, _ = self._started
        self._answer = self._visit.error_answer() if _status_of(status) in ERRORS else None
        if self._answer is not None:
            return FAILED
        whole = sum(map(len, self._body)) if isinstance(self._body, (list, tuple)) else None
        if not recorder.begin(_status_of(status), Fields(headers)) or not recorder.is_bounded(whole):
            return PASSED
        return self._record(recorder)

    def _record(self, recorder: Recorder) -> str:
        if self._rest is None:
            self._rest = iter(self._body)
        for chunk in chain(self._taken, self._rest):
            if self._passes or not recorder.add(chunk):
                break
        else:
            if recorder.is_whole:
                outcome, self._answer = recorder.end()
                return outcome
        self._taken = [recorder.held()]
        return PASSED

    def respond(self) -> Iterable[bytes]:
        if self._answer is not None:
            if self._error is not None:
                log = logging.getLogger("cachee_shm")
                log.error("The application raised. A stale page is served.", exc_info=self._error)
            self.close()
            return _deliver(self._start, self._answer)
        if self._error is not None:
            self.close()
            raise self._error
        self._pass()
        if self._rest is None:
            return self._body
        return Body(chain(self._taken, self._rest), self.close)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        self._body = ()
        if close is not None:
            close()

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None) -> Any:
        if self._passes:  # after an error in the middle of the body
            return self._start(status, _without_tags(headers), *_given(exc_info))
        self._started = (status, headers, exc_info)
        return self._write

    def _pass(self) -> Any:
        """The response begins now, as the application made it."""
        if not self._passes and self._started is not None:
            status, headers, exc_info = self._started
            self._passes = True
            self._writes = self._start(status, _without_tags(headers), *_given(exc_info))
        return self._writes

    def _write(self, data: bytes) -> object:
        return self._pass()(data)


class Body:
    """A response's body, and what is done when the server has sent it."""

    def __init__(self, body: Iterable[bytes], closed: Callable[[], None]) -> None:
        self._body, self._closed = body, closed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._closed()


def request_of(environ: Environ) -> Request:
    """What a key is made of."""
    length = environ.get("CONTENT_LENGTH")
    pairs = [("content-length", length)] if length else []
    for name, value in environ.items():
        if name.startswith("HTTP_") and isinstance(value, str):
            pairs.append((name[5:].replace("_", "-").lower(), value))
    fields = Fields(pairs)
    scheme = environ["wsgi.url_scheme"]
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return Request(
        environ["REQUEST_METHOD"],
        scheme,
        host_of(fields, scheme),
        path.encode("latin-1", "replace").decode("utf-8", "surrogateescape"),
        environ.get("RAW_URI") or environ.get("REQUEST_URI") or path,
        environ.get("QUERY_STRING", ""),
        fields,
    )


def _status_of(status: str) -> int:
    return int(status[:3]) if status[:3].isdigit() else 500


def _without_tags(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return Fields(headers).without([TAG_FIELD]).pairs


def _given(exc_info: ExcInfo) -> tuple[ExcInfo, ...]:
    return () if exc_info is None else (exc_info,)


def _deliver(start_response: StartResponse, answer: Answer) -> list[bytes]:
    phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "Unknown"
    start_response(f"{answer.status} {phrase}", answer.fields)
    return [answer.body] if answer.body else []
