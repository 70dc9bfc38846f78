"""What a certificate allows: the names that its holder may use, and the namespaces that it may send and
receive.

    subject alternative name        holder may be named  and may use
    URI  cachee://web-1/shop        web-1                shop (more such URIs: more namespaces)
    URI  cachee://web-1             web-1                every namespace
    DNS  web-1                      web-1                every namespace; only where there is no cachee: URI

Nothing else in a certificate counts: no common name, no wildcard. Names are compared letter by letter. A
certificate with a cachee: URI that cannot be parsed is refused as a whole, because the URI may have been
meant as a limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cachee_shm.errors import AuthError

Limits = frozenset[str] | None
"""The namespaces that a host may use; None = every one."""

SCHEME = "cachee:"
NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
WORD = re.compile(r"cachee://([A-Za-z0-9._-]{1,63})(?:/|/([A-Za-z0-9_-]{1,64}))?")
SHOWN_MAX = 5


@dataclass(frozen=True)
class Identity:
    """The names and namespaces of one certificate."""

    hosts: Mapping[str, Limits]

    def limits(self, name: str) -> Limits:
        """The namespaces that the host `name` may use; AuthError when the certificate is not for it."""
        if name not in self.hosts:
            raise AuthError(
                f"it calls itself {name!r}, and its certificate is for {self}; give it a certificate for its "
                "name, or its [host] name the certificate's"
            )
        return self.hosts[name]

    def __str__(self) -> str:
        names = sorted(self.hosts)
        more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
        return ", ".join(map(repr, names[:SHOWN_MAX])) + more


def identity_of(alternative_names: Iterable[tuple[str, str]]) -> Identity:
    """From (kind, value) pairs as Python's ssl gives them; AuthError when they name no host."""
    pairs = list(alternative_names)
    words = [value for kind, value in pairs if kind == "URI" and value.lower().startswith(SCHEME)]
    if words:
        return Identity(_read(words))
    names = [value for kind, value in pairs if kind == "DNS" and NAME.fullmatch(value)]
    if not names:
        raise AuthError(
            "the certificate names no host; accepted: a subject alternative name such as DNS:web-1 or "
            "URI:cachee://web-1/shop"
        )
    return Identity(dict.fromkeys(names))


def _read(words: list[str]) -> dict[str, Limits]:
    hosts: dict[str, Limits] = {}
    for word in words:
        match = WORD.fullmatch(word)
        if match is None:
            raise AuthError(
                f"the certificate has {word[:100]!r}, which is not valid; accepted: cachee://HOST/NAMESPACE, "
                "or cachee://HOST for every namespace"
            )
        host, namespace = match[1], match[2]
        known = hosts.get(host, frozenset())
        hosts[host] = None if namespace is None or known is None else known | {namespace}
    return hosts
