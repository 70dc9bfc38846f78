"""Questions between bridges: what a host asks a linked peer about keys, and what it answers.

    HOLDS     what do you hold of these hashes? (for the checker)
    FILL      store these canaries, as values loaded under the tokens that you gave (for the checker)

    ARM       note in your journal whatever happens to these keys from now on
    JOURNAL   what does your journal say of these hashes? (for `cachee explain`)

Each question ends in exactly one Answered: an answer, or the reason why there is none. A peer is asked only
about a namespace that both ends share, and so only about namespaces that its certificate allows. A question
is charged to the asking peer's budget: the message, the rows of the answer, and each search of the journal.

An answer is computed from the segment, in the callback in which the question came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cachee_bridge.ports.effects import Answered
from cachee_bridge.wire.budget import JOURNAL_BYTES, ROW_BYTES
from cachee_bridge.wire.frames import SINCE
from cachee_bridge.wire.messages import (
    ARM,
    FILL,
    HOLDS,
    JOURNAL,
    JOURNAL_ROWS_MAX,
    REASON_CHARACTERS,
    REFUSED,
    STORED,
    WORD_CHARACTERS,
    Answer,
    Asked,
    Holding,
    JournalRow,
    Question,
)

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.store import Store
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.namespaces import Namespaces

PATIENCE_S = 0.2
"""How long an answer is waited for: a round trip between two continents, and a busy peer."""
ARM_MS_MAX = 600_000
OPEN_MAX = 1024
"""Questions without an answer yet. A round of the checker has 8 at a time, an `explain` one for each link."""


class Peer(NamedTuple):
    """A host with which a namespace is shared, or was until its link was lost."""

    name: str
    region: str
    """"" = it does not say, or is not linked."""
    is_linked: bool
    too_old: bool
    """The peer's wire version has no questions."""
    told: int
    """How far the peer has applied this host's ring, as it last acknowledged."""


@dataclass(frozen=True)
class Open:
    """A question that has no answer yet."""

    peer: str
    namespace: str
    asked_at: float
    until: float


