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
   12 QUESTION number, what, namespace, [[hash, number, bytes], ...]     from wire 3 on (questions.py)
   13 ANSWER  number, namespace, failure, incarnation, cursor, tail,     to each QUESTION (questions.py)
              [[hash, held, version, fence, age_ms, digest, value], ...],
              [[hash, age_us, kind, layer, source, incarnation, sequence, pid, command, service, why,
                since_us, digest], ...]
   14 DOUBT   [namespace, ...]                                          from wire 3 on, before a STATE: in
                                                                         these, of the STATE's, some write
                                                                         has an unknown outcome
   15 FETCH   number, namespace, key, patience_ms,                      from wire 3 on (fetches.py)
              [[source, incarnation, position], ...]
   16 FETCHED number, namespace, key, outcome, host, type, age_ms,      to each FETCH (fetches.py)
              left_ms, [hash of a tag, ...], value

stamp and echo are microseconds of the clock of the host that made the stamp; 0 = none. A beat's heads are
those of the sender itself, with age 0, and of sources that it relays: its report on these was current when it
had the receiver's stamp `echo - age`. Its cursors say how far `holder` has applied a source: the sender
itself, or a host to which it relays that source. On a new link each end follows the other; from then on, a
FOLLOW is the whole list.

A payload is records as the segment packs and checks them (it applies all or nothing): KEY hash, KEY_SET hash
digest (or some bits of it: relay.h), TAG hash, CLEAR, ALL; from wire 3 on KEY_UNKNOWN hash (a write whose
outcome is unknown), ALL_KNOWN (no such write is among what it stands for); or, to a lapped peer, a piece of a
map of buckets (6 or 9, see buckets.py). The wire only bounds its size.

How a message becomes bytes, and which fields are accepted: frames.py.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = "cachee"
NONCE_BYTES = 32
PAYLOAD_ALL = b"\x05"
"""Evict everything older; the record may stand for writes of unknown outcome."""
PAYLOAD_ALL_KNOWN = b"\x08"
"""The same, and it stands for no such write."""
PAYLOADS_ALL = (PAYLOAD_ALL, PAYLOAD_ALL_KNOWN)
ROWS_MAX = 1024
"""Namespaces or peers in one message."""
REASON_CHARACTERS = 200
WORD_CHARACTERS = 64
"""Of a name in a row of a journal."""

UNSERVED, EXISTS, GONE = 0, 1, 0
"""A fingerprint that no segment has, and the incarnations of such a row."""
HOPS_MAX = 3
"""Of a SYNC: to a gateway, to a relay, to that relay's followers. Bounded, because hosts may follow each
other in a circle."""
AGE_UNKNOWN = 2**64 - 1
HOLDS, FILL, ARM, JOURNAL = range(4)
"""What a QUESTION asks: what the host holds of these keys; to store these values, loaded under these tokens;
to arm these keys; what happened to these keys."""
ABSENT, SHARED, LOCAL, STORED, REFUSED = range(5)
"""What a host holds of a key, or what became of a fill."""
ASKED_MAX = 16
"""Keys in one QUESTION."""
CANARY_BYTES_MAX = 96
"""The value of a canary: its writer's name, and a number."""
JOURNAL_ROWS_MAX = 256
"""Of one ANSWER: some 30 KiB."""
NOTHING, GIVEN, LOAD, ELSEWHERE = range(4)
"""What a FETCH brings: nothing; the value; load it yourself; another host loads it."""
KEY_BYTES_MAX = 1024
TAGS_MAX = 16
GIVEN_BYTES_MAX = 512 * 1024
"""Of a value that is given: half of a message."""
AGE_STEP_MS = 125
"""Ages are inexact by up to 2/16 s: an entry stores its time in sixteenths of a second."""
SENT, OFFERED, LACKED, LEFT = range(4)
"""Of a head: the receiver is sent that source, as far as it has asked; the receiver may ask for it; the
sender cannot send it; the source has left, and this is its final head."""


class Hello(NamedTuple):
    magic: str
    version: int
    """The oldest wire that the sender speaks."""
    name: str
    instance: int
    """u64, one life of a bridge; its upper half numbers a life of the host's shared memory
    (sources/boots.py)."""
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
    """By the receiver's clock; AGE_UNKNOWN: no remembered stamp of the receiver is as old as the report."""
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


