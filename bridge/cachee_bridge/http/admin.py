"""Requests of the admin listener other than the page and its data.

    POST /invalidate     {"namespace": "shop", "keys": ["user:42"], "tags": ["team:7"]}      a token
    GET /api/explain     ?namespace=shop&hash=0123456789abcdef                               no token
    POST /api/explain    {"namespace": "shop", "key": "user:42"}                             a token

A token is a line of http_token_file, and is good for its namespaces. There are no cookies and no CORS, so a
page of another site can neither send a token nor read an answer. A GET that such a page causes is refused
too, for it would have all hosts asked. Of all that is asked here, only `explain` has other hosts do anything:
it has a budget for the whole listener, and beyond that the answer is 429 with Retry-After.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.carriers.gate import Bucket
from cachee_bridge.http.messages import HttpError, Response
from cachee_bridge.system.log_formats import fields
from cachee_shm.errors import CacheeError

if TYPE_CHECKING:
    from cachee_bridge.http.messages import Request
    from cachee_bridge.http.routes import Routes
    from cachee_bridge.http.tokens import Tokens

KEYS_MAX = 1000
"""In one request: about a millisecond of the bridge's time."""
EXPLAINS_PER_S, EXPLAINS_BURST = 1.0, 10
"""Each has every host look through a journal, a millisecond or two (wire/budget.py). If a hundred hosts each
have such a client, a bridge spends a tenth of a core or two on them."""
HASH = re.compile(r"[0-9a-f]{16}")

log = logging.getLogger("cachee_bridge")


class Segment(Protocol):
    """What clients may do to a namespace."""

    def delete_many(self, keys: Iterable[str | bytes], /) -> None: ...

    def delete_tags(self, *tags: str) -> None: ...

    def _hash(self, key: str | bytes, /) -> int: ...


Ask = Callable[[dict[str, Any]], "dict[str, Any] | Awaitable[dict[str, Any]]"]
"""What the operator's socket answers (daemon/requests.py)."""


class Admin:
    """Changes this host's segments for clients that have a token."""

    def __init__(
        self, held: Mapping[str, Segment], tokens: Tokens | None, look: Callable[[], object], ask: Ask
    ) -> None:
        """`tokens`: None without a file. `look()`: have the bridge send what was written."""
        self._held, self._tokens, self._look, self._ask = held, tokens, look, ask
        self._explains = Bucket(EXPLAINS_PER_S, EXPLAINS_BURST, time.monotonic())

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", "/invalidate", self.invalidate)
        routes.add("GET", "/api/explain", self.explain_hash)
        routes.add("POST", "/api/explain", self.explain_key)

    def invalidate(self, request: Request) -> Response:
        """Deletes keys and tags here, and so on every host. All are checked before any is deleted."""
        body = self._body(request, {"namespace", "keys", "tags"})
        namespace = self._permitted(request, body)
        keys, tags = _texts(body, "keys"), _texts(body, "tags")
        if not keys and not tags:
            raise HttpError(400, 'nothing to invalidate: give "keys" or "tags", each a list of strings')
        if len(keys) + len(tags) > KEYS_MAX:
            raise HttpError(
                413, f"more than {KEYS_MAX} keys and tags; nothing was done; send several requests"
            )
        held = self._held[namespace]
        try:
            for key in keys:
                held._hash(key)
            if tags:
                held.delete_tags(*tags)
            held.delete_many(keys)
        except (ValueError, TypeError) as error:
            raise HttpError(400, f"{error}; no key was deleted") from None
        except CacheeError as error:
            raise HttpError(503, f"{error}; some may be done: send it again") from None
        finally:
            self._look()
        said = fields(keys=len(keys), tags=len(tags), client=request.client, namespace=namespace)
        log.info("invalidated over HTTP", extra=said)
        return Response.json({"namespace": namespace, "keys": len(keys), "tags": len(tags)})

    async def explain_hash(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise HttpError(403, "pages of other sites may not request this")
        namespace, hashed = request.query.get("namespace", ""), request.query.get("hash", "")
        self._known(namespace)
        if not HASH.fullmatch(hashed):
            raise HttpError(400, "hash: accepted: 16 hexadecimal digits in lower case")
        return await self._explained(namespace, int(hashed, 16))

    async def explain_key(self, request: Request) -> Response:
        body = self._body(request, {"namespace", "key"})
        namespace = self._permitted(request, body)
        key = body.get("key")
        if not isinstance(key, str):
            raise HttpError(400, 'give "key", a string')
        try:
            hashed = self._held[namespace]._hash(key)
        except (ValueError, TypeError) as error:
            raise HttpError(400, str(error)) from None
        return await self._explained(namespace, hashed)

    async def _explained(self, namespace: str, hashed: int) -> Response:
        wait_s = self._explains.wait_s(time.monotonic())
        if wait_s:
            raise HttpError(
                429,
                f"all hosts of the mesh are asked for this, at most {EXPLAINS_PER_S:g} times a second here; "
                "nobody was asked",
                (("Retry-After", str(math.ceil(wait_s))),),
            )
        self._explains.take()
        answer = self._ask({"do": "explain", "namespace": namespace, "hash": hashed})
        told = answer if isinstance(answer, dict) else await answer
        if "error" in told:
            raise HttpError(503, str(told["error"]))
        return Response.json({"namespace": namespace, "hash": f"{hashed:016x}", **told})

    def _body(self, request: Request, accepted: set[str]) -> dict[str, Any]:
        """The token is checked first, so that an unknown client learns nothing about accepted input."""
        if self._tokens is None:
            raise HttpError(403, "this needs a token, and bridge.http_token_file is not set on this host")
        self._tokens.allowed(request)
        body = request.json()
        if not isinstance(body, dict) or not body.keys() <= accepted:
            raise HttpError(400, f"accepted: an object of {', '.join(sorted(accepted))}; nothing was done")
        return body

    def _permitted(self, request: Request, body: Mapping[str, Any]) -> str:
        namespace = body.get("namespace")
        if not isinstance(namespace, str):
            raise HttpError(400, 'give "namespace", a string; nothing was done')
        assert self._tokens is not None
        self._tokens.check(request, namespace)
        return self._known(namespace)

    def _known(self, namespace: str) -> str:
        if namespace not in self._held:
            known = ", ".join(sorted(self._held)) or "none"
            raise HttpError(
                404, f"this host has no namespace {namespace!r}; it has {known}; nothing was done"
            )
        return namespace


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    given = body.get(name, [])
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise HttpError(400, f"{name}: accepted: a list of strings; nothing was done")
    return given
