"""Sources that this host follows through relays: which peer is asked for which source, and what it sends.

    this host                                  the relay (relaying.py)
    FOLLOW [source, ...]                  ->   reports on each source with its beats
    REPLAY source, first                  ->   sends what follows, if its log reaches back so far
                                          <-   FRAME, as if it came from the source
                                          <-   BEAT: how far the relay has applied the source, how old that
                                               report is, and whether the relay sends it (SENT), could
                                               (OFFERED), cannot (LACKED), or the source has left (LEFT)

What a relay sends about a source is accepted only if the relay was asked for that source, and only for two
things: records, and how fresh they are. The source's identity, its incarnation and the starting position are
learned only from the source itself. If a relay reports anything that contradicts these, the source is
distrusted: it is asked directly for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cachee_bridge.streams.buckets import is_piece
from cachee_bridge.streams.repair import Ask
from cachee_bridge.streams.stream import Inbox, Verdict
from cachee_bridge.wire.messages import (
    AGE_UNKNOWN,
    LACKED,
    LEFT,
    OFFERED,
    UNSERVED,
    FinalHead,
    Follow,
    Frame,
    Head,
    Replay,
)
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.sources.members import Members


class Following:
    def __init__(self, lost_after_s: float, members: Mapping[str, Members], up: Mapping[str, Link]) -> None:
        """`members`: by namespace; `up`: by name, the links that are up. Both change from outside."""
        self._lost_after_s, self._members, self._up = lost_after_s, members, up
        self._lives: dict[str, dict[str, int]] = {}
        """By source that is not linked, the namespaces that it has, and the incarnation of each."""
        self.distrusted: dict[str, float] = {}
        """Sources that are asked directly for a while, and since when."""
        self.last_resorts: list[tuple[str, str]] = []
        """(source, namespace) for which no peer had the missing records, so everything was evicted. Emptied
        by the reader."""
        self.left: set[str] = set()
        """Sources that have left, as a relay reported. Emptied by the reader."""

    # Which relay is asked

    def follow(self, link: Link, source: str) -> None:
        """Ask the peer for `source` as well."""
        link.follows.add(source)
        link.relayed.ever_followed.add(source)
        link.send(Follow(tuple(sorted(link.follows))))
        for members in self._members.values():
            self._ask_for(link, members, source)

    def unfollow(self, link: Link, source: str) -> None:
        """Ask the peer for `source` no longer."""
        link.follows.discard(source)
        link.relayed.served.discard(source)
        link.relayed.lacked = {of for of in link.relayed.lacked if of[1] != source}
        link.send(Follow(tuple(sorted(link.follows))))

    def through(self, source: str) -> list[Link]:
        """The links on which `source` is asked for."""
        return [link for link in self._up.values() if source in link.follows]

    def distrust(self, source: str, now: float) -> None:
        """Ask `source` directly for a while."""
        self.distrusted[source] = now

    def ask_all(self, members: Members, source: str) -> None:
        """Ask each peer that `source` is followed through, from the cursor on."""
        for link in self.through(source):
            self._ask_for(link, members, source)

    def _ask_for(self, link: Link, members: Members, source: str) -> None:
        inbox = members.sources.get(source)
        if inbox is not None and members.namespace in link.shared:
            link.send(Replay(members.namespace, source, inbox.incarnation, inbox.cursor + 1))

    # Lives of sources that are not linked

    def unlinked(self, link: Link) -> None:
        """No link to this peer is up any more."""
        self._lives[link.name] = lives_of(link)

    def lives(self, source: str) -> Mapping[str, int]:
        """The namespaces of `source` as last told, and the incarnation of each."""
        linked = self._up.get(source)
        return lives_of(linked) if linked is not None else self._lives.get(source, {})

    def keep(self, names: set[str]) -> None:
        """Forget all other sources."""
        self._lives = {name: lives for name, lives in self._lives.items() if name in names}
        self.distrusted = {name: since for name, since in self.distrusted.items() if name in names}

    # What a relay sends

    def inbox_for(self, link: Link, frame: Frame) -> Inbox | None:
        """Where `frame`, of a source that the peer relays, is to be received; None if it is not."""
        if not self._is_followed(link, frame.source, "Frame") or frame.namespace not in link.shared:
            return None
        if is_piece(frame.payload):
            raise FrameError(
                f"{link.name} relays a map of {frame.source}, which it cannot; the link is closed"
            )
        return self._members[frame.namespace].sources.get(frame.source)

    def receive(self, link: Link, inbox: Inbox, frame: Frame, now: float) -> Verdict:
        """Apply `frame`, or ask for what is missing before it."""
        verdict = inbox.receive(frame)
        if verdict is Verdict.NEW_INCARNATION:
            self.distrust(frame.source, now)
        elif verdict is Verdict.GAP:
            self._ask_again(link, self._members[frame.namespace], frame.source, inbox, now)
        return verdict

    def on_head(self, link: Link, head: Head, stamp: float | None, now: float) -> None:
        """A relay's report on a source; `stamp` left this host before the relay had what it reports."""
        members = self._members.get(head.namespace)
        if not self._is_followed(link, head.source, "Beat") or members is None:
            return
        inbox = members.sources.get(head.source)
        gone = inbox is None and head.kind == LEFT
        if gone or (inbox is not None and head.incarnation < inbox.incarnation):
            return
        if inbox is None or head.incarnation > inbox.incarnation:
            self.distrust(head.source, now)
            return
        if head.kind == LACKED:
            self._on_lacked(link, members, head, stamp, now)
            return
        self._lives.setdefault(head.source, {})[head.namespace] = head.incarnation
        if head.kind == LEFT:
            members.leaving(head.source, FinalHead(head.namespace, head.incarnation, head.head))
            self.left.add(head.source)
        elif head.kind == OFFERED:
            self._ask_for(link, members, head.source)
        else:
            self._on_sent(link, head)
        if inbox.head_heard(head.head, None if head.age_us == AGE_UNKNOWN else stamp):
            self._ask_again(link, members, head.source, inbox, now)
        members.settle(head.source)

    def _on_sent(self, link: Link, head: Head) -> None:
        """A source is followed in all its namespaces or in none."""
        link.relayed.lacked.discard((head.namespace, head.source))
        if not any(source == head.source for _, source in link.relayed.lacked):
            link.relayed.served.add(head.source)

    def _on_lacked(self, link: Link, members: Members, head: Head, stamp: float | None, now: float) -> None:
        """The relay's log begins after what is missing here. If another peer sends it, that ends by itself.
        If no peer does and the source cannot be reached, everything older is evicted, and this host goes on
        from the relay's position."""
        source, inbox = head.source, members.sources[head.source]
        link.relayed.served.discard(source)
        link.relayed.lacked.add((head.namespace, source))
        known_at = float("-inf") if stamp is None or head.age_us == AGE_UNKNOWN else stamp
        alone = source not in self._up and members.heard_at(source) + self._lost_after_s < now
        if alone and head.head > inbox.cursor and known_at + self._lost_after_s > now:
            inbox.begin(head.incarnation, head.head, True)
            self.last_resorts.append((source, members.namespace))
        elif len(self.through(source)) == 1:
            self.distrust(source, now)
        self._ask_for(link, members, source)

    def _is_followed(self, link: Link, source: str, what: str) -> bool:
        """Whether the peer is asked for `source` now; FrameError if it never was."""
        if source not in link.relayed.ever_followed:
            raise FrameError(f"a {what} of {source}, which was not asked of {link.name}; the link is closed")
        return source in link.follows

    def _ask_again(self, link: Link, members: Members, source: str, inbox: Inbox, now: float) -> None:
        ask = inbox.asker.behind(inbox.cursor, now)
        if ask is Ask.REPLAY:
            inbox.repairs.replays += 1
            self._ask_for(link, members, source)
        elif ask is Ask.HOPELESS:
            inbox.asker.forget()
            self.distrust(source, now)


def lives_of(link: Link) -> dict[str, int]:
    """The peer's segments as it last reported them: the incarnation, by namespace."""
    rows = link.theirs.items()
    return {namespace: row.incarnation for namespace, row in rows if row.fingerprint != UNSERVED}
