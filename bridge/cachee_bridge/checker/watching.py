"""Watches of writes that a peer may not have applied yet: it asks, compares, asks again, and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachee_bridge.checker.samples import is_older
from cachee_bridge.checker.suspects import ARMED_S, SAID_S, Watch
from cachee_bridge.wire.messages import ABSENT, HOLDS, JOURNAL, Asked

if TYPE_CHECKING:
    from cachee_bridge.checker.around import Around
    from cachee_bridge.ports.effects import Answered, Level
    from cachee_bridge.protocol.questions import Peer
    from cachee_bridge.wire.messages import Answer, Holding

WATCHES_MAX = 1024
OVER_MAX = 64
"""The newest suspects that were never resolved."""

OnSeen = Callable[[Watch, "Answer", float], None]
OnForeign = Callable[[Watch], None]
OnAnswered = Callable[[Watch, float], None]
OnLate = Callable[[Watch], None]


class Watching:
    """Of one host."""

    def __init__(
        self,
        life: bytes,
        around: Around,
        on_seen: OnSeen,
        on_answered: OnAnswered,
        on_late: OnLate,
        on_foreign: OnForeign,
    ) -> None:
        """`life`: how the values of this host's canaries begin, before their numbers. `on_seen(watch, answer,
        now)`: the peer holds nothing older. `on_answered(watch, now)`: it was looked at, whatever came.
        `on_late(watch)`: not seen yet SAID_S after the write. `on_foreign(watch)`: the peer holds another
        host's canary of this hash."""
        self._life, self._around = life, around
        self._on_seen, self._on_answered, self._on_late = on_seen, on_answered, on_late
        self._on_foreign = on_foreign
        self._watches: dict[Watch, None] = {}
        self._over: list[tuple[Watch, float]] = []
        """And until when it was looked at."""

    def look(self, now: float) -> None:
        """At all that are due."""
        for watch in [watch for watch in self._watches if watch.due_at <= now and not watch.asked]:
            self.ask([watch])

    def next_due(self) -> float:
        """When some watch is due; inf when none is."""
        return min((watch.due_at for watch in self._watches if not watch.asked), default=float("inf"))

    def ask(self, watches: list[Watch]) -> None:
        """One question about all of them, of one peer and namespace. Of too many, the oldest are dropped."""
        first = watches[0]
        for watch in watches:
            watch.asked = True
            self._watches[watch] = None
        while len(self._watches) > WATCHES_MAX:
            del self._watches[next(iter(self._watches))]
        rows = [Asked(watch.hash) for watch in watches]
        self._around.ask(
            first.peer, HOLDS, first.namespace, rows, lambda answered: self._answered(watches, answered)
        )

    def young(self, now: float) -> dict[str, list[float]]:
        """By peer, how old the canaries are that count and that it has not been seen to evict, and may be
        yet."""
        ages: dict[str, list[float]] = {}
        for watch in self._watches:
            if watch.what == "canary" and watch.is_late:
                ages.setdefault(watch.peer, []).append(now - watch.written_at)
        return ages

    def suspects(self, now: float) -> list[dict[str, Any]]:
        """Ready for JSON: those that are over, then those that are looked at again."""
        over = [watch.view(until, over=True) for watch, until in self._over]
        return over + [watch.view(now, over=False) for watch in self._watches if watch.wrong is not None]

    # Judging

    def _answered(self, watches: list[Watch], answered: Answered) -> None:
        for number, watch in enumerate(watches):
            if watch not in self._watches:
                continue
            if answered.answer is None or number >= len(answered.answer.holdings):
                self._unanswered(watch, answered)
            else:
                self._judge(watch, answered.answer, answered.answer.holdings[number], answered.at)
            watch.looks += 1
            self._on_answered(watch, answered.at)

    def _unanswered(self, watch: Watch, answered: Answered) -> None:
        """An unlinked peer cannot be asked. Its watches are dropped if relays carry this host's writes to it,
        or if it has left."""
        known = self._peer(watch, answered.at)
        if known is None:
            del self._watches[watch]
            return
        watch.note(answered.at, answered.failure or "no answer")
        if not known.is_linked:
            watch.wrong = None
        self._again(watch, answered.at)

    def _peer(self, watch: Watch, now: float) -> Peer | None:
        peers = self._around.peers(watch.namespace, now)
        return next((peer for peer in peers if peer.name == watch.peer), None)

    def _judge(self, watch: Watch, answer: Answer, holding: Holding, now: float) -> None:
        if watch.what == "canary" and self._is_foreign(holding):
            del self._watches[watch]
            self._on_foreign(watch)
            return
        if watch.what == "key":
            older = is_older(holding, watch.digest, watch.written_at, now)
        else:
            older = self._is_older_canary(watch, holding)
        if older:
            known = self._peer(watch, now)
            watch.judge(answer, holding, known.told if known is not None else 0, now)
            self._again(watch, now)
        else:
            self._seen(watch, answer, now)

    def _is_foreign(self, holding: Holding) -> bool:
        """Whether it is another host's canary, of the same hash (once in a million pairs). What the peer did
        with this host's write cannot be known then."""
        return holding.held != ABSENT and holding.value.partition(b" ")[0] != self._life.partition(b" ")[0]

    def _is_older_canary(self, watch: Watch, holding: Holding) -> bool:
        """One of an earlier life of this host's bridge is older."""
        if holding.held == ABSENT:
            return False
        number = holding.value.removeprefix(self._life)
        return number == holding.value or not number.isdigit() or int(number) < watch.number

    def _seen(self, watch: Watch, answer: Answer, now: float) -> None:
        del self._watches[watch]
        if watch.said:
            after = f"{now - watch.written_at:.1f} s after the write"
            text = f"{watch.peer} holds nothing older of {watch.name} any more, {after}"
            self._around.say("info", text, peer=watch.peer, namespace=watch.namespace)
        self._on_seen(watch, answer, now)

    def _again(self, watch: Watch, now: float) -> None:
        """To be asked again, or given up."""
        if now >= watch.written_at + SAID_S and not watch.is_late:
            watch.is_late = True
            self._on_late(watch)
        is_over = not watch.next_look(now)
        if is_over:
            del self._watches[watch]
        if watch.wrong is None:
            return
        if is_over:
            self._over = [*self._over[-OVER_MAX + 1 :], (watch, now)]
            self._complain("error", watch, now)
            return
        if now >= watch.written_at + ARMED_S and not watch.armed:
            watch.armed = True
            self._around.arm(watch.namespace, watch.hash)
        if now >= watch.written_at + SAID_S and not watch.said:
            watch.said = True
            self._complain("warning", watch, now)
            rows = [Asked(watch.hash)]
            self._around.ask(watch.peer, JOURNAL, watch.namespace, rows, lambda it: _note_journal(watch, it))

    def _complain(self, level: Level, watch: Watch, now: float) -> None:
        assert watch.wrong is not None
        when = f"{now - watch.written_at:.1f} s after it was written"
        self._around.say(
            level,
            f"stale at {watch.peer}: {watch.wrong.value}: {watch.name}, {when}: {watch.why}",
            peer=watch.peer,
            namespace=watch.namespace,
        )


def _note_journal(watch: Watch, answered: Answered) -> None:
    """Adds the peer's journal rows of the key to the trace."""
    for row in answered.answer.journal if answered.answer is not None else ():
        told = (row.kind, row.why, row.layer, row.source and f"source {row.source}", row.command, row.service)
        words = ", ".join(word for word in told if word)
        watch.note(answered.at - row.age_us / 1e6, f"journal of {watch.peer}: {words}, at {row.sequence}")
