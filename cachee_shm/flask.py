"""Flask-Caching's backend: with one setting, all processes of a host share its cache, coherent with other
hosts.

    app.config["CACHE_TYPE"] = "cachee_shm.flask.CacheeCache"
    cache = flask_caching.Cache(app)

``CACHE_CACHEE_NAMESPACE`` and ``CACHE_CACHEE_CONFIG`` are those of ``cachee_shm.attach``.
``CACHE_CACHEE_SET_AFTER_MISS_FILLS`` is as of ``cachee_shm.cachelib``: off.
``CACHE_KEY_PREFIX`` and ``CACHE_DEFAULT_TIMEOUT`` mean what they mean to Flask-Caching's Redis backend.

Fills and writes. What ``@cache.cached``, ``@cache.memoize`` and ``{% cache %}`` store was computed after a
miss, so it is a fill: it carries the position of the ring at that miss, is refused if the key was invalidated
since, and is not announced. So two hosts that render a page differently do not evict each other's copies.
What the application stores by ``cache.set`` is a write, and is announced. So is the result of
``forced_update``.

``memoize`` keeps a random version in the cache, as a part of each key, to forget all results of a function at
once. Two hosts would have two versions, and ``delete_memoized(f, 1)`` would name a key that the other host
does not have. Here the version of a function is the name of a tag, the same on every host, and giving it a
new version means deleting the tag.
"""

from __future__ import annotations

import hashlib
import re
import sys
from base64 import urlsafe_b64encode
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response, g, has_app_context
from flask_caching.backends.base import BaseCache
from werkzeug.exceptions import HTTPException, default_exceptions

from cachee_shm import cachelib
from cachee_shm.backing import Misses
from cachee_shm.errors import Unserializable, ValueTooLarge
from cachee_shm.registry import register

if TYPE_CHECKING:
    from datetime import timedelta

    from flask import Flask

__all__ = ["CacheeCache"]

CALL_SITES = {
    ("flask_caching", "decorated_function"),  # of `cached` and `memoize`
    ("flask_caching", "_memoize_version"),
    ("flask_caching.jinja2ext", "_cache"),
}
SITES = {name for _, name in CALL_SITES}
VERBS = {"get", "set", "get_many", "set_many", "delete_many"}
PROXIES_MAX = 8  # methods of one name (of Cache and its subclasses) between call site and backend
TOKENS_MAX = 4096
VERSION = re.compile(r"~[\w-]{12}")  # of a function, or of an instance's methods; see _version
KEY_CHARS = 16  # of a memoized call's key, before the versions


