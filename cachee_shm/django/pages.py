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
DEPTH_MAX = 4  # at which data of Django REST framework has a class of its own


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
    state = {name: _as_pickled(value, DEPTH_MAX) for name, value in state.items()}
    kind = type(response)
    return [kind.__module__, kind.__qualname__, headers, cookies, state]


def _as_pickled(value: Any, depth: int) -> Any:
    """With plain dicts and lists for what pickles as them: the data of REST framework's serializers."""
    kind: Any = type(value)
    if depth and kind is dict:
        return {key: _as_pickled(each, depth - 1) for key, each in value.items()}
    if depth and kind is list:
        return [_as_pickled(each, depth - 1) for each in value]
    if isinstance(value, (dict, list)) and kind.__reduce__ is not object.__reduce__:
        reduced = value.__reduce_ex__(2)
        if reduced[0] in (dict, list) and len(reduced) == 2:
            return _as_pickled(reduced[0](*reduced[1]), depth)
    return value


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
