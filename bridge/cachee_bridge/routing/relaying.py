"""Sources that this host passes on to the peers that follow them here.

the follower (following.py)           this host
FOLLOW [source, ...]             ->   reports on each source with its beats
REPLAY source, first             ->   sends what follows, if its log (relay_log.py) reaches back so far
BEAT: its cursor                 ->   reported on to the source (acknowledgements.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cachee_bridge.streams.relay_log import LOG_BYTES, LOGS_BYTES, Log, RelayOutbox, Undecoded
from cachee_bridge.wire.messages import (
    AGE_UNKNOWN,
    HOPS_MAX,
    LACKED,
    LEFT,
    OFFERED,
    ROWS_MAX,
    SENT,
    Beat,
    Cursor,
    Follow,
    Frame,
    Head,
    Replay,
    Sync,
)
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.routing.acknowledgements import Acknowledgements
    from cachee_bridge.routing.following import Following
    from cachee_bridge.sources.members import Members

PERIOD_S = 0.3
PERIOD_PART = 6
"""As a part of lost_after: a follower is sent a report at least this often."""


class Relaying:
    def __init__(
        self,
        name: str,
        lost_after_s: float,
        members: Mapping[str, Members],
        following: Following,
        acknowledgements: Acknowledgements,
    ) -> None:
        self._name, self._members = name, members
        self._following, self._acknowledgements = following, acknowledgements
        self._period_s = min(PERIOD_S, lost_after_s / PERIOD_PART)
        self._followers: dict[str, list[Link]] = {}
        """By source, the links of its followers here."""
        self._logs: dict[tuple[str, str], Log] = {}
        """By (namespace, source)."""
        self._kept: set[str] = set()
        """The `names` of the last call of `keep`."""

    # Followers

    def on_follow(self, link: Link, follow: Follow) -> None:
        """All sources that the peer wants from this host."""
        sources = set(follow.sources)
        if self._name not in sources:
            for outbox in link.outboxes.values():
                outbox.rest()
        self._set_followed(link, sources - {link.name})

    def unlinked(self, link: Link) -> None:
        """The link is closed."""
        self._set_followed(link, set())

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

    def keep(self, names: set[str]) -> None:
        """Forget all other sources. Costs nothing while `names` are those of the last call."""
        if names == self._kept:
            return
        self._kept = set(names)
        self._logs = {of: log for of, log in self._logs.items() if of[1] in names or of[1] in self._followers}
        self._following.keep(names)
        self._acknowledgements.keep(names)

    # Records

    def applied(self, frame: Frame) -> None:
        """A frame has been applied here: send it to the followers, and log it for later ones."""
        of = frame.namespace, frame.source
        log = self._logs.get(of)
        if log is None:
            log = self._logs[of] = Log(frame.incarnation, frame.first - 1)
        log.add(frame, min(LOG_BYTES, LOGS_BYTES // len(self._logs)))
        for link in self._followers.get(frame.source, ()):
            outbox = link.relayed.outboxes.get((frame.namespace, frame.source))
            if outbox is not None:
                self._pump(link, outbox)

    def has_followers(self, source: str) -> bool:
        """Whether `source` is relayed to anybody: each of its frames is to be sent on before the next."""
        return source in self._followers

    def applied_undecoded(self, of: tuple[str, str], incarnation: int, cursor: int, came: Undecoded) -> None:
        """Frames `of` (namespace, source) have been applied here from `cursor` on, and the source has no
        followers: log them for later ones."""
        log = self._logs.get(of)
        if log is None:
            log = self._logs[of] = Log(incarnation, cursor)
        log.add_undecoded(incarnation, cursor, came, min(LOG_BYTES, LOGS_BYTES // len(self._logs)))

    def on_replay(self, link: Link, replay: Replay) -> None:
        """A follower asks for records of a source from a position on."""
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

    def _log(self, members: Members, source: str) -> Log | None:
        """The log of `source`, which ends at the cursor; None if the source is not known."""
        inbox, of = members.sources.get(source), (members.namespace, source)
        log = self._logs.get(of)
        if inbox is None:
            return log
        if log is None:
            log = self._logs[of] = Log(inbox.incarnation, inbox.cursor)
        elif (log.incarnation, log.end) != (inbox.incarnation, inbox.cursor):
            log.begin(inbox.incarnation, inbox.cursor)
        return log

    def pump(self, link: Link) -> None:
        """Send what the follower lacks, as far as there is room."""
        for outbox in link.relayed.outboxes.values():
            self._pump(link, outbox)

    def _pump(self, link: Link, outbox: RelayOutbox) -> None:
        while link.room() and (frame := outbox.next()) is not None:
            link.send(frame)

    # Beats

    def rows(self, link: Link, now: float) -> tuple[list[Head], list[Cursor]]:
        """For a beat, once in each period: heads of the sources that the peer follows here, and cursors in
        those that this host follows through the peer."""
        if now < link.relayed.told_at + self._period_s:
            return [], []
        link.relayed.told_at = now
        relayed = sorted(link.followed - {self._name})
        for outbox in link.relayed.outboxes.values() if link.room() else ():
            if (frame := outbox.empty()) is not None:
                link.send(frame)
        heads = [head for source in relayed for head in self._heads(link, source)]
        return heads, self._acknowledgements.rows(link, now)

    def _heads(self, link: Link, source: str) -> Iterable[Head]:
        lives = self._following.lives(source)
        for namespace in sorted(link.theirs):
            members = self._members.get(namespace)
            if members is not None and namespace in link.shared and source in members.sources:
                yield self._head(link, members, source)
            elif members is not None and source in members.departures.left:
                incarnation, cursor = members.departures.left[source]
                yield Head(namespace, source, incarnation, cursor, AGE_UNKNOWN, LEFT)
            elif namespace in lives and link.allows(namespace):
                yield Head(namespace, source, lives[namespace], 0, AGE_UNKNOWN, LACKED)

    def _head(self, link: Link, members: Members, source: str) -> Head:
        self._log(members, source)
        inbox, outbox = members.sources[source], link.relayed.outboxes.get((members.namespace, source))
        kind = OFFERED if outbox is None else SENT if outbox.serves else LACKED
        age_us = link.stamps.age_of(inbox.freshness.at)
        return Head(members.namespace, source, inbox.incarnation, inbox.cursor, age_us, kind)

    def on_sync(self, link: Link, sync: Sync, now: float) -> int:
        """A source asks how far its ring has been applied: ask its followers here too. Returns how many."""
        source = sync.source or link.name
        followers = self._followers.get(source, ()) if sync.hops < HOPS_MAX else ()
        if followers:
            self._acknowledgements.hurry(source, now)
        for follower in followers:
            if follower is not link:
                follower.send(Sync(source, sync.hops + 1))
        return len(followers)


def in_parts(beat: Beat) -> list[Beat]:
    """As many messages as the rows of `beat` need."""
    rest = [beat]
    for at in range(ROWS_MAX, max(len(beat.heads), len(beat.cursors)), ROWS_MAX):
        rest.append(
            Beat(beat.stamp, beat.echo, beat.heads[at : at + ROWS_MAX], beat.cursors[at : at + ROWS_MAX])
        )
    rest[0] = Beat(beat.stamp, beat.echo, beat.heads[:ROWS_MAX], beat.cursors[:ROWS_MAX])
    return rest