class CacheeCache(cachelib.CacheeCache, BaseCache):
    """``flask_caching.backends.BaseCache`` in the shared segment of a namespace; see the module."""

    def __init__(
        self,
        default_timeout: int | timedelta = 300,
        key_prefix: str | None = None,
        ignore_delete_many_errors: bool = False,
        **where: Any,
    ) -> None:
        super().__init__(default_timeout, key_prefix, ignore_delete_many_errors, **where)
        if self._misses is not None:
            self._misses = Misses(_request)
        self._tokens: dict[int, tuple[str, int, int]] = {}

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> CacheeCache:
        """Flask-Caching calls this with the application's configuration."""
        options = {
            "namespace": config.get("CACHE_CACHEE_NAMESPACE"),
            "config": config.get("CACHE_CACHEE_CONFIG"),
            "key_prefix": config.get("CACHE_KEY_PREFIX"),
            "set_after_miss_fills": bool(config.get("CACHE_CACHEE_SET_AFTER_MISS_FILLS")),
        }
        return cls(*args, **{**options, **kwargs})

    # Reading: a call site of a fill remembers the position of the ring

    def get(self, key: str) -> Any:
        site = _call_site(sys._getframe(1))
        if site is not None:
            self._remember(site, key)
        return _restored(super().get(key))

    def get_many(self, *keys: str) -> list[Any]:
        site = _call_site(sys._getframe(1))
        values = [_restored(value) for value in super().get_many(*keys)]
        if site is not None and site.f_code.co_name == "_memoize_version":
            return [
                _version(key) if value is None else value for key, value in zip(keys, values, strict=True)
            ]
        return values

    # Writing

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool | None:
        site = _call_site(sys._getframe(1))
        since = None if site is None else self._since(site, key)
        if since is None:
            return super().set(key, _storable(value), timeout)
        return self._fill(key, _storable(value), timeout, since)

    def set_many(self, mapping: dict[str, Any], timeout: int | timedelta | None = None) -> list[Any]:
        site = _call_site(sys._getframe(1))
        if site is None:
            return super().set_many({key: _storable(value) for key, value in mapping.items()}, timeout)
        if site.f_locals.get("reset"):
            self._forget(*mapping)
        since = self.shm._token()
        return [key for key in mapping if self._fill(key, _version(key), timeout, since)]

    def delete_many(self, *keys: str) -> list[Any]:
        if _call_site(sys._getframe(1)) is not None:
            self._forget(*keys)
        return super().delete_many(*keys)

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        return super().add(key, _storable(value), timeout)

    def _fill(self, key: str, value: Any, timeout: Any, since: tuple[int, int]) -> bool:
        tags = (*self._tags, *(self._tag(version) for version in VERSION.findall(key, KEY_CHARS)))
        try:
            return self.shm._fill(
                self._known(self._key(key)), self._stored(value), *since, self._ttl(timeout), 0, tags, False
            )
        except (Unserializable, ValueTooLarge) as error:
            return self._refused(error)

    # Versions of memoized functions

    def _tag(self, version: str) -> str:
        return f"flask:{self.key_prefix}{version}"

    def _forget(self, *keys: str) -> None:
        """All results of the functions whose versions have these keys, on every host."""
        self.shm.delete_tags(*(self._tag(_version(key)) for key in keys))

    # Tokens, by the address of the call that will store. If a call never stores, its token stays until
    # another call has this address

    def _remember(self, site: FrameType, key: str) -> None:
        if len(self._tokens) >= TOKENS_MAX:
            self._tokens.clear()
        self._tokens[id(site)] = (key, *self.shm._token())

    def _since(self, site: FrameType, key: str) -> tuple[int, int] | None:
        taken, *since = self._tokens.pop(id(site), ("", 0, 0))
        return (since[0], since[1]) if taken == key else None


def _call_site(frame: FrameType | None) -> FrameType | None:
    """The function of Flask-Caching that reads and then stores, if one of them is calling; else None.

    Names of functions are compared first, which is enough for most callers.
    """
    for _ in range(PROXIES_MAX):
        if frame is None:
            return None
        name = frame.f_code.co_name
        if name not in VERBS:
            is_one = name in SITES and (frame.f_globals.get("__name__"), name) in CALL_SITES
            return frame if is_one else None
        frame = frame.f_back
    return None


def _request() -> object:
    """An object that identifies the request in this thread; None outside of requests."""
    return g._get_current_object() if has_app_context() else None


def _version(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return f"~{urlsafe_b64encode(digest).decode()}"


# Answers of a view that have no other encoding


class Abort(NamedTuple):
    """An exception that a view has raised, of one of werkzeug's classes."""

    code: int
    description: str | None
    response: Response | None


def _storable(value: Any) -> Any:
    if not isinstance(value, HTTPException) or type(value) is not default_exceptions.get(value.code or 0):
        return value
    if value.response is not None and type(value.response) is not Response:
        return value
    return Abort(value.code or 0, value.description, value.response)


def _restored(value: Any) -> Any:
    if type(value) is not Abort:
        return value
    return default_exceptions[value.code](value.description, value.response)


def _response_parts(response: Response) -> tuple[bytes, str, list[tuple[str, str]]]:
    if response.is_streamed:
        raise Unserializable("a response that streams its body; nothing was stored")
    return response.get_data(), response.status, list(response.headers)


def _response_from(parts: tuple[bytes, str, list[tuple[str, str]]]) -> Response:
    body, status, headers = parts
    return Response(body, status, [(name, value) for name, value in headers])


register(Response, "flask.Response", _response_parts, _response_from)
register(Abort, "flask_caching.abort", tuple, lambda parts: Abort(*parts))
