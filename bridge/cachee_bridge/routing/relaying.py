"""Sources that come by way of others: what this host passes on, and what it takes from relays.

    who asks                              who relays
    FOLLOW [source, ...]            ->    tells of each with its beats
    REPLAY source, first            ->    sends what follows, if its log reaches back so far (relay_log.py)
                                    <-    FRAME, as if it came from the source
                                    <-    BEAT: its cursor, how old that word is, and whether it sends
                                          (SENT), could (OFFERED) or cannot (LACKED), or the source has left
    BEAT: its cursor                ->    passed on to the source, by the way that its records come

A relay is believed in what it says of a source that was asked of it, and nothing else: records, and how fresh
they are. Whom a source is, which life of its segment this is and where to begin is learned from itself alone:
whatever a relay says that does not fit what is known raises a doubt, and who is doubted is asked directly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cachee_bridge.streams.buckets import is_piece
from cachee_bridge.streams.relay_log import LOG_BYTES, LOGS_BYTES, Log, RelayOutbox
from cachee_bridge.streams.repair import Ask
from cachee_bridge.streams.stream import Inbox, Verdict
from cachee_bridge.wire.messages import (
    AGE_UNKNOWN,
    HOPS_MAX,
    LACKED,
    LEFT,
    OFFERED,
    ROWS_MAX,
    SENT,
    UNSERVED,
    Beat,
    Cursor,
    FinalHead,
    Follow,
    Frame,
    Head,
    Replay,
    Sync,
)
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.ports.store import Store
    from cachee_bridge.sources.members import Members

EAGER_S = 1.0
"""So long after a source has asked for cursors, those of its followers are passed on at once."""


class Relaying:
    def __init__(self, name: str, settings: Settings, members: dict[str, Members]) -> None:
        self._name, self._members = name, members
        self._period_s = min(0.3, settings.lost_after_s / 6)
        self._lost_after_s = settings.lost_after_s
        self._links: dict[str, Link] = {}
        """By name, those that are up."""
        self._followers: dict[str, list[Link]] = {}
        """By source, to whom it is passed on."""
        self._logs: dict[tuple[str, str], Log] = {}
        self._lives: dict[str, dict[str, int]] = {}
        """By source that is not linked, the namespaces that it has, and the incarnation of each."""
        self._holders: dict[tuple[str, str], dict[str, tuple[int, int, float]]] = {}
        """By (namespace, source): how far those it is passed on to have applied it, and when they said so."""
        self._eager: dict[str, float] = {}
        """By source, until when."""
        self._kept: set[str] = set()
        """Names of whom something may be kept."""
        self.distrusted: dict[str, float] = {}
        """Sources that are to be asked directly, and since when."""
        self.last_resorts: list[tuple[str, str]] = []
        """(source, namespace): what was missed of it could not be had from anybody, and all was evicted."""
        self.left: set[str] = set()
        """Of whom a relay has said that they have left, since this was last emptied."""
        self.acks: dict[tuple[str, str], int] = {}
        """By (namespace, peer): how far it has applied this host's ring, as relays tell."""

    # Links

    def linked(self, link: Link) -> None:
        """It is up; each follows the other."""
        self._links[link.name] = link

    def links(self) -> list[Link]:
        """Those that are up."""
        return list(self._links.values())

    def unlinked(self, link: Link) -> None:
        """It is up no more."""
        if self._links.get(link.name) is link:
            del self._links[link.name]
            self._lives[link.name] = lives_of(link)
        self._set_followed(link, set())

    def forget_all_but(self, names: set[str]) -> None:
        """Of nobody else is anything kept. It is looked at when there are others than before."""
        if names == self._kept:
            return
        self._kept = set(names)
        self._logs = {of: log for of, log in self._logs.items() if of[1] in names or of[1] in self._followers}
        self._lives = {name: lives for name, lives in self._lives.items() if name in names}
        self.distrusted = {name: since for name, since in self.distrusted.items() if name in names}
        self.acks = {known: cursor for known, cursor in self.acks.items() if known[1] in names}
        self._holders = {of: held for of, held in self._holders.items() if of[1] in names}
        self._eager = {name: until for name, until in self._eager.items() if name in names}

    # What is asked of a relay

    def follow(self, link: Link, source: str) -> None:
        """Have `source` sent by the peer as well."""
        link.follows.add(source)
        link.relayed.ever_followed.add(source)
        link.send(Follow(tuple(sorted(link.follows))))
        for members in self._members.values():
            self._ask_for(link, members, source)

    def unfollow(self, link: Link, source: str) -> None:
        """No longer."""
        link.follows.discard(source)
        link.relayed.served.discard(source)
        link.relayed.lacked = {of for of in link.relayed.lacked if of[1] != source}
        link.send(Follow(tuple(sorted(link.follows))))

    def through(self, source: str) -> list[Link]:
        """Who is asked for it."""
        return [link for link in self._links.values() if source in link.follows]

    def distrust(self, source: str, now: float) -> None:
        """It is to be asked itself."""
        self.distrusted[source] = now

    def ask_all(self, members: Members, source: str) -> None:
        """Whoever is asked for it, from the cursor on."""
        for link in self.through(source):
            self._ask_for(link, members, source)

    def _ask_for(self, link: Link, members: Members, source: str) -> None:
        inbox = members.sources.get(source)
        if inbox is not None and members.namespace in link.shared:
            link.send(Replay(members.namespace, source, inbox.incarnation, inbox.cursor + 1))

    def on_frame(self, link: Link, frame: Frame, now: float) -> None:
        """Of a source that the peer relays."""
        if not self._asked(link, frame.source, "Frame") or frame.namespace not in link.shared:
            return
        if is_piece(frame.payload):
            raise FrameError(
                f"{link.name} relays a map of {frame.source}, which it cannot; the link is closed"
            )
        members = self._members[frame.namespace]
        inbox = members.sources.get(frame.source)
        if inbox is None:
            return
        verdict = inbox.receive(frame)
        if verdict is Verdict.NEW_INCARNATION:
            self.distrust(frame.source, now)
        elif verdict is Verdict.GAP:
            self._ask_again(link, members, frame.source, inbox, now)
        elif verdict is Verdict.APPLIED:
            self.applied(frame)
        members.settle(frame.source)

    def on_head(self, link: Link, head: Head, stamp: float | None, now: float) -> None:
        """What a relay says of a source; `stamp` left here before the relay knew it."""
        members = self._members.get(head.namespace)
        if not self._asked(link, head.source, "Beat") or members is None:
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
        """All namespaces or none: a source is followed as a whole."""
        link.relayed.lacked.discard((head.namespace, head.source))
        if not any(source == head.source for _, source in link.relayed.lacked):
            link.relayed.served.add(head.source)

    def _on_lacked(self, link: Link, members: Members, head: Head, stamp: float | None, now: float) -> None:
        """Its log begins later than what is missing here: by and by it will not, if somebody else sends.
        Where nobody does, and the source cannot be reached, all that is older goes, and this host goes on
        with the relay's word."""
        source, inbox = head.source, members.sources[head.source]
        link.relayed.served.discard(source)
        link.relayed.lacked.add((head.namespace, source))
        known_at = float("-inf") if stamp is None or head.age_us == AGE_UNKNOWN else stamp
        alone = source not in self._links and members.heard_at(source) + self._lost_after_s < now
        if alone and head.head > inbox.cursor and known_at + self._lost_after_s > now:
            inbox.begin(head.incarnation, head.head, True)
            self.last_resorts.append((source, members.namespace))
        elif len(self.through(source)) == 1:
            self.distrust(source, now)
        self._ask_for(link, members, source)

    def _asked(self, link: Link, source: str, what: str) -> bool:
        """Whether it is to be heard; FrameError if it never was."""
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

    # What is passed on

    def on_follow(self, link: Link, follow: Follow) -> None:
        """The whole list of what the peer wants from here."""
        sources = set(follow.sources)
        if self._name not in sources:
            for outbox in link.outboxes.values():
                outbox.rest()
        self._set_followed(link, sources - {link.name})

    def _set_followed(self, link: Link, sources: set[str]) -> None:
        for source in link.followed - sources - {self._name}:
            followers = self._followers.get(source, [])
            if link in followers:
                followers.remove(link)
            if not followers:
                self._followers.pop(source, None)
                self._kept = set()
        for source in sources - link.followed - {self._name}:
            self._followers.setdefault(source, []).append(link)
        link.followed = sources
        link.relayed.outboxes = {
            of: outbox for of, outbox in link.relayed.outboxes.items() if of[1] in sources
        }

    def _log(self, members: Members, source: str) -> Log | None:
        """What is kept of it, as it is now; None where it is not known."""
        inbox, of = members.sources.get(source), (members.namespace, source)
        log = self._logs.get(of)
        if inbox is None:
            return log
        if log is None:
            log = self._logs[of] = Log(inbox.incarnation, inbox.cursor)
        elif (log.incarnation, log.end) != (inbox.incarnation, inbox.cursor):
            log.begin(inbox.incarnation, inbox.cursor)
        return log

    def on_replay(self, link: Link, replay: Replay) -> None:
        """Of a source that this host relays to the peer."""
        if replay.source not in link.followed or replay.namespace not in link.shared:
            text = f"a Replay of {replay.source}, namespace {replay.namespace}, asked of {self._name}"
            raise FrameError(text)
        log = self._log(self._members[replay.namespace], replay.source)
        if log is not None:
            outbox = RelayOutbox(replay.namespace, replay.source, log)
            outbox.ask(replay.incarnation, replay.first)
            link.throttle.budget.owe(log.bytes_after(replay.first - 1))
            link.relayed.outboxes[replay.namespace, replay.source] = outbox
            self._pump(link, outbox)
        link.relayed.told_at = float("-inf")

    def applied(self, frame: Frame) -> None:
        """It has been applied here: on it goes, and is kept for whoever will hear of the source only here."""
        of = frame.namespace, frame.source
        log = self._logs.get(of)
        if log is None:
            log = self._logs[of] = Log(frame.incarnation, frame.first - 1)
        log.add(frame, min(LOG_BYTES, LOGS_BYTES // len(self._logs)))
        for link in self._followers.get(frame.source, ()):
            outbox = link.relayed.outboxes.get((frame.namespace, frame.source))
            if outbox is not None:
                self._pump(link, outbox)

    def pump(self, link: Link) -> None:
        """What the link lacks, as far as there is room."""
        for outbox in link.relayed.outboxes.values():
            self._pump(link, outbox)

    def _pump(self, link: Link, outbox: RelayOutbox) -> None:
        while link.room() and (frame := outbox.next()) is not None:
            link.send(frame)

    def rows(self, link: Link, now: float) -> tuple[list[Head], list[Cursor]]:
        """For a beat: of what is passed on to this link, and of what comes by it; not in every beat."""
        if now < link.relayed.told_at + self._period_s:
            return [], []
        link.relayed.told_at = now
        relayed = sorted(link.followed - {self._name})
        for outbox in link.relayed.outboxes.values() if link.room() else ():
            if (frame := outbox.empty()) is not None:
                link.send(frame)
        heads = [head for source in relayed for head in self._heads(link, source)]
        return heads, self._cursors(link, now)

    def _heads(self, link: Link, source: str) -> Iterable[Head]:
        linked = self._links.get(source)
        known = lives_of(linked) if linked is not None else self._lives.get(source, {})
        for namespace in sorted(link.theirs):
            members = self._members.get(namespace)
            if members is not None and namespace in link.shared and source in members.sources:
                yield self._head(link, members, source)
            elif members is not None and source in members.departed:
                incarnation, cursor = members.departed[source]
                yield Head(namespace, source, incarnation, cursor, AGE_UNKNOWN, LEFT)
            elif namespace in known and link.allows(namespace):
                yield Head(namespace, source, known[namespace], 0, AGE_UNKNOWN, LACKED)

    def _head(self, link: Link, members: Members, source: str) -> Head:
        self._log(members, source)
        inbox, outbox = members.sources[source], link.relayed.outboxes.get((members.namespace, source))
        kind = OFFERED if outbox is None else SENT if outbox.serves else LACKED
        age_us = link.stamps.age_of(inbox.freshness.at)
        return Head(members.namespace, source, inbox.incarnation, inbox.cursor, age_us, kind)

    # How far others are

    def _cursors(self, link: Link, now: float) -> list[Cursor]:
        rows = []
        passed_on = {source for _, source in self._holders}
        for source in sorted(link.follows):
            if source == link.name and source not in passed_on:
                continue  # what comes from the peer itself is told with this host's own cursors
            for namespace in sorted(link.shared):
                inbox = self._members[namespace].sources.get(source)
                if inbox is not None and source != link.name:
                    rows.append(Cursor(namespace, source, inbox.incarnation, inbox.cursor, self._name))
                held = self._holders.get((namespace, source), {})
                for holder, (incarnation, cursor, at) in list(held.items()):
                    if at + self._lost_after_s < now:
                        del held[holder]
                    elif holder != link.name:
                        rows.append(Cursor(namespace, source, incarnation, cursor, holder))
        return rows

    def on_cursor(self, link: Link, row: Cursor, now: float) -> None:
        """Of another source than this host, or told for another than the peer."""
        members = self._members.get(row.namespace)
        if members is None or row.holder == self._name or row.namespace not in link.shared:
            return
        if row.source != self._name:
            self._pass_on(link, row, now)
        elif row.holder in members.sources and _possible(row, members.store):
            self.acks[row.namespace, row.holder] = row.cursor
            members.acked(row.holder, row.cursor)

    def _pass_on(self, link: Link, row: Cursor, now: float) -> None:
        known = self._members[row.namespace].sources
        if (
            row.source not in link.followed
            or row.holder == row.source
            or not {row.source, row.holder} <= known.keys()
        ):
            return
        held = self._holders.setdefault((row.namespace, row.source), {})
        had, said = held.get(row.holder, (0, 0, 0.0))[:2], (row.incarnation, row.cursor)
        if said >= had:
            held[row.holder] = (*said, now)
        # Only what is newer goes on at once: in a circle two words would chase each other without end.
        if said > had and now <= self._eager.get(row.source, float("-inf")):
            for way in self.through(row.source):
                if way is not link and row.namespace in way.shared:
                    way.send(Beat(way.stamps.next(now), way.stamps.newest_heard, (), (row,)))

    def on_sync(self, link: Link, sync: Sync, now: float) -> int:
        """A source asks how far its ring has been applied: so are those whom it is passed on to; how many."""
        source = sync.source or link.name
        followers = self._followers.get(source, ()) if sync.hops < HOPS_MAX else ()
        if followers:
            self._eager[source] = now + EAGER_S
        for follower in followers:
            if follower is not link:
                follower.send(Sync(source, sync.hops + 1))
        return len(followers)


def lives_of(link: Link) -> dict[str, int]:
    """Of the peer's segments, as it last told them: the incarnation, by namespace."""
    rows = link.theirs.items()
    return {namespace: row.incarnation for namespace, row in rows if row.fingerprint != UNSERVED}


def _possible(row: Cursor, store: Store) -> bool:
    return row.incarnation == store.incarnation and row.cursor <= store.tail


def in_parts(beat: Beat) -> list[Beat]:
    """As many messages as its rows need."""
    rest = [beat]
    for at in range(ROWS_MAX, max(len(beat.heads), len(beat.cursors)), ROWS_MAX):
        rest.append(
            Beat(beat.stamp, beat.echo, beat.heads[at : at + ROWS_MAX], beat.cursors[at : at + ROWS_MAX])
        )
    rest[0] = Beat(beat.stamp, beat.echo, beat.heads[:ROWS_MAX], beat.cursors[:ROWS_MAX])
    return rest
