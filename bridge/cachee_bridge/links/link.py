"""One connection to one peer, from HELLO to its end.

Its parts: the states that it goes through (states.py), the handshake (handshake.py), stamps and their echoes
(stamps.py), when beats are due (beat_schedule.py), what the peer was told of each namespace (ledger.py), and
what happens to a peer that is over its budget (throttle.py). Once the link is up, protocol/ handles its
messages.

A link holds no queue. ALLOWANCE_BYTES may be under way; then no frame is sent until the shell says that the
socket has drained (the records stay in the ring), and after some beats more no beat either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from cachee_bridge.links.beat_schedule import BeatSchedule
from cachee_bridge.links.handshake import Handshake
from cachee_bridge.links.ledger import Ledger
from cachee_bridge.links.relayed import Relayed
from cachee_bridge.links.stamps import Stamps
from cachee_bridge.links.states import WITHOUT_MESSAGE, LinkState, after
from cachee_bridge.links.throttle import Throttle
from cachee_bridge.links.versions import Encoder
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, VERSION, VERSION_MIN, Decoder
from cachee_bridge.wire.messages import Auth, Doubt, Hello, Message, NamespaceState, State, Sync
from cachee_bridge.wire.seal import seal_each

if TYPE_CHECKING:
    from cachee_bridge.streams.stream import Outbox
    from cachee_bridge.wire.budget import Budget
    from cachee_bridge.wire.identity import Identity
    from cachee_bridge.wire.seal import Seal

ALLOWANCE_BYTES = 256 * 1024
"""Two usual frames under way: enough to keep a socket busy while Python packs the next."""
BEATS_BYTES = 16 * 1024
"""Beyond the allowance, for beats alone: a full socket must not stop the stamps, or both ends would isolate
each other."""

UNREAD_BYTES_MAX = FRAME_BYTES_MAX
"""A link with more unread bytes than this is closed, because its peer goes on asking but does not read.
Normal use stays below half of this."""


ENCODERS = {version: Encoder(version) for version in range(VERSION_MIN, VERSION + 1)}


@dataclass(eq=False, repr=False)
class Link:
    """Only the mesh makes links: it keeps the table of them (link_table.py)."""

    number: int
    """Never used twice on this host."""
    address: str | None
    """Where it was dialled; None when the peer dialled."""
    remote_host: str
    """The IP address of the other end."""
    hello: InitVar[Hello]
    """The HELLO of this side."""
    secrets: InitVar[Sequence[bytes]]
    ready: list[Link]
    """Links with bytes to send: this one is added when it has the first."""
    now: InitVar[float]
    budget: InitVar[Budget]
    identity: InitVar[Identity | None] = None
    """The content of the peer's certificate, None without TLS."""

    # Who the peer is

    handshake: Handshake = field(init=False)
    state: LinkState = LinkState.HELLO
    peer: Hello | None = None
    """The peer's HELLO; None before it has come."""
    name: str = ""
    """The peer's name, "" before its HELLO has come. Proven from PROVEN on."""
    version: int = VERSION_MIN
    """The wire version of this link, once the peer's HELLO has come. Messages that it does not have are not
    sent."""
    was_late: bool = False
    """While the link comes up: other peers reported this peer long before it could be reached."""
    leaving: bool = False
    """The peer has announced that it leaves for good."""
    is_closed: bool = False

    # Another bridge that shows the same name (protocol/arbiter.py)

    rival_at: float | None = None
    """When a rival showed this name; None once this link has given a sign of life since."""
    rival_instance: int = 0
    outlived: tuple[int, float] = (0, 0.0)
    """The rival after whose claim this link has given a sign of life, and when."""

    # What comes

    stamps: Stamps = field(init=False)
    throttle: Throttle = field(init=False)
    decoder: Decoder = field(init=False, default_factory=lambda: Decoder(HANDSHAKE_BYTES_MAX))
    heard_at: float = field(init=False)
    """When bytes of the peer last came."""
    complain_at: float = field(init=False)
    """When the log may again say that the peer is over its budget, or makes impossible claims."""
    syncs: dict[Sync, None] = field(default_factory=dict)
    """Cursors that the peer has asked for in this slice; they are answered at its end."""

    # Namespaces

    theirs: dict[str, NamespaceState] = field(default_factory=dict)
    """The peer's namespaces, as it last reported them."""
    in_doubt: frozenset[str] = frozenset()
    """Those namespaces of the peer's next STATE in which a write has an unknown outcome."""
    told_all: bool = False
    """The peer has told all its namespaces once."""
    surplus: bool = False
    """The peer has more namespaces than are remembered."""
    shared: set[str] = field(default_factory=set)
    """Namespaces that both ends have, and whose hash key is the same at both."""
    acked: dict[str, int] = field(default_factory=dict)
    """How far the peer has applied this host's rings, as it last acknowledged."""
    ledger: Ledger = field(default_factory=Ledger)
    """What the peer was told of each shared namespace, and what is expected in its sums."""
    asked_rows_at: float = float("-inf")
    """When the peer was last asked for rows, because its sums differed from those expected."""
    beat_schedule: BeatSchedule = field(default_factory=BeatSchedule)
    owes_beat: bool = False
    """A beat has come in this slice, to be answered at its end."""

    # What is sent of this host's rings

    outboxes: dict[str, Outbox] = field(default_factory=dict)
    hungry: dict[str, None] = field(default_factory=dict)
    """Namespaces with more to send than there was room for, in turn."""
    blank: dict[str, None] = field(default_factory=dict)
    """Namespaces with a range to send that has no records of this host."""
    unconfirmed: set[str] = field(default_factory=set)
    """Namespaces of which the peer has not acknowledged yet all that it was sent."""
    stirred: set[str] = field(default_factory=set)
    """Namespaces in which anything was sent or came since the last beat."""
    asked: dict[str, int] = field(default_factory=dict)
    """By namespace, the position for which the peer was last asked to acknowledge at once."""

    # Sources that are relayed

    follows: set[str] = field(default_factory=set)
    """Sources that are asked of the peer: itself from UP on, others if it is to relay them."""
    followed: set[str] = field(default_factory=set)
    """Sources that the peer asks of this host."""
    relayed: Relayed = field(default_factory=Relayed)

    _seal: Seal | None = None
    _under_way: int = 0
    """Bytes that were sent since the socket last drained."""
    out: list[bytes] = field(default_factory=list)
    """What is to be written next."""

    def __post_init__(
        self,
        hello: Hello,
        secrets: Sequence[bytes],
        now: float,
        budget: Budget,
        identity: Identity | None,
    ) -> None:
        self.handshake = Handshake(hello, self.dialled, secrets, identity)
        self.stamps, self.throttle = Stamps(now), Throttle(budget)
        self.heard_at = self.complain_at = now
        self.send(hello)

    @property
    def dialled(self) -> bool:
        return self.address is not None

    @property
    def instance(self) -> int:
        """The number of this life of the peer's bridge; 0 before its HELLO."""
        return self.peer.instance if self.peer is not None else 0

    @property
    def region(self) -> str:
        """The peer's region, "" = none given."""
        return self.peer.region if self.peer is not None else ""

    @property
    def relays(self) -> bool:
        """Whether either end relays other sources to the other."""
        return bool(self.relayed.outboxes) or not self.follows <= {self.name}

    @property
    def reach(self) -> str:
        """The address at which the peer can be dialled, as it says; "" = nowhere. If it leaves the host part
        open, that is the IP address from which it is seen here."""
        host, _, port = (self.peer.address if self.peer is not None else "").rpartition(":")
        if not port or port == "0":
            return ""
        if host in ("", "0.0.0.0", "[::]"):
            host = f"[{self.remote_host}]" if ":" in self.remote_host else self.remote_host
        return f"{host}:{port}" if host else ""

    @property
    def up(self) -> bool:
        return self.state is LinkState.UP

    @property
    def proven(self) -> bool:
        """Whether the peer's name is proven. Without authentication: whether its HELLO has come."""
        return self.state not in (LinkState.HELLO, LinkState.AUTH)

    def __str__(self) -> str:
        return self.name or self.address or f"inbound link {self.number}"

    # Sending

    def send(self, message: Message) -> None:
        data = ENCODERS[self.version](message)
        if not data:
            return
        self.put(data)

    def put(self, data: bytes) -> None:
        """Send one message of the link's wire that is encoded already."""
        if self._seal is not None:
            data += self._seal.of(data)
        self._under_way += len(data)
        if not self.out:
            self.ready.append(self)
        self.out.append(data)

    def sent(self) -> list[bytes]:
        """What is to be written now; returned once."""
        out, self.out = self.out, []
        return out

    def room(self) -> bool:
        """Whether more may be sent."""
        return self._under_way < ALLOWANCE_BYTES

    def has_room_for_beats(self) -> bool:
        """Whether a beat may be sent, although there may be no room for more records."""
        return self._under_way < ALLOWANCE_BYTES + BEATS_BYTES

    def drained(self) -> bool:
        """The kernel has taken everything that was sent. Returns whether there was no room before."""
        was_full = self._under_way >= ALLOWANCE_BYTES
        self._under_way = 0
        return was_full

    # Two links to one host

    def claims(self, other: Link) -> bool:
        """Whether this already is the link to the host that `other` leads to. The dialler decides, so its
        STATE is a claim."""
        same = other is not self and other.name == self.name
        return same and (self.up or (self.dialled and self.state is LinkState.STATE))

    def replaces(self, rival: Link) -> bool:
        """Whether this link stays, of two to the same life of the same host. Both ends answer alike.

        If each end dialled one, the link stays that the smaller name dialled. If one end dialled both, it
        keeps its first, and the acceptor follows it to the one that it dialled last.
        """
        if self.dialled != rival.dialled:
            return self.dialled == (self.handshake.mine.name < self.name)
        return not self.dialled

    # Namespaces

    def share(self, namespace: str) -> None:
        """Both ends have the namespace, under one hash key."""
        self.shared.add(namespace)
        self.ledger.change((namespace,))

    def unshare(self, namespace: str) -> None:
        """The namespace is no longer shared. What the peer has acknowledged was of these two segments."""
        self.shared.discard(namespace)
        self.unconfirmed.discard(namespace)
        self.acked.pop(namespace, None)
        self.asked.pop(namespace, None)
        self.ledger.drop(namespace)

    def allows(self, namespace: str) -> bool:
        """Whether the peer's certificate allows `namespace`. If not, the peer is not told about it either."""
        limits = self.handshake.limits
        return limits is None or namespace in limits

    # What comes

    def check(self, message: Message) -> None:
        """FrameError or AuthError when the peer may not say `message` now. To be called first of all."""
        self.handshake.check_allowed(message)
        after(self.state, message)

    def shake(self, message: Message) -> None:
        """HELLO and AUTH. FrameError, AuthError: close."""
        state = after(self.state, message)
        if isinstance(message, Hello):
            answer = self.handshake.on_hello(message)
            self.peer, self.name = message, message.name
            self.version = self.decoder.version = self.handshake.version
            self.state = state if self.handshake.needs_proof else WITHOUT_MESSAGE[state]
        else:
            assert isinstance(message, Auth)  # the table has no other before STATE
            answer = self.handshake.on_auth(message)
            self.state = state
        if answer is not None:
            self.send(answer)
        if self.handshake.seals is not None:  # from the first message after AUTH on
            self._seal, self.decoder.seal = self.handshake.seals

    def accept(self, states: Iterable[State | Doubt]) -> None:
        """The mesh accepts the peer: `states` are sent, this host's namespaces."""
        self.state = WITHOUT_MESSAGE[self.state]
        self.decoder.bytes_max = FRAME_BYTES_MAX
        for state in states:
            self.send(state)

    def on_state(self, message: State) -> None:
        """The peer's STATE has come: with the first one the link is up."""
        rises = not self.up
        self.state = after(self.state, message)
        if rises:
            self.follows, self.followed = {self.name}, {self.handshake.mine.name}
            self.relayed.ever_followed = set(self.follows)

    # Its end

    def silent(self, now: float, lost_after_s: float, handshake_s: float) -> str | None:
        """Why the link must be closed, or None. Data without echoes means that only one direction of the path
        works. A peer that is not read because of its budget does not count as silent."""
        if self._under_way > UNREAD_BYTES_MAX:
            return f"the peer asks for more but does not read: {self._under_way} bytes wait here for it"
        if self.throttle.held_since is not None:
            return None
        if not self.up:
            return "no handshake in time" if self.stamps.opened_at + handshake_s < now else None
        heard_at, echoed_at = max(self.heard_at, self.throttle.released_at), self.stamps.echoed_at
        if heard_at + lost_after_s < now:
            return f"nothing heard for {now - heard_at:.1f} s"
        if echoed_at + 4 * lost_after_s < now:
            return f"the peer has not heard this host for {now - echoed_at:.1f} s"
        return None


def put_each(links: Sequence[Link], data: bytes) -> list[bytes]:
    """As `put` of each link, for a caller that hands out the results itself. Only for links whose `out` is
    empty: that goes first."""
    seals = [link._seal for link in links if link._seal is not None]
    if len(seals) == len(links):
        sealed = seal_each(data, seals)
    else:
        sealed = [data if link._seal is None else data + link._seal.of(data) for link in links]
    for link, one in zip(links, sealed, strict=True):
        link._under_way += len(one)
    return sealed
