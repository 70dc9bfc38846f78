"""What a shared cache may do: RFC 9111, 5861 (stale responses) and 9110. No input, no output, no clock.

Where the RFC leaves a choice, this cache stores less: only explicit freshness, only final statuses that are
cacheable by default, nothing that sets a cookie.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import NamedTuple

from cachee_shm.http.fields import DELTA_S_MAX, Directives, Fields, age_of, http_date

__all__ = [
    "Lifetime",
    "Policy",
    "Request",
    "Wish",
    "host_of",
    "is_unsafe",
    "lifetime_of",
    "may_use",
    "passes",
]

STORED_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
ERRORS = frozenset({500, 502, 503, 504})  # RFC 5861, 4: a stale response may take their place
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
STREAMS = frozenset({"text/event-stream", "multipart/x-mixed-replace"})
VARY_MAX = 16  # names; no page of a person's own making has more
FIELD_BYTES_MAX = 16_384  # of a header; servers take about as much
PREFERRED_PORTS = {"http": ":80", "https": ":443"}

PRECONDITIONS = ("range", "if-range", "if-match", "if-unmodified-since")
"""What only the application answers."""
CONDITIONS = ("if-none-match", "if-modified-since")
"""What a stored page can answer."""
REWRITES = (
    *("x-original-url", "x-rewrite-url", "x-original-host", "x-forwarded-prefix", "x-forwarded-path"),
    *("x-http-method-override", "x-http-method", "x-method-override"),
)
"""Fields that make applications answer for another URI or method. They are in no key."""
HOST_CLAIMS = ("x-forwarded-host", "x-forwarded-server", "x-host")
SCHEME_CLAIMS = ("x-forwarded-proto", "x-forwarded-protocol", "x-forwarded-scheme", "x-url-scheme")
TLS_CLAIMS = ("x-forwarded-ssl", "front-end-https")  # on, or off
PORT_CLAIMS = ("x-forwarded-port",)


class Policy(NamedTuple):
    """How a middleware was configured."""

    hosts: frozenset[str]
    cookies: tuple[str, ...]  # patterns of paths whose pages are the same whatever cookie is sent
    unkeyed: frozenset[str]  # further request fields with which nothing is cached
    body_bytes_max: int
    variants_max: int


class Request(NamedTuple):
    """A request, as a key is made of it. ``path`` is decoded, ``raw`` as it was sent."""

    method: str
    scheme: str
    host: str
    path: str
    raw: str
    query: str
    fields: Fields

    @property
    def is_authorized(self) -> bool:
        return "authorization" in self.fields


def host_of(fields: Fields, scheme: str) -> str:
    """The one host that a request names: lowercase, without the scheme's own port; "" for none or several."""
    found = fields.all("host")
    return found[0].strip().lower().removesuffix(PREFERRED_PORTS.get(scheme, ":")) if len(found) == 1 else ""


def is_unsafe(method: str) -> bool:
    """Whether a method may change what is stored: also one whose meaning is not known."""
    return method not in SAFE


def passes(request: Request, policy: Policy) -> str:
    """Why a request is neither answered from the cache nor stored; "" if it may be."""
    fields = request.fields
    if request.method not in ("GET", "HEAD"):
        return "method"
    if request.host not in policy.hosts:
        return "host"
    if request.scheme not in PREFERRED_PORTS:
        return "scheme"
    if not fields.are_clean():
        return "control character"
    if any(name in fields for name in PRECONDITIONS):
        return "precondition"
    if fields.joined("content-length") not in (None, "0") or "transfer-encoding" in fields:
        return "body"
    if "no-store" in Directives(fields.joined("cache-control") or ""):
        return "no-store"
    if "cookie" in fields and not _takes_cookies(request.path, policy):
        return "cookie"
    if "upgrade" in fields or _is_unkeyed(request, policy):
        return "unkeyed field"
    return ""


def _takes_cookies(path: str, policy: Policy) -> bool:
    is_plain = not ("//" in path or "/." in path or "\\" in path or ";" in path)
    return is_plain and any(fnmatchcase(path, pattern) for pattern in policy.cookies)


def _is_unkeyed(request: Request, policy: Policy) -> bool:
    """What an application may make a page of, and no key has: an attacker would choose what others see."""
    fields = request.fields
    if any(name in fields for name in REWRITES) or any(name in fields for name in policy.unkeyed):
        return True
    hosts = [host for name in HOST_CLAIMS for host in fields.all(name)]
    schemes = [scheme for name in SCHEME_CLAIMS for scheme in fields.all(name)]
    schemes += [_scheme_of_tls(said) for name in TLS_CLAIMS for said in fields.all(name)]
    ports = [claimed.strip() for name in PORT_CLAIMS for claimed in fields.all(name)]
    for pair in (fields.joined("forwarded") or "").replace(",", ";").split(";"):
        name, _, value = pair.strip().partition("=")
        name, value = name.rstrip().lower(), value.strip(' \t"')
        hosts += [value] if name == "host" else []
        schemes += [value] if name == "proto" else []
    port = PREFERRED_PORTS[request.scheme]
    if any(claimed != _port_of(request.host, port) for claimed in ports):
        return True
    return any(host.strip().lower().removesuffix(port) != request.host for host in hosts) or any(
        scheme.strip().lower() != request.scheme for scheme in schemes
    )


def _scheme_of_tls(said: str) -> str:
    return {"on": "https", "off": "http"}.get(said.strip().lower(), "")


def _port_of(host: str, preferred: str) -> str:
    """The digits of the port. ``preferred``: that of the scheme, which a host without one has."""
    named = host.rpartition(":")[2]
    return named if ":" in host and named.isdigit() else preferred[1:]


