"""The messages of a link: what each holds, and when it is sent.

    type      body, in this order                                        sent
    1 HELLO   magic, version, name, instance, nonce, mode, address,      first, by both sides
              region                                                     (version and nonce: versions.py)
    2 AUTH    [mac, ...]                                                 dialler first, then acceptor
    3 STATE   [[namespace, incarnation, tail, fingerprint], ...]         once proven (the last has fewer than
                                                                         ROWS_MAX rows), and for what is new
              fingerprint UNSERVED: the segment exists there, and its    (from wire 3 on; an older one
              bridge cannot open it (incarnation 1), or does so no       refuses the namespace for its
              more (0)                                                   hash key)
    4 BEAT    stamp, echo, [[namespace, source, incarnation, head, age_us, kind], ...],
                           [[namespace, source, incarnation, cursor, holder], ...]
    5 FRAME   namespace, source, incarnation, first, last, payload       ring records first..last
    6 REPLAY  namespace, source, incarnation, first                      send from first on
    7 SYNC    source, hops                                               send me a beat now
    8 PEERS   [[name, address], ...]                                     peers that are linked here
    9 LEAVE   reason, [[namespace, incarnation, head], ...]              last word; with heads: for good
   10 FOLLOW  [source, ...]                                              relay these sources to me
   11 CALM    stamp, echo, heads and cursors as in BEAT, of what changed from wire 3 on, where nothing else
              since the last; sum of the other heads, sum of the other    is to be said (ledger.py)
              cursors

stamp and echo are microseconds of the clock of whoever made the stamp; 0 = none. A beat's heads speak of the
sender itself, with age 0, and of sources that it relays: its word about them was current when it had the
receiver's stamp echo - age. Its cursors say how far `holder` has applied a source: the sender itself, or one
that it relays that source to. On a link that comes up each follows the other; FOLLOW, from then on, is the
whole list.

A payload is records as the segment packs and checks them (it applies all or nothing): KEY hash, KEY_SET hash
digest, TAG hash, CLEAR, ALL; from wire 3 on KEY_UNKNOWN hash (a write whose outcome is unknown); or, to a
lapped peer, a piece of a map of buckets (6, see buckets.py). The wire only bounds its size.

How a message becomes bytes, and which fields are accepted: frames.py.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = "cachee"
NONCE_BYTES = 32
PAYLOAD_ALL = b"\x05"
ROWS_MAX = 1024
"""Namespaces or peers in one message."""
REASON_CHARACTERS = 200

UNSERVED, EXISTS, GONE = 0, 1, 0
"""A fingerprint that no segment has, and the incarnations of such a row."""
HOPS_MAX = 3
"""Of a SYNC: to a gateway, to a relay, to who hears of it there. Hosts may follow each other in a circle."""
AGE_UNKNOWN = 2**64 - 1
SENT, OFFERED, LACKED, LEFT = range(4)
"""Of a head: the receiver is sent that source, as far as it has asked; it may ask; it cannot have it from
here; and it has left, with this as its final head."""


class Hello(NamedTuple):
    magic: str
    version: int
    """The oldest wire that the sender speaks."""
    name: str
    instance: int
    """u64, one life of a bridge."""
    nonce: bytes
    """Random bytes, then the newest wire that the sender speaks: versions.py."""
    mode: str
    """"none" | "secret"."""
    address: str
    """Where the sender can be dialled: "host:port", ":port" (at the address it is seen from) or ""."""
    region: str
    """"" where the configuration names none."""


class Auth(NamedTuple):
    macs: tuple[bytes, ...]
    """One for each secret that the sender holds."""


class NamespaceState(NamedTuple):
    namespace: str
    incarnation: int
    tail: int
    fingerprint: int


class State(NamedTuple):
    namespaces: tuple[NamespaceState, ...]


class Head(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    head: int
    age_us: int
    """By the receiver's clock; AGE_UNKNOWN: no stamp of the receiver is as old as the word."""
    kind: int
    """SENT, OFFERED, LACKED or LEFT."""


class Cursor(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    cursor: int
    holder: str


class Beat(NamedTuple):
    stamp: int
    echo: int
    heads: tuple[Head, ...]
    cursors: tuple[Cursor, ...]


class Calm(NamedTuple):
    stamp: int
    echo: int
    heads: tuple[Head, ...]
    cursors: tuple[Cursor, ...]
    heads_sum: int
    cursors_sum: int
    """Of the namespaces that both ends share and no row is about: ledger.py."""


class Frame(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    first: int
    last: int
    payload: bytes


class Replay(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    first: int


class Sync(NamedTuple):
    source: str = ""
    """Whose ring it is about, "" = the sender's."""
    hops: int = 0
    """How often it was passed on."""


class PeerAddress(NamedTuple):
    name: str
    address: str


class Peers(NamedTuple):
    peers: tuple[PeerAddress, ...]


class Follow(NamedTuple):
    sources: tuple[str, ...]


class FinalHead(NamedTuple):
    namespace: str
    incarnation: int
    head: int


class Leave(NamedTuple):
    reason: str
    heads: tuple[FinalHead, ...]


Message = Hello | Auth | State | Beat | Frame | Replay | Sync | Peers | Leave | Follow | Calm


def printable(reason: str) -> str:
    """As LEAVE takes it."""
    return "".join(c if c.isprintable() else "?" for c in reason)[:REASON_CHARACTERS]


def namespaces_of(message: Message) -> list[str]:
    """Every namespace that it speaks of."""
    if isinstance(message, Frame | Replay):
        return [message.namespace]
    if isinstance(message, Beat | Calm):
        return [head.namespace for head in message.heads] + [row.namespace for row in message.cursors]
    if isinstance(message, State):
        return [row.namespace for row in message.namespaces]
    if isinstance(message, Leave):
        return [row.namespace for row in message.heads]
    return []


def rows_of(message: Message) -> int:
    """How many rows its lists have."""
    rows = 0
    for field in message:
        if type(field) is tuple:
            rows += len(field)
    return rows
