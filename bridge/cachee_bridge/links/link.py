"""One connection to one peer, from HELLO to its end.

    state     what comes    what follows                                                     next state
    HELLO     HELLO         no authentication: the peer is accepted as who it says it is     PROVEN
                            secret, dialler: AUTH is sent; acceptor: waits for it            AUTH
    AUTH      AUTH          checked; the acceptor answers with its own                       PROVEN
    PROVEN    -             the mesh looks at who it is: close, or send STATE                STATE
    STATE     STATE         the mesh meets each namespace                                    UP
    UP        STATE BEAT CALM FRAME REPLAY SYNC PEERS LEAVE FOLLOW
    any       LEAVE         the peer's reason for closing; its heads count when UP
    any       other         FrameError

The dialler proves itself first: whoever merely connects learns a name and a nonce, and gets no proof to work
on. With a certificate (the transport has seen to it that it is one of the CA's) the name in HELLO must be one
of the certificate's, and a message that speaks of a namespace which it does not allow ends the link before it
is looked at.

A link holds no queue. ALLOWANCE_BYTES may be under way; then no frame is sent until the shell says that the
socket has drained (they stay in the ring), and after some beats more no beat either.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from cachee_bridge.links.beat_schedule import BeatSchedule
from cachee_bridge.links.ledger import Ledger
from cachee_bridge.links.relayed import Relayed
from cachee_bridge.links.versions import Encoder, agreed
from cachee_bridge.wire import auth
from cachee_bridge.wire.budget import MESSAGE_BYTES, ROW_BYTES, Budget
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, VERSION, VERSION_MIN, Decoder
from cachee_bridge.wire.messages import (
    AGE_UNKNOWN,
    Auth,
    Beat,
    Calm,
    Hello,
    Message,
    NamespaceState,
    State,
    Sync,
    namespaces_of,
    rows_of,
)
from cachee_shm.errors import AuthError, FrameError

if TYPE_CHECKING:
    from cachee_bridge.streams.stream import Outbox
    from cachee_bridge.wire.identity import Identity, Limits
    from cachee_bridge.wire.seal import Seal

ALLOWANCE_BYTES = 256 * 1024
"""Two usual frames under way: enough to keep a socket busy while Python packs the next."""
BEATS_BYTES = 16 * 1024
"""And some beats beyond it: a full socket must not stop the stamps, or both ends would isolate each other."""

HEARD_MAX = 64
HEARD_S = 0.05
"""Stamps of the peer that are remembered, and how far apart: what a relay says is older by as much."""

UNREAD_BYTES_MAX = FRAME_BYTES_MAX
"""Under way when a link is looked at, whatever the peer asked for: the transport keeps what is not read. The
allowance with a frame, beats and news of peers beyond it are half of this."""


ENCODERS = {version: Encoder(version) for version in range(VERSION_MIN, VERSION + 1)}


class LinkState(Enum):
    HELLO = auto()
    AUTH = auto()
    PROVEN = auto()
    STATE = auto()
    UP = auto()


class Link:
    def __init__(
        self,
        number: int,
        address: str | None,
        remote_host: str,
        hello: Hello,
        secrets: Sequence[bytes],
        ready: list[Link],
        now: float,
        budget: Budget,
        identity: Identity | None = None,
    ) -> None:
        """`address` is where it was dialled, None when the peer dialled; `remote_host` is the IP address of
        the other end; `hello` is what this side says; in `ready` are links with something to send; `identity`
        is what the other end's certificate says, None without TLS."""
        self.number = number
        self.address = address
        self.mine = hello
        self.peer: Hello | None = None
        self.version = VERSION_MIN
        """The wire that both ends speak, once the peer's HELLO has come; what it cannot say is not sent."""
        self.state = LinkState.HELLO
        self.opened_at = self.heard_at = self.echoed_at = now
        self.stamped_at = now
        """When the newest stamp was sent (the HELLO counts as the first)."""
        self.echoed = 0
        """Newest of this side's stamps that came back, in microseconds."""
        self.heard_stamp = 0
        """Newest stamp of the peer, to be echoed."""
        self.rival_at: float | None = None
        """When another life of a bridge showed this name, while it is open whether this one still lives."""
        self.rival_instance = 0
        self.outlived: tuple[int, float] = (0, 0.0)
        """The rival after whose claim this link has given a sign of life, and when."""
        self.leaving = False
        self.theirs: dict[str, NamespaceState] = {}
        """The peer's namespaces as it last told them; `shared` are those that both have and agree about."""
        self.told_all = False
        """The last part of its namespaces has come."""
        self.surplus = False
        """It has more than are remembered."""
        self.shared: set[str] = set()
        self.outboxes: dict[str, Outbox] = {}
        self.acked: dict[str, int] = {}
        """How far the peer has applied this host's rings, as it last told."""
        self.hungry: dict[str, None] = {}
        """Namespaces of which there may be more to send than there was room for, in turn."""
        self.blank: dict[str, None] = {}
        """Those of which a range without anything of this host's is still to be sent."""
        self.unconfirmed: set[str] = set()
        """Those of which the peer has not said that it has all it was sent."""
        self.stirred: set[str] = set()
        """Those in which anything was sent or came since the last beat."""
        self.ledger = Ledger()
        """What the peer was told of each shared namespace, and what is expected in its sums."""
        self.asked_rows_at = float("-inf")
        """When the peer was last asked for rows, since its sums were others than this host's."""
        self.asked: dict[str, int] = {}
        """For which position it was last asked to tell that, out of turn."""
        self.beat_schedule = BeatSchedule()
        self.follows: set[str] = set()
        """Sources that are asked of the peer: itself from UP on, others if it is to relay them."""
        self.followed: set[str] = set()
        """Sources that the peer asks of this host."""
        self.relayed = Relayed()
        self._heard: deque[tuple[float, int]] = deque(maxlen=HEARD_MAX)
        """(when it came, stamp of the peer's)."""
        self.decoder = Decoder(HANDSHAKE_BYTES_MAX)
        self.budget = budget
        self.held = 0
        """How often it was not read for a while, because it was over its budget."""
        self.held_since: float | None = None
        self.complain_at = now
        """When it is said again that it was."""
        self.is_paused = self.is_closed = False
        self.was_late = False
        """While it comes up: peers told of the peer long before it could be reached."""
        self.syncs: dict[Sync, None] = {}
        """What the peer has asked for in this slice, to be answered at its end."""
        self._limits: Limits = None
        """The namespaces that the peer may speak of, None = every one."""
        self._identity = identity
        self._seal: Seal | None = None
        self.remote_host = remote_host
        self._secrets = secrets
        self._under_way = 0
        self._out: list[bytes] = []
        self._ready = ready
        self.send(hello)

    @property
    def dialled(self) -> bool:
        return self.address is not None

    @property
    def name(self) -> str:
        """The peer's name, "" before it has said it. Proven from PROVEN on."""
        return self.peer.name if self.peer is not None else ""

    @property
    def instance(self) -> int:
        """Which life of the peer's bridge this is; 0 before it has said so."""
        return self.peer.instance if self.peer is not None else 0

    @property
    def region(self) -> str:
        """Where the peer is, "" = it does not say."""
        return self.peer.region if self.peer is not None else ""

    @property
    def relays(self) -> bool:
        """Whether either end tells the other of third ones."""
        return bool(self.relayed.outboxes) or not self.follows <= {self.name}

    @property
    def reach(self) -> str:
        """Where the peer says that it can be dialled, "" = nowhere. A host part it cannot know is what is
        seen here."""
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
        """Whether the peer is who it says it is; where nobody has to prove anything, whether it has said."""
        return self.state not in (LinkState.HELLO, LinkState.AUTH)

    def __str__(self) -> str:
        return self.name or self.address or f"inbound link {self.number}"

    # Sending

    def send(self, message: Message) -> None:
        data = ENCODERS[self.version](message)
        if not data:
            return
        if self._seal is not None:
            data += self._seal.of(data)
        self._under_way += len(data)
        if not self._out:
            self._ready.append(self)
        self._out.append(data)

    def sent(self) -> list[bytes]:
        """What is to be written now; returned once."""
        out, self._out = self._out, []
        return out

    def room(self, beyond: int = 0) -> bool:
        """Whether more may be sent; `beyond` the allowance for what keeps a link alive."""
        return self._under_way < ALLOWANCE_BYTES + beyond

    def drained(self) -> None:
        self._under_way = 0

    def prefers_dialler(self) -> bool:
        """Of two links between two hosts, both keep the one that the smaller name dialled; whether it is
        this."""
        return self.dialled == (self.mine.name < self.name)

    def claims(self, other: Link) -> bool:
        """Whether this already is the link to the host that `other` leads to. The dialler decides, so its
        STATE is a claim."""
        same = other is not self and other.name == self.name
        return same and (self.up or (self.dialled and self.state is LinkState.STATE))

    def replaces(self, rival: Link) -> bool:
        """Of two links to the same life of the same host; both ends answer alike.

        Dialled by the same side: the dialler keeps its first, and the acceptor follows it to what it dialled
        last.
        """
        return self.prefers_dialler() if self.dialled != rival.dialled else not self.dialled

    def share(self, namespace: str) -> None:
        """Both ends have it, and agree about it."""
        self.shared.add(namespace)
        self.ledger.change((namespace,))

    def unshare(self, namespace: str) -> None:
        """No longer."""
        self.shared.discard(namespace)
        self.ledger.drop(namespace)

    # Hearing

    def charge(self, message: Message, now: float) -> bool:
        """Counts what `message` costs beside its bytes; whether the peer is over its budget now."""
        self.budget.owe(MESSAGE_BYTES + ROW_BYTES * rows_of(message))
        return self.budget.spent(now)

    def hold(self, now: float) -> None:
        """It is not read from now on."""
        self.held += 1
        self.held_since = now

    def release(self, now: float) -> bool:
        """Whether it may be read again: then it is as if it had just been heard."""
        if self.held_since is None or self.budget.spent(now):
            return False
        self.held_since, self.heard_at = None, now
        return True

    @property
    def allows_all(self) -> bool:
        """Whether the peer may speak of every namespace."""
        return self._limits is None

    def allows(self, namespace: str) -> bool:
        """Whether the peer's certificate lets it speak of `namespace`, so that it may be told of it."""
        return self._limits is None or namespace in self._limits

    def check_allowed(self, message: Message) -> None:
        """AuthError when `message` speaks of a namespace that the peer's certificate does not allow."""
        if self._limits is None:
            return
        for namespace in namespaces_of(message):
            if namespace not in self._limits:
                allowed = ", ".join(sorted(self._limits))
                raise AuthError(
                    f"{self.name} speaks of namespace {namespace!r}, and its certificate allows {allowed}; "
                    "nothing of it was applied; the link is closed"
                )

    # The handshake

    def shake(self, message: Message) -> None:
        """HELLO and AUTH. FrameError, AuthError: close."""
        if self.state is LinkState.HELLO and isinstance(message, Hello):
            self._on_hello(message)
        elif self.state is LinkState.AUTH and isinstance(message, Auth):
            self._on_auth(message)
        else:
            raise FrameError(f"{type(message).__name__} in state {self.state.name}; the link is closed")

    def send_states(self, states: Iterable[State]) -> None:
        """The mesh accepts the peer."""
        self.state = LinkState.STATE
        self.decoder.bytes_max = FRAME_BYTES_MAX
        for state in states:
            self.send(state)

    def raised(self) -> None:
        """The peer's STATE has come."""
        if not self.up:
            self.follows, self.followed = {self.name}, {self.mine.name}
            self.relayed.ever_followed = set(self.follows)
        self.state = LinkState.UP

    def _on_hello(self, hello: Hello) -> None:
        version = agreed(self.mine, hello)
        if hmac.compare_digest(hello.nonce, self.mine.nonce):
            raise AuthError("this side's own HELLO came back; the link is closed")
        if hello.mode != self.mine.mode:
            raise AuthError(
                f"authentication is {hello.mode!r} there and {self.mine.mode!r} here; the link is closed; "
                "give both hosts the same secret_file"
            )
        if self._identity is not None:
            self._limits = self._identity.limits(hello.name)
        self.peer = hello
        self.version = self.decoder.version = version
        self.state = LinkState.AUTH if self._secrets else LinkState.PROVEN
        if self._secrets and self.dialled:
            self.send(Auth(auth.prove(self._secrets, auth.DIALLER, self._transcript())))

    def _on_auth(self, proof: Auth) -> None:
        said = self._transcript()
        role = auth.ACCEPTOR if self.dialled else auth.DIALLER
        secret = auth.verify(self._secrets, role, said, proof.macs)
        if secret is None:
            raise AuthError("the peer does not know this host's secret; the link is closed")
        self.state = LinkState.PROVEN
        if not self.dialled:
            self.send(Auth(auth.prove((secret,), auth.ACCEPTOR, said)))
        mine, theirs = auth.seals(secret, said) if self.dialled else reversed(auth.seals(secret, said))
        self._seal, self.decoder.seal = mine, theirs

    def _transcript(self) -> bytes:
        assert self.peer is not None
        return auth.transcript(*((self.mine, self.peer) if self.dialled else (self.peer, self.mine)))

    # Stamps

    def stamp(self, now: float) -> int:
        """A stamp to put into a beat that is sent now. A tick's `now` may be a little ago, and a beat that
        was asked for, or the HELLO, later than that: stamps do not go back, or an echo would be refused."""
        self.stamped_at = max(self.stamped_at, now)
        return microseconds(self.stamped_at)

    def on_beat(self, beat: Beat | Calm, now: float) -> float | None:
        """When the stamp left here that `beat` echoes, in seconds; None if it echoes none yet."""
        if beat.stamp > self.heard_stamp:
            self.heard_stamp = beat.stamp
            if not self._heard or now >= self._heard[-1][0] + HEARD_S:
                self._heard.append((now, beat.stamp))
        if not beat.echo:
            return None
        if not microseconds(self.opened_at) <= beat.echo <= microseconds(self.stamped_at):
            raise FrameError("a stamp came back that was never sent on this link; the link is closed")
        if beat.echo > self.echoed:
            self.echoed, self.echoed_at = beat.echo, now
        return beat.echo / 1e6

    def age_of(self, at: float) -> int:
        """Of a word that was current at `at`: how much older than the newest of the peer's stamps is the
        newest that had come by then? By the peer's clock, in microseconds; AGE_UNKNOWN: none had."""
        for came, stamp in reversed(self._heard):
            if came <= at:
                return self.heard_stamp - stamp
        return AGE_UNKNOWN

    # Its end

    def silent(self, now: float, lost_after_s: float, handshake_s: float) -> str | None:
        """Why it must be given up, or None. Data that comes without echoes is a path in one direction
        only. Who is not read is not silent."""
        if self._under_way > UNREAD_BYTES_MAX:
            return f"it asks for more and does not read: {self._under_way} bytes lie here for it"
        if self.held_since is not None:
            return None
        if not self.up:
            return "no handshake in time" if self.opened_at + handshake_s < now else None
        if self.heard_at + lost_after_s < now:
            return f"nothing heard for {now - self.heard_at:.1f} s"
        if self.echoed_at + 4 * lost_after_s < now:
            return f"it has not heard this host for {now - self.echoed_at:.1f} s"
        return None


def microseconds(now: float) -> int:
    """Rounded down: a stamp may look older than it is, never newer."""
    return int(now * 1e6)