# What a request asks of a cache


class Wish(NamedTuple):
    """The directives of a request, in seconds."""

    reload: bool
    only_cached: bool
    age_max: float
    fresh_min: float
    stale_max: float

    @classmethod
    def of(cls, fields: Fields) -> Wish:
        said = fields.joined("cache-control")
        directives = Directives(said or "")
        pragma = said is None and "no-cache" in Directives(fields.joined("pragma") or "")
        age_max, fresh_min = directives.seconds("max-age"), directives.seconds("min-fresh")
        stale_max = directives.seconds("max-stale") or 0.0
        if "max-stale" in directives and directives.argument("max-stale") is None:
            stale_max = math.inf
        return cls(
            pragma or "no-cache" in directives or age_max == 0,
            "only-if-cached" in directives,
            math.inf if age_max is None else age_max,
            fresh_min or 0.0,
            stale_max,
        )


# What a response allows


class Lifetime(NamedTuple):
    """How a response may be stored, in seconds."""

    age_s: float  # when it was made
    fresh_s: float
    revalidate_s: float  # after it: stale-while-revalidate
    error_s: float  # stale-if-error
    for_authorized: bool
    vary: tuple[str, ...]

    @property
    def kept_s(self) -> float:
        """How long it is of any use."""
        return self.fresh_s - self.age_s + max(self.revalidate_s, self.error_s)


def lifetime_of(request: Request, status: int, fields: Fields, now_s: float) -> Lifetime | None:
    """None for a response that must not be stored. ``now_s``: seconds since 1970."""
    if request.method != "GET" or status not in STORED_STATUSES or not fields.are_clean():
        return None
    if sum(len(name) + len(value) for name, value in fields.pairs) > FIELD_BYTES_MAX:
        return None
    if any(name in fields for name in ("set-cookie", "set-cookie2", "content-range", "upgrade", "trailer")):
        return None
    if (fields.joined("content-type") or "").split(";")[0].strip().lower() in STREAMS:
        return None
    vary = _vary(fields)
    control = Directives(fields.joined("cache-control") or "")
    if vary is None or any(name in control for name in ("no-store", "no-cache", "private")):
        return None
    for_authorized = any(name in control for name in ("public", "s-maxage", "must-revalidate"))
    if request.is_authorized and not for_authorized:
        return None
    if "origin" in request.fields and not _is_for_any_origin(fields, vary):
        return None
    age_s, fresh_s = _age(fields, now_s), _freshness(control, fields, now_s)
    if age_s is None or fresh_s is None:
        return None
    strict = any(name in control for name in ("must-revalidate", "proxy-revalidate", "s-maxage"))
    revalidate_s = 0 if strict else control.seconds("stale-while-revalidate") or 0
    error_s = 0 if strict else control.seconds("stale-if-error") or 0
    if fresh_s + revalidate_s <= age_s:  # no request would be answered with it
        return None
    return Lifetime(age_s, fresh_s, revalidate_s, error_s, for_authorized, vary)


def _is_for_any_origin(fields: Fields, vary: tuple[str, ...]) -> bool:
    """Whether a response to a request with ``Origin`` says for which other origins it is, too.

    Litestar and older versions of Starlette name the origins that may read a page, and say so by ``Vary``,
    only in the answers to these. Any other answer would keep the page from them if it were served to them.
    """
    return "origin" in vary or fields.all("access-control-allow-origin") == ["*"]


def _vary(fields: Fields) -> tuple[str, ...] | None:
    """Lowercase names in order; None for what no later request can be known to match."""
    names = {name.strip(" \t").lower() for name in (fields.joined("vary") or "").split(",")} - {""}
    if "*" in names or len(names) > VARY_MAX or not Fields((name, "") for name in names).are_clean():
        return None
    return tuple(sorted(names))


def _age(fields: Fields, now_s: float) -> float | None:
    """RFC 9111, 4.2.3: of a response that came just now."""
    said = age_of(fields.all("age"))
    date_s = http_date((fields.all("date") or [""])[0], now_s)
    if said is None:
        return None
    return max(said, now_s - date_s if date_s is not None else 0.0, 0.0)


def _freshness(control: Directives, fields: Fields, now_s: float) -> float | None:
    """RFC 9111, 4.2.1, without heuristics."""
    for name in ("s-maxage", "max-age"):
        if name in control:
            return control.seconds(name)
    expires = fields.all("expires")
    if len(expires) != 1:
        return None
    expires_s, date_s = (http_date(each, now_s) for each in (expires[0], (fields.all("date") or [""])[0]))
    if expires_s is None:
        return None
    return min(expires_s - (now_s if date_s is None else date_s), DELTA_S_MAX)


# What may be served


FRESH, STALE, UNUSABLE = "fresh", "stale", "unusable"


def may_use(lifetime: Lifetime, age_s: float, wish: Wish, is_authorized: bool) -> str:
    """FRESH: serve it; STALE: serve it, and load it anew; UNUSABLE: load it."""
    if (is_authorized and not lifetime.for_authorized) or wish.reload or age_s > wish.age_max:
        return UNUSABLE
    left_s = lifetime.fresh_s - age_s
    if left_s > 0 and left_s >= wish.fresh_min:
        return FRESH
    if wish.fresh_min or -left_s >= max(lifetime.revalidate_s, wish.stale_max):
        return UNUSABLE
    return STALE


def may_replace_error(lifetime: Lifetime, age_s: float, is_authorized: bool) -> bool:
    """Whether it may be served in the place of an error of the application."""
    return (lifetime.for_authorized or not is_authorized) and age_s - lifetime.fresh_s < lifetime.error_s