class Questions:
    def __init__(self, links: LinkTable, namespaces: Namespaces, effects: Collected) -> None:
        self._links, self._namespaces, self._effects = links, namespaces, effects
        self._open: dict[int, Open] = {}
        """By number, the oldest first."""
        self._number = 0
        self.wall_ahead_s = 0.0
        """How far the wall clock is ahead of the mesh's clock, set by the shell. Journals use the wall
        clock."""

    # Asking

    def peers(self, namespace: str) -> list[Peer]:
        """Linked peers with which this host shares `namespace`, also those that are too old to be asked."""
        return [
            Peer(
                name,
                link.region,
                is_linked=True,
                too_old=link.version < SINCE[Question],
                told=link.acked.get(namespace, 0),
            )
            for name, link in self._links.up.items()
            if namespace in link.shared
        ]

    def lost(self, namespace: str, since: float) -> list[Peer]:
        """Members of `namespace` that are not linked and have not been heard since `since`."""
        members = self._namespaces.members.get(namespace)
        names = members.sources if members is not None else ()
        return [
            Peer(name, "", is_linked=False, too_old=False, told=0)
            for name in names
            if name not in self._links.up and not self._namespaces.is_fresh(name, since)
        ]

    def ask(
        self,
        peer: str,
        what: int,
        namespace: str,
        rows: Sequence[Asked],
        now: float,
        patience_s: float = PATIENCE_S,
    ) -> int:
        """Ask a linked peer about up to ASKED_MAX hashes. Returns the number that its Answered will bear."""
        self._number += 1
        link = self._links.up.get(peer)
        failure = self._unaskable(link, namespace)
        if link is None or failure:
            self._effects.add(Answered(self._number, peer, None, failure, now, now))
            return self._number
        self._effects.stir()
        self._open[self._number] = Open(peer, namespace, now, now + patience_s)
        link.send(Question(self._number, what, namespace, tuple(rows)))
        self._effects.flush(self._links.ready)
        return self._number

    def _unaskable(self, link: Link | None, namespace: str) -> str:
        if link is None:
            return "it is not linked"
        if link.version < SINCE[Question]:
            return "too old to be asked: its bridge speaks an older wire; upgrade it"
        if namespace not in link.shared:
            return f"namespace {namespace} is not shared with it"
        if len(self._open) >= OPEN_MAX:
            return f"{OPEN_MAX} questions wait for their answers already"
        return ""

    def on_answer(self, link: Link, answer: Answer, now: float) -> None:
        """An answer that comes too late, or to no question of this host, is dropped."""
        asked = self._open.get(answer.number)
        if asked is None or (asked.peer, asked.namespace) != (link.name, answer.namespace):
            return
        del self._open[answer.number]
        said = None if answer.failure else answer
        self._effects.add(Answered(answer.number, link.name, said, answer.failure, asked.asked_at, now))

    def expire(self, now: float) -> None:
        """Give up questions that have waited for PATIENCE_S."""
        for number in [number for number, asked in self._open.items() if asked.until <= now]:
            asked = self._open.pop(number)
            failure = f"no answer within {1000 * (now - asked.asked_at):.0f} ms"
            self._effects.add(Answered(number, asked.peer, None, failure, asked.asked_at, now))

    def next_due(self) -> float:
        """When some question is to be given up; inf when none is open."""
        return min((asked.until for asked in self._open.values()), default=float("inf"))

    # Answering

    def on_question(self, link: Link, question: Question, now: float) -> None:
        """Answer a peer, and charge it for the answer."""
        members = self._namespaces.members.get(question.namespace)
        if members is None or question.namespace not in link.shared:
            failure = f"namespace {question.namespace} is not shared with {link.name}"
            answer = _failed(question, failure)
        else:
            answer = self._answered(link, question, members.store, now)
        looked_through = len(question.rows) if question.what == JOURNAL else 0
        rows = len(answer.holdings) + len(answer.journal)
        link.throttle.budget.owe(ROW_BYTES * rows + JOURNAL_BYTES * looked_through)
        link.send(answer)

    def _answered(self, link: Link, question: Question, store: Store, now: float) -> Answer:
        tail = store.tail  # read before anything else, because it is a fill token
        source = self._namespaces.members[question.namespace].sources.get(link.name)
        incarnation, cursor = store.source_cursor(source.index) if source is not None else (0, 0)
        holdings: tuple[Holding, ...] = ()
        journal: tuple[JournalRow, ...] = ()
        if question.what == HOLDS:
            holdings = tuple(holding_of(store, asked.hash) for asked in question.rows)
        elif question.what == FILL:
            holdings = tuple(_filled(store, asked) for asked in question.rows)
        elif question.what == ARM:
            for asked in question.rows:
                store.arm(asked.hash, min(asked.number, ARM_MS_MAX) / 1000)
        else:
            journal = self.journal(store, [asked.hash for asked in question.rows], now)
        return Answer(question.number, question.namespace, "", incarnation, cursor, tail, holdings, journal)

    def journal(self, store: Store, hashes: Sequence[int], now: float) -> tuple[JournalRow, ...]:
        """The newest rows of a segment's journal about these hashes, the oldest first."""
        wall_s = now + self.wall_ahead_s
        rows = [_row(hashed, row, wall_s) for hashed in hashes for row in store.journal(hashed)]
        rows.sort(key=lambda row: -row.age_us)
        return tuple(rows[-JOURNAL_ROWS_MAX:])


def _failed(question: Question, failure: str) -> Answer:
    return Answer(question.number, question.namespace, failure, 0, 0, 0, (), ())


def holding_of(store: Store, hashed: int) -> Holding:
    """What the segment holds of one hash."""
    return Holding(hashed, *store.holding(hashed))


def _filled(store: Store, asked: Asked) -> Holding:
    """The segment raises ValueError for a hash that is not a canary's; then nothing is stored."""
    try:
        stored = store.canary_fill(asked.hash, asked.value, asked.number)
    except ValueError:
        stored = False
    return holding_of(store, asked.hash)._replace(held=STORED if stored else REFUSED)


def _row(hashed: int, row: Mapping[str, Any], wall_s: float) -> JournalRow:
    def word(name: str, most: int = WORD_CHARACTERS) -> str:
        return "".join(c if c.isprintable() else "?" for c in row[name])[:most]

    return JournalRow(
        hashed,
        _before_us(wall_s, row["at"]),
        word("kind"),
        word("layer"),
        word("source"),
        row["incarnation"],
        row["sequence"],
        row["pid"],
        word("command"),
        word("service"),
        word("why", REASON_CHARACTERS),
        max(1, _before_us(wall_s, row["since"])) if row["since"] else 0,
        row["digest"],
    )


def _before_us(now_s: float, then_s: float) -> int:
    return max(0, round((now_s - then_s) * 1e6))
