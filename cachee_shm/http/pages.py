"""Pages in a cache: where they are, whether one may be served, how one is stored and forgotten.

What is known of a URI before a response is looked for is its *shape*: the request fields that its responses
vary by, and the variants that are stored. It is a local value of the host. A page has a key made of the URI
and of the values of those fields, and a tag of its URI, by which an unsafe method forgets all its variants on
every host.

The cache may fail at any time: then a request is answered by the application, as if there were no cache.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from cachee_shm.backing import Backing
from cachee_shm.errors import CacheeError
from cachee_shm.http.fields import Fields, normalized
from cachee_shm.http.rules import (
    CONDITIONS,
    FRESH,
    PREFERRED_PORTS,
    UNUSABLE,
    VARY_MAX,
    Lifetime,
    Policy,
    Request,
    Wish,
    is_unsafe,
    lifetime_of,
    may_replace_error,
    may_use,
    passes,
)
from cachee_shm.http.stored import Answer, Page, answer
from cachee_shm.mistakes import MISTAKES
from cachee_shm.segment import warn

if TYPE_CHECKING:
    from cachee_shm.cache import Cache
    from cachee_shm.filling import Filling

__all__ = ["FAILED", "FOUND", "PASSED", "REFUSED", "STORED", "TAGS", "Pages", "Recorder", "Visit", "tag"]

T = TypeVar("T")

TAGS = "cachee.tags"  # in an ASGI scope and in a WSGI environment
TAG_FIELD = "cachee-tags"
TAGS_MAX = 15  # an entry has 16; one is the URI's
SHAPE_S = 86_400
PASS_S = 60  # for so long loads of a URI that was not stored do not wait for each other
REFRESH_S = 10  # so often at most a stale page is loaded in the background
ENCODED_DOT = re.compile("%2e", re.IGNORECASE)
PATH_CHARACTERS = "/:@!$&'()*+,;="  # that stand for themselves: RFC 3986, 3.3
TTL_S_MAX = 31_536_000

FOUND, STORED, REFUSED, PASSED, FAILED = "found", "stored", "refused", "passed", "failed"
"""What became of a load: another's page is there; this one's is; it was invalidated meanwhile; it is not to
be stored; it raised."""
TROUBLE = (CacheeError, OSError, MemoryError, *MISTAKES)


def tag(where: MutableMapping[str, Any], *tags: str) -> None:
    """Name tags of the response to this request: ``delete_tags`` of one evicts the page on every host.

    ``where``: the ASGI scope (``request.scope``) or the WSGI environment (``request.environ``). Without the
    middleware it does nothing. A page with a tag that is no tag, or with more than 15, is not stored.

        tag(request.scope, "product:7")
    """
    where.get(TAGS, []).extend(tags)


class Pages:
    """One middleware's view of its cache."""

    def __init__(self, cache: Cache | str, policy: Policy) -> None:
        """``cache``: a cache, or the name of a namespace, which is attached when the first request comes."""
        self.policy = policy
        self._backing = Backing(cache) if isinstance(cache, str) else Backing(attached=cache)
        self._warned: set[type] = set()

    @property
    def cache(self) -> Cache:
        return self._backing.cache

    def failed(self, error: BaseException) -> None:
        """One log line for each kind of error."""
        if type(error) not in self._warned:
            self._warned.add(type(error))
            warn("HTTP responses are not cached while this lasts; the application answers: %r", error)

    def tried(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except TROUBLE as error:
            self.failed(error)
            return otherwise

    def visit(self, request: Request) -> Visit | None:
        """None for a request that the cache has nothing to do with."""
        if passes(request, self.policy):
            return None
        visit = Visit(self, self.cache, request)
        return visit if self.tried(visit.look, False) and not self.cache.detached else None

    def forget(self, request: Request, status: int, fields: Fields) -> None:
        """After an unsafe method: no host serves what was stored of its target any more (RFC 9111, 4.4)."""
        if not is_unsafe(request.method) or not 200 <= status < 400:
            return
        hosts = [request.host] if request.host in self.policy.hosts else sorted(self.policy.hosts)
        for host in hosts:
            uris = {(request.path, request.query)}
            for name in ("location", "content-location"):
                for reference in fields.all(name):
                    uris |= _uris_of(reference, host, request)
            tags = [_uri_tag(host, *uri) for uri in sorted(uris)]
            self.tried(lambda tags=tags: self.cache.delete_tags(*tags), None)  # type: ignore[misc]


def _digest(*parts: object) -> str:
    """Of texts; different ones have different ones."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _uri_tag(host: str, path: str, query: str) -> str:
    return f"http:uri:{_digest(host, path, query)}"


def _uris_of(reference: str, host: str, request: Request) -> set[tuple[str, str]]:
    """What a field of a response names, by RFC 3986, 5.2: its path and query, if it is of ``host``.

    A host is one under both schemes, as in the tags of what is stored: where a proxy ends TLS, an application
    names ``https`` in its answer to a request that came by ``http``.
    """
    own = quote(request.path.encode("utf-8", "surrogateescape"), PATH_CHARACTERS)
    base = f"http://{host}{own}?{request.query}"
    try:
        named = urlsplit(urljoin(base, ENCODED_DOT.sub(".", reference)))
    except ValueError:
        return set()
    port = PREFERRED_PORTS.get(named.scheme)
    if port is None or named.netloc.lower().removesuffix(port) != host:
        return set()
    # Servers differ in what they make of bytes that are no UTF-8.
    return {
        (unquote(named.path or "/", errors=errors), named.query) for errors in ("replace", "surrogateescape")
    }


class Visit:
    """One GET or HEAD that may be answered from the cache."""

    def __init__(self, pages: Pages, cache: Cache, request: Request) -> None:
        self.pages, self.cache, self.request = pages, cache, request
        self.wish = Wish.of(request.fields)
        self.primary = _digest("GET", request.scheme, request.host, request.raw, request.path, request.query)
        self.uri_tag = _uri_tag(request.host, request.path, request.query)
        self.names: tuple[str, ...] = ()
        self.variants: list[str] = []
        self.page: Page | None = None
        self.age_s = 0.0
        self.state = UNUSABLE
        self.conditional = False  # the application is asked with the request's own conditions

    def look(self) -> bool:
        """Ask the cache. ``state`` says whether ``page`` may be served. True."""
        self._read_shape()
        self.page = Page.read(self.cache.get(self._page_key(self._variant(self.names))))
        self.state = UNUSABLE
        if self.page is not None:
            self.age_s = self.page.age_s(self.cache.now_ms())
            self.state = may_use(self.page.lifetime, self.age_s, self.wish, self.request.is_authorized)
        return True

    @property
    def is_usable(self) -> bool:
        return self.state != UNUSABLE

    def found(self) -> bool:
        """Whether another look finds what may be served."""
        return self.pages.tried(self.look, False) and self.is_usable

    def answer(self) -> Answer:
        """Of the page that was found."""
        assert self.page is not None
        left_s = int(self.page.lifetime.fresh_s - self.age_s)
        return answer(self.page, self.request, self.age_s, f"hit; ttl={left_s}")

    def error_answer(self) -> Answer | None:
        """What takes the place of an error of the application: stale-if-error. None if nothing may."""
        page = self.page
        if page is None or not self.pages.tried(self.look, False) or self.page is None:
            return None  # it was invalidated while the application worked
        may = may_replace_error(self.page.lifetime, self.age_s, self.request.is_authorized)
        return self.answer() if may else None

    # One load a host

    @property
    def flight_key(self) -> str:
        """Requests that wait for this load may share its page, if it is stored."""
        who = "a" if self.request.is_authorized else ""
        return f"http:load:{self.primary}:{self._variant(self.names)}:{who}"

    @property
    def waits(self) -> bool:
        """False if the last response could not be stored: then no request waits for the next one."""
        return not self.pages.tried(lambda: self.cache.get(f"{self.flight_key}!", False), True)

    def keeps_conditions(self) -> bool:
        """Whether the application gets ``If-None-Match`` and ``If-Modified-Since``.

        Only where the last response was not to be stored: a 304 to one client is none for another.
        """
        asked = any(name in self.request.fields for name in CONDITIONS)
        self.conditional = asked and not self.waits
        return self.conditional

    def note(self, outcome: str) -> None:
        """Remember for a while that the response of a load could not be shared.

        What came of a conditional request does not count: a 304 is never stored, but the whole page may be.
        """
        if outcome == PASSED and self.conditional:
            return
        if outcome == PASSED or not self.waits:
            key = f"{self.flight_key}!"
            self.pages.tried(lambda: self.cache.set(key, outcome == PASSED, ttl=PASS_S, local=True), False)

    def may_refresh(self) -> bool:
        """Whether this caller is to load a stale page anew: one of a host, each ten seconds."""
        if self.state in (FRESH, UNUSABLE):
            return False
        key = f"{self.flight_key}~"
        return self.pages.tried(lambda: self.cache.add(key, 1, ttl=REFRESH_S, local=True), False)

    def filling(self) -> Filling | None:
        return self.pages.tried(lambda: self.cache.filling(), None)

    def keep(self, page: Page, tags: list[str], filling: Filling) -> bool:
        """Store a page. False: it was invalidated meanwhile, or there is no room for it."""
        return self.pages.tried(lambda: self._keep(page, tags, filling), False)

    def _keep(self, page: Page, tags: list[str], filling: Filling) -> bool:
        self._read_shape()
        names = tuple(sorted({*self.names, *page.lifetime.vary}))
        ttl = min(page.lifetime.kept_s - (self.cache.now_ms() - page.made_ms) / 1000, TTL_S_MAX)
        if len(names) > VARY_MAX or ttl <= 0:
            return False
        if names != self.names:
            self.names, self.variants = names, []
        variant, most = self._variant(names), self.pages.policy.variants_max
        if variant not in self.variants:
            if len(self.variants) >= most:
                self.variants = [each for each in self.variants if self._page_key(each) in self.cache]
            if len(self.variants) >= most:
                return False
            self.variants.append(variant)
            shape = [list(names), self.variants]
            self.cache.set(f"http:shape:{self.primary}", shape, ttl=SHAPE_S, local=True)
        all_tags = (self.uri_tag, *tags)
        return filling.set(self._page_key(variant), page.data, ttl=ttl, tags=all_tags)

    def _read_shape(self) -> None:
        shape = self.cache.get(f"http:shape:{self.primary}")
        self.names, self.variants = (), []
        if isinstance(shape, list) and len(shape) == 2 and all(isinstance(part, list) for part in shape):
            self.names, self.variants = tuple(map(str, shape[0])), list(map(str, shape[1]))

    def _variant(self, names: tuple[str, ...]) -> str:
        """A request with ``Origin`` never gets a page that was made for one without: see rules.py."""
        fields = self.request.fields
        parts = [(name, normalized(name, fields.all(name))) for name in names]
        return _digest("origin" in fields, *parts)

    def _page_key(self, variant: str) -> str:
        return f"http:page:{self.primary}:{variant}"


class Recorder:
    """A response of the application, held back while it may be stored.

    It is made before the application runs: what is invalidated from then on refuses the store.
    """

    def __init__(self, visit: Visit, tags: list[str]) -> None:
        """``tags``: where the application puts them while it works."""
        self.visit = visit
        self._filling = visit.filling()
        self._tags = tags
        self._status = 0
        self._fields = Fields([])
        self._lifetime: Lifetime | None = None
        self._declared: int | None = None
        self._chunks: list[bytes] = []
        self._length = 0

    def begin(self, status: int, fields: Fields) -> bool:
        """Whether the response is to be held back, at first."""
        self._status, self._fields = status, fields.without([TAG_FIELD])
        tags = ",".join(fields.all(TAG_FIELD)).split(",")
        self._tags.extend(filter(None, (each.strip() for each in tags)))
        self._lifetime = lifetime_of(self.visit.request, status, self._fields, time.time())
        lengths = set(self._fields.all("content-length"))
        text = lengths.pop() if lengths else ""
        if lengths or (text and not (text.isascii() and text.isdigit() and len(text) < 16)):
            return False
        self._declared = int(text) if text else None
        return self._filling is not None and self._lifetime is not None and self._fits()

    def _fits(self) -> bool:
        return self._declared is None or self._declared <= self.visit.pages.policy.body_bytes_max

    def is_bounded(self, length: int | None) -> bool:
        """Whether the body has a known length, and may be stored. ``length``: of a body that is all there."""
        if self._declared is None:
            self._declared = length
        return self._declared is not None and self._fits()

    def add(self, chunk: bytes) -> bool:
        """False: it is more than was declared. It is among what is held."""
        self._chunks.append(chunk)
        self._length += len(chunk)
        return self._declared is not None and self._length <= self._declared

    @property
    def is_whole(self) -> bool:
        return self._length == self._declared

    def held(self) -> bytes:
        """All chunks, which are no longer held."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)

    def end(self) -> tuple[str, Answer]:
        """Store it. What became of it, and what the client gets."""
        assert self._filling is not None and self._lifetime is not None
        page = Page.made(self._status, self._fields, self._lifetime, self._filling.started_ms, self.held())
        stored = len(set(self._tags)) <= TAGS_MAX and self.visit.keep(page, self._tags, self._filling)
        status = "fwd=miss; stored" if stored else "fwd=miss"
        return STORED if stored else REFUSED, answer(page, self.visit.request, self._lifetime.age_s, status)


def policy_of(
    hosts: Iterable[str],
    cookies: Iterable[str],
    unkeyed: Iterable[str],
    body_bytes_max: int,
    variants_max: int,
) -> Policy:
    """``ValueError`` for what could never work."""
    if isinstance(hosts, str) or isinstance(cookies, str) or isinstance(unkeyed, str):
        raise ValueError("hosts, cookies and unkeyed are lists of str, not one str. Nothing was cached.")
    names = frozenset(host.lower() for host in hosts)
    if not names or not all(names) or any("*" in host or "/" in host for host in names):
        raise ValueError(
            f"hosts: found {sorted(names)}; accepted: the values of Host that are served, with the port "
            "unless it is the scheme's own. Nothing was cached."
        )
    return Policy(
        names, tuple(cookies), frozenset(name.lower() for name in unkeyed), body_bytes_max, variants_max
    )
