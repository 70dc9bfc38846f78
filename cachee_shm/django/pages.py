"""Responses in the cache, without pickle: what the cache middleware stores.

A response is stored as its class's name and its state, as Django pickles it: without the request and all that
belongs to it. The class is found by name among the modules that the reader has imported, and has to be a
response's.
"""

from __future__ import annotations

import sys
from http.cookies import Morsel, SimpleCookie
from typing import Any

from django.http import HttpResponse
from django.http.response import ResponseHeaders

from cachee_shm.registry import register

__all__ = ["Page"]

OF_THE_SERVER: dict[str, Any] = {"_handler_class": None, "_resource_closers": []}
"""Of one request, in every response."""


class Page:
    """A response on its way into the cache, or out of it."""

    __slots__ = ("response",)

    def __init__(self, response: HttpResponse) -> None:
        self.response = response


def _lowered(page: Page) -> list[Any]:
    response = page.response
    state = {**response.__getstate__(), **OF_THE_SERVER}
    headers = list(state.pop("headers").items())
    cookies = [
        [name, morsel.value, morsel.coded_value, dict(morsel)]
        for name, morsel in state.pop("cookies").items()
    ]
    kind = type(response)
    return [kind.__module__, kind.__qualname__, headers, cookies, state]


def _restored(parts: Any) -> Page:
    module, name, headers, cookies, state = parts
    kind: Any = sys.modules[module]
    for part in name.split("."):
        kind = getattr(kind, part)
    if not (isinstance(kind, type) and issubclass(kind, HttpResponse)):
        raise TypeError(f"{module}.{name} is no response")
    made: Any = kind
    response = made.__new__(made)
    response.__dict__.update(state)
    response.headers = ResponseHeaders(dict(headers))
    response.cookies = _cookies(cookies)
    return Page(response)


def _cookies(parts: Any) -> SimpleCookie:
    cookies = SimpleCookie()
    for name, value, coded_value, attributes in parts:
        morsel: Morsel[str] = Morsel()
        morsel.set(name, value, coded_value)
        morsel.update(attributes)
        dict.__setitem__(cookies, name, morsel)
    return cookies


register(Page, "django page", _lowered, _restored)