class Doubt(NamedTuple):
    namespaces: tuple[str, ...]


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
    """The host whose ring it is about, "" = the sender."""
    hops: int = 0
    """How often it was passed on."""


class PeerAddress(NamedTuple):
    name: str
    address: str


class Peers(NamedTuple):
    peers: tuple[PeerAddress, ...]


class Follow(NamedTuple):
    sources: tuple[str, ...]


class Asked(NamedTuple):
    hash: int
    number: int = 0
    """FILL: the token; ARM: for how many milliseconds."""
    value: bytes = b""
    """FILL: what is to be stored."""


class Question(NamedTuple):
    number: int
    """Of the sender's choice; the answer repeats it."""
    what: int
    """HOLDS, FILL, ARM or JOURNAL."""
    namespace: str
    rows: tuple[Asked, ...]


class Holding(NamedTuple):
    hash: int
    held: int
    """ABSENT, SHARED, LOCAL: a value of this host alone; or, after a FILL, STORED or REFUSED."""
    version: int
    """Of the entry, in positions of the answering host's ring: twice that of a set, one more than twice the
    token of a fill. 0 without an entry."""
    fence: int
    """The position of the last event in the key's bucket there."""
    age_ms: int
    """How long ago the value was set, or the load of it began; at most AGE_STEP_MS too much."""
    digest: int
    value: bytes
    """The value of a canary; else empty: an ANSWER never contains a user's value."""


class JournalRow(NamedTuple):
    hash: int
    age_us: int
    """How long before the answer it happened."""
    kind: str
    layer: str
    source: str
    incarnation: int
    sequence: int
    pid: int
    command: str
    service: str
    why: str
    since_us: int
    """How long before the answer the value of the row was stored; 0: there was none."""
    digest: int
    """16 bits of that value's."""


class Answer(NamedTuple):
    number: int
    namespace: str
    failure: str
    """Why there is no answer; "" = there is one."""
    incarnation: int
    cursor: int
    """How far the answering host has applied the asking host's ring of this incarnation, by its segment."""
    tail: int
    """The answering host's ring, before it looked: a token for a fill."""
    holdings: tuple[Holding, ...]
    journal: tuple[JournalRow, ...]


class Applied(NamedTuple):
    source: str
    incarnation: int
    position: int


class Fetch(NamedTuple):
    number: int
    """Of the sender's choice; the answer repeats it."""
    namespace: str
    key: bytes
    """The whole key: a hash of 64 bits is no identity."""
    patience_ms: int
    """So long the sender waits for the answer."""
    applied: tuple[Applied, ...]
    """How far the sender has applied each source; of itself, how far it has announced."""


class Fetched(NamedTuple):
    number: int
    namespace: str
    key: bytes
    outcome: int
    """NOTHING, GIVEN, LOAD or ELSEWHERE."""
    host: str
    """ELSEWHERE: which one loads; else ""."""
    type: int
    """GIVEN: the value, as it is stored there; else 0, (), b""."""
    age_ms: int
    """How long ago the load of the value began; at most AGE_STEP_MS too much."""
    left_ms: int
    """Of its lifetime; 0: it never ends."""
    tags: tuple[int, ...]
    value: bytes


class FinalHead(NamedTuple):
    namespace: str
    incarnation: int
    head: int


class Leave(NamedTuple):
    reason: str
    heads: tuple[FinalHead, ...]


Message = (
    Hello
    | Auth
    | State
    | Doubt
    | Beat
    | Frame
    | Replay
    | Sync
    | Peers
    | Leave
    | Follow
    | Calm
    | Question
    | Answer
    | Fetch
    | Fetched
)


def printable(reason: str) -> str:
    """As LEAVE takes it."""
    return "".join(c if c.isprintable() else "?" for c in reason)[:REASON_CHARACTERS]


def namespaces_of(message: Message) -> list[str]:
    """Every namespace that it speaks of."""
    if isinstance(message, Frame | Replay | Question | Answer | Fetch | Fetched):
        return [message.namespace]
    if isinstance(message, Beat | Calm):
        return [head.namespace for head in message.heads] + [row.namespace for row in message.cursors]
    if isinstance(message, Doubt):
        return list(message.namespaces)
    if isinstance(message, State):
        return [row.namespace for row in message.namespaces]
    if isinstance(message, Leave):
        return [row.namespace for row in message.heads]
    return []


def rows_of(message: Message) -> int:
    """How many rows its lists have."""
    return sum([len(field) for field in message if type(field) is tuple])
