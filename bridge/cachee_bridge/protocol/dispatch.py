"""Each message goes to the part that knows what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.links.states import LinkState
from cachee_bridge.wire.messages import (
    Answer,
    Beat,
    Calm,
    Doubt,
    Fetch,
    Fetched,
    Follow,
    Frame,
    Leave,
    Message,
    Peers,
    Question,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.admission import Admission
    from cachee_bridge.protocol.arbiter import Arbiter
    from cachee_bridge.protocol.arrival import Arrival
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.fetches import Fetches
    from cachee_bridge.protocol.gossip import Gossip
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.questions import Questions
    from cachee_bridge.protocol.session import Session


COMMON = (Calm, Beat, Frame)
"""What comes all the time, and is no reason not to leave out a tick."""


class Dispatch:
    def __init__(
        self,
        session: Session,
        admission: Admission,
        arrival: Arrival,
        arbiter: Arbiter,
        gossip: Gossip,
        book: AddressBook,
        questions: Questions,
        fetches: Fetches,
        ends: LinkEnds,
        effects: Collected,
    ) -> None:
        self._session, self._admission, self._arrival = session, admission, arrival
        self._arbiter, self._gossip, self._book = arbiter, gossip, book
        self._fetches = fetches
        self._questions, self._ends, self._effects = questions, ends, effects

    def on_message(self, link: Link, message: Message, now: float) -> None:
        """BridgeError: the link is to be closed."""
        link.check(message)
        if link.up and isinstance(message, COMMON):
            self._on_word(link, message, now)
            return
        self._effects.stir()
        if isinstance(message, Leave):
            self._on_leave(link, message, now)
        elif isinstance(message, State) and link.state in (LinkState.STATE, LinkState.UP):
            self._arrival.on_state(link, message, now)
        elif isinstance(message, Doubt):
            link.in_doubt = frozenset(message.namespaces)
        elif link.up:
            self._on_word(link, message, now)
        else:
            link.shake(message)
            if link.state is LinkState.PROVEN:
                self._admission.on_proven(link, now)

    def _on_word(self, link: Link, message: Message, now: float) -> None:
        """Of a link that is up."""
        if isinstance(message, (Calm, Beat)):
            self._on_beat(link, message, now)
        elif isinstance(message, Frame):
            self._session.receiving.on_frame(link, message, now)
        elif isinstance(message, Replay):
            self._session.receiving.on_replay(link, message, now)
        elif isinstance(message, Follow):
            self._session.relaying.on_follow(link, message)
        elif isinstance(message, Sync):
            link.syncs[message] = None
        elif isinstance(message, Peers):
            self._gossip.on_peers(message, now)
        elif isinstance(message, Question):
            self._questions.on_question(link, message, now)
        elif isinstance(message, Answer):
            self._questions.on_answer(link, message, now)
        elif isinstance(message, Fetch):
            self._fetches.on_fetch(link, message, now)
        elif isinstance(message, Fetched):
            self._fetches.on_fetched(link, message, now)
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
            self._session.boots.left(link.name)
            self._session.receiving.on_leave(link, leave, now)
            self._session.beats.beat(link, now)
            return
        self._ends.closed_by_peer(link, leave.reason, now)
