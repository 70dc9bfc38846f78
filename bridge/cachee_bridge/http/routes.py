"""Which handler answers which path of one listener. A path is matched as a whole, letter by letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cachee_bridge.http.messages import HttpError, Request, Response

Handler = Callable[[Request], Response | Awaitable[Response]]
"""Runs on the event loop, so it may not wait but by `await`. It may raise HttpError."""


class Routes:
    """The table of one listener."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """HEAD is answered wherever GET is."""
        self._handlers.setdefault(path, {})[method] = handler

    @property
    def paths(self) -> list[str]:
        return sorted(self._handlers)

    def find(self, request: Request) -> Handler:
        """HttpError 404 or 405 where there is none."""
        handlers = self._handlers.get(request.path)
        if handlers is None:
            raise HttpError(404, f"there is nothing here; there is {', '.join(self.paths)}")
        method = "GET" if request.method == "HEAD" and "GET" in handlers else request.method
        if method not in handlers:
            allowed = ", ".join(sorted({*handlers, *(["HEAD"] if "GET" in handlers else [])}))
            raise HttpError(405, f"accepted here: {allowed}", (("Allow", allowed),))
        return handlers[method]
