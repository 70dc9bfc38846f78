"""A response as the cache holds it: a head of a few hundred bytes, and the body behind it.

    | head's length: 4 bytes | head: msgpack | body |

A 304 and the answer to a HEAD are made of the head alone.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import NamedTuple

import msgpack

from cachee_shm.http.fields import Fields, entity_tags, http_date
from cachee_shm.http.rules import Lifetime, Request

__all__ = ["Answer", "Page", "answer", "failed"]

FORM = 1  # of the head
LENGTH = struct.Struct("<I")
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("proxy-authentication-info", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
REGENERATED = HOP_BY_HOP | {"age", "content-length", "cache-status"}
IN_304 = frozenset({"cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"})
BODILESS = frozenset({204, 304})


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes


class Page(NamedTuple):
    """A response that was stored. ``made_ms``: by the cache's clock, when its age was ``lifetime.age_s``."""

    status: int
    fields: Fields
    lifetime: Lifetime
    made_ms: int
    data: bytes
    body_at: int

    @property
    def body(self) -> bytes:
        return self.data[self.body_at :]

    def age_s(self, now_ms: int) -> float:
        return self.lifetime.age_s + max(0, now_ms - self.made_ms) / 1000

    @classmethod
    def made(cls, status: int, fields: Fields, lifetime: Lifetime, made_ms: int, body: bytes) -> Page:
        """With an ETag, strong and of these very bytes, where the application gave it none."""
        listed = {name.strip().lower() for name in (fields.joined("connection") or "").split(",")}
        kept = fields.without(REGENERATED | listed)
        if status == 200 and "etag" not in kept:
            kept = Fields([*kept.pairs, ("etag", _etag(kept, body))])
        head = msgpack.packb([FORM, status, kept.pairs, list(lifetime), made_ms])
        data = LENGTH.pack(len(head)) + head + body
        return cls(status, kept, lifetime, made_ms, data, LENGTH.size + len(head))

    @classmethod
    def read(cls, data: object) -> Page | None:
        """None for bytes that are no page: any process that may write the segment may have put them there."""
        try:
            if not isinstance(data, bytes):
                return None
            (length,) = LENGTH.unpack_from(data)
            if length > len(data) - LENGTH.size:
                return None
            form, status, pairs, lifetime, made_ms = msgpack.unpackb(data[LENGTH.size : LENGTH.size + length])
            age_s, fresh_s, revalidate_s, error_s, for_authorized, vary = lifetime
            times = (age_s, fresh_s, revalidate_s, error_s)
            fields = Fields((name, value) for name, value in pairs)
            numbers = [status, made_ms, *times]
            good = form == FORM and fields.are_clean() and all(type(each) in (int, float) for each in numbers)
            if not good or not 200 <= status <= 599 or type(for_authorized) is not bool:
                return None
            read = Lifetime(age_s, fresh_s, revalidate_s, error_s, for_authorized, tuple(map(str, vary)))
            return cls(status, fields, read, made_ms, data, LENGTH.size + length)
        except Exception:  # msgpack raises half a dozen kinds
            return None


def _etag(fields: Fields, body: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("content-encoding", "content-type", "content-language"):
        digest.update(f"{fields.joined(name)}\n".encode())
    digest.update(body)
    return f'"{digest.hexdigest()}"'


def is_unchanged(page: Page, request: Request) -> bool:
    """Whether the client has this representation: RFC 9110, 13.2.2."""
    if page.status != 200:
        return False
    asked = request.fields.joined("if-none-match")
    if asked is not None:
        etag = page.fields.joined("etag") or ""
        tags = entity_tags(asked) or set()
        return "*" in tags or etag.removeprefix("W/") in tags
    now_s = time.time()
    since = http_date(request.fields.joined("if-modified-since") or "", now_s)
    modified = http_date(page.fields.joined("last-modified") or "", now_s)
    return since is not None and modified is not None and modified <= since


def answer(page: Page, request: Request, age_s: float, status: str) -> Answer:
    """What a request gets that this page serves. ``status``: for the field Cache-Status (RFC 9211)."""
    added = [("cache-status", f"cachee; {status}")]
    if age_s >= 1 or "hit" in status:
        added.append(("age", str(int(age_s))))
    if is_unchanged(page, request):
        pairs = [pair for pair in page.fields.pairs if pair[0].lower() in IN_304]
        return Answer(304, pairs + added, b"")
    if page.status not in BODILESS:
        added.append(("content-length", str(len(page.data) - page.body_at)))
    body = b"" if request.method == "HEAD" or page.status in BODILESS else page.body
    return Answer(page.status, page.fields.pairs + added, body)


def failed() -> Answer:
    """only-if-cached, and it is not: RFC 9111, 5.2.1.7."""
    return Answer(504, [("cache-status", "cachee; fwd=request"), ("content-length", "0")], b"")
