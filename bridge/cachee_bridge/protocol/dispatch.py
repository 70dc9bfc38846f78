"""Each message goes to the part that knows what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.links.states import LinkState
from cachee_bridge.ports.effects import Level
from cachee_bridge.wire.messages import Beat, Calm, Follow, Frame, Leave, Message, Peers, Replay, State, Sync
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.admission import Admission
    from cachee_bridge.protocol.arbiter import Arbiter
    from cachee_bridge.protocol.arrival import Arrival
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.gossip import Gossip
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.session import Session


class Dispatch:
    def __init__(
        self,
        session: Session,
        admission: Admission,
        arrival: Arrival,
        arbiter: Arbiter,
        gossip: Gossip,
        book: AddressBook,
        ends: LinkEnds,
        effects: Collected,
    ) -> None:
        self._session, self._admission, self._arrival = session, admission, arrival
        self._arbiter, self._gossip, self._book = arbiter, gossip, book
        self._ends, self._effects = ends, effects

    def on_message(self, link: Link, message: Message, now: float) -> None:
        """BridgeError: the link is to be closed."""
        link.check(message)
        if isinstance(message, Leave):
            self._on_leave(link, message, now)
        elif isinstance(message, State) and link.state in (LinkState.STATE, LinkState.UP):
            self._arrival.on_state(link, message, now)
        elif link.up:
            self._on_word(link, message, now)
        else:
            link.shake(message)
            if link.state is LinkState.PROVEN:
                self._admission.on_proven(link, now)

    def _on_word(self, link: Link, message: Message, now: float) -> None:
        """Of a link that is up."""
        if isinstance(message, Frame):
            self._session.receiving.on_frame(link, message, now)
        elif isinstance(message, Beat | Calm):
            self._on_beat(link, message, now)
        elif isinstance(message, Replay):
            self._session.receiving.on_replay(link, message, now)
        elif isinstance(message, Follow):
            self._session.relaying.on_follow(link, message)
        elif isinstance(message, Sync):
            link.syncs[message] = None
        elif isinstance(message, Peers):
            self._gossip.on_peers(message, now)
        else:
            raise FrameError(f"{type(message).__name__} in state UP; the link is closed")

    def _on_beat(self, link: Link, beat: Beat | Calm, now: float) -> None:
        stamp = link.stamps.take(beat, now)
        if stamp is not None:
            self._book.works(link.name)
            self._arbiter.on_sign_of_life(link, beat, now)
        self._session.beats_heard.on_beat(link, beat, stamp, now)

    def _on_leave(self, link: Link, leave: Leave, now: float) -> None:
        """The peer closes the link; or, with final heads, leaves for good."""
        if link.up and leave.heads:
            link.leaving = True
            self._effects.say("info", f"{link.name} leaves for good", peer=link.name)
            self._session.receiving.on_leave(link, leave, now)
            self._session.beats.beat(link, now)
            return
        level: Level = "info" if link.up else "warning" if link.dialled else "debug"
        self._effects.say(level, f"{link} closes the link: {leave.reason}", peer=link.name)
        self._ends.close(link, "", now, "debug")
