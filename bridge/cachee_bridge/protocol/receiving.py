"""Handles what peers send about streams: records of their rings, requests for a replay, final heads.

A peer may send its own records, in namespaces that both ends share, and those of sources that it was asked to
relay (following.py). Anything else is a FrameError, and the link closes. A BridgeError from here closes it
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cachee_bridge.streams.repair import Ask
from cachee_bridge.streams.stream import Inbox, Verdict
from cachee_bridge.wire.budget import WORDS_BYTES
from cachee_bridge.wire.frames import head_of
from cachee_bridge.wire.messages import PAYLOADS_ALL, Frame, Leave, Replay
from cachee_shm.errors import BridgeError, FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.protocol.contacts import Contacts
    from cachee_bridge.protocol.incarnations import Incarnations
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.sending import Sending
    from cachee_bridge.routing.following import Following
    from cachee_bridge.routing.relaying import Relaying
    from cachee_bridge.sources.members import Members


class Receiving:
    def __init__(
        self,
        name: str,
        namespaces: Namespaces,
        contacts: Contacts,
        incarnations: Incarnations,
        sending: Sending,
        following: Following,
        relaying: Relaying,
        say: Say,
    ) -> None:
        self._name, self._namespaces, self._contacts, self._say = name, namespaces, contacts, say
        self._incarnations, self._sending = incarnations, sending
        self._following, self._relaying = following, relaying
        self._maps: list[tuple[str, str]] = []
        """(namespace, source) of maps that are being applied, the next in turn first."""

    def on_frame(self, link: Link, frame: Frame, now: float) -> None:
        """Records of the peer's ring, or of a source that it relays."""
        if frame.namespace in self._namespaces.members:
            self._namespaces.touch(frame.namespace)
        if frame.source != link.name:
            self._on_relayed(link, frame, now)
            return
        if frame.namespace not in link.shared:
            raise FrameError(
                f"a Frame of {frame.source}, namespace {frame.namespace}, that was not asked for"
            )
        members = self._namespaces.members[frame.namespace]
        link.stirred.add(frame.namespace)
        inbox = self._contacts.follow(link, members, frame.incarnation, frame.last, now)
        if inbox is None:
            return
        verdict = inbox.receive(frame)
        if frame.payload:
            link.beat_schedule.came()
        if verdict is Verdict.APPLIED:
            self._relaying.applied(frame)
        if verdict is Verdict.GAP:
            self.ask(link, members, inbox, now)
        elif verdict is Verdict.MAP:
            link.throttle.budget.owe(members.store.map_bytes)
            self._apply_map(members, link.name, link)
        elif verdict is Verdict.APPLIED and frame.payload in PAYLOADS_ALL:
            text = f"{link.name}, namespace {members.namespace}: no host has the missed records"
            self._say("warning", f"{text} up to {frame.last}; evicted all", peer=link.name)
        members.settle(link.name)

    def take_frames(self, link: Link, frames_max: int) -> int:
        """Apply the ordinary frames of the peer's rings that come next on the link, in C. Returns how many.
        0: the next message is something else, so `on_frame` or another part must handle it."""
        decoder, source = link.decoder, link.name
        namespace = decoder.frame_namespace()
        if namespace not in link.shared or self._relaying.has_followers(source):
            return 0
        inbox = self._namespaces.members[namespace].sources.get(source)
        if inbox is None:
            return 0
        is_sealed = decoder.seal is not None
        if is_sealed:
            frames_max = decoder.sealed_frames(frames_max)
        cursor, incarnation = inbox.cursor, inbox.incarnation
        taken = inbox.take(head_of(namespace, source, incarnation), decoder.kept, is_sealed, frames_max)
        if taken is None:
            return 0
        size, last, frames, payloads = taken
        self._namespaces.touch(namespace)
        link.stirred.add(namespace)
        if payloads:
            link.beat_schedule.came()
        data = decoder.took(size, frames)
        came = (data, is_sealed, frames, last)
        self._relaying.applied_undecoded((namespace, source), incarnation, cursor, came)
        return frames

    def _on_relayed(self, link: Link, frame: Frame, now: float) -> None:
        inbox = self._following.inbox_for(link, frame)
        if inbox is None:
            return
        if self._following.receive(link, inbox, frame, now) is Verdict.APPLIED:
            self._relaying.applied(frame)
        self._namespaces.members[frame.namespace].settle(frame.source)

    def ask(self, link: Link, members: Members, inbox: Inbox, now: float) -> None:
        """Records after the cursor are missing: ask for them again, or give the link up."""
        ask = inbox.asker.behind(inbox.cursor, now)
        if ask is Ask.REPLAY:
            inbox.repairs.replays += 1
            text = f"{link.name}, namespace {members.namespace}: what follows {inbox.cursor} has not come"
            self._say("info", f"{text}; asked for again", peer=link.name)
            if link.name not in link.follows:  # the relay has not sent them either
                self._following.follow(link, link.name)
                return
            link.send(Replay(members.namespace, link.name, inbox.incarnation, inbox.cursor + 1))
        elif ask is Ask.HOPELESS:
            raise BridgeError(
                f"{link.name} has not sent namespace {members.namespace} from {inbox.cursor + 1} on, asked "
                f"{inbox.asker.fruitless} times; the link is closed and made anew"
            )

    def on_replay(self, link: Link, replay: Replay, now: float) -> None:
        """The peer asks for records from a position on."""
        if replay.source != self._name:
            self._relaying.on_replay(link, replay)
            return
        if replay.namespace not in link.shared:
            raise FrameError(
                f"a Replay of {replay.source}, namespace {replay.namespace}, asked of {self._name}"
            )
        members = self._namespaces.members[replay.namespace]
        if self._incarnations.outdone(link, members, replay.incarnation, replay.first - 1, now):
            return
        if replay.incarnation == members.store.incarnation:
            link.outboxes[replay.namespace].ask(replay.first)
            self._sending.pump(link, replay.namespace)

    def on_leave(self, link: Link, leave: Leave, now: float) -> None:
        """The peer leaves for good: it stays a member until everything up to its final heads is applied."""
        for final in leave.heads:
            if final.namespace in link.shared:
                self._namespaces.touch(final.namespace)
                self._namespaces.members[final.namespace].leaving(link.name, final)
        for namespace in sorted(self._namespaces.register.refused.get(link.name, ())):
            # The peer was never followed here: evict everything, and so what it wrote.
            self._namespaces.members[namespace].drop_absent(link.name, now)
            self._namespaces.touch(namespace)

    # Maps

    @property
    def applies_maps(self) -> bool:
        """Whether `go_on` has something to do."""
        return bool(self._maps)

    def go_on(self, links: Mapping[str, Link]) -> None:
        """Apply the next part of one of the maps. `links`: by name, those that are up."""
        if self._maps:
            namespace, name = self._maps.pop(0)
            self._namespaces.touch(namespace)
            self._apply_map(self._namespaces.members[namespace], name, links.get(name))
            self._namespaces.members[namespace].settle(name)

    def _apply_map(self, members: Members, name: str, link: Link | None) -> None:
        inbox = members.sources.get(name)
        if inbox is None or inbox.applying is None:  # it was begun again meanwhile
            return
        if link is not None:
            link.throttle.budget.owe(WORDS_BYTES)
        done = inbox.apply_map()
        if done is None:
            self._maps.append((members.namespace, name))
            return
        text = f"{name}, namespace {members.namespace}: lapped; what it may have written up to {done.last}"
        self._say("info", f"{text} is evicted: {done.evicted} entries", peer=name)
        if link is not None:
            link.beat_schedule.came()
            link.stirred.add(members.namespace)
        if inbox.held_back:
            self._following.ask_all(members, name)
