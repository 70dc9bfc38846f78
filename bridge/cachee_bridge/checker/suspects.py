"""One write, and whether a peer still holds the value that it replaced. The peer is asked several times; then
the fault is named.

    look          at once, then 1, 10, 100 ms, 1 and 60 s after the write, until the peer holds nothing older
    suspect       the peer holds something older at some look
    armed         at the look after 100 ms: every host journals what happens to the key, reads too
    said          after 1 s, with what the peer's journal has: a warning with the name of what is wrong; after
                  60 s: an error

What is wrong, by name:

    not applied yet               the peer's segment has not applied this host's ring up to the write
    cursor ahead of its segment   nor has it, but its bridge has told that it did
    fill ignored its token        the peer stored an older value after it had applied the write
    invalidation lost             the peer's segment counts the write as applied, and holds what it replaced
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Answer, Holding

LOOKS_S = (0.001, 0.01, 0.1, 1.0, 59.5)
"""When to ask again after the write. The answer to the last question should come within 60 s."""
ARMED_S, SAID_S = 0.1, 1.0
TRACE_MAX = 64


class Wrong(Enum):
    NOT_APPLIED = "not applied yet"
    AHEAD = "cursor ahead of its segment"
    REFILLED = "fill ignored its token"
    LOST = "invalidation lost"


@dataclass(eq=False)
class Watch:
    """Of one write and one peer."""

    peer: str
    namespace: str
    hash: int
    what: str
    """"canary" or "key"."""
    position: int
    """Of the write in this host's ring, or one after it."""
    incarnation: int
    """Of this host's segment."""
    written_at: float
    """When the write had not happened yet."""
    number: int = 0
    """Of a canary."""
    digest: int = 0
    """Of a key's new value, the bits that its record has; 0: there is none."""
    due_at: float = 0.0
    looks: int = 0
    asked: bool = False
    """A question is under way."""
    refilled: bool = False
    """The peer stored an older value when it had applied the write."""
    armed: bool = False
    """All hosts journal what happens to the key."""
    is_late: bool = False
    """A second after the write it was not seen yet."""
    said: bool = False
    """It was logged."""
    wrong: Wrong | None = None
    """None: nothing older was found yet."""
    why: str = ""
    trace: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of what was written, for people."""
        return f"canary {self.number}" if self.what == "canary" else f"the key of hash {self.hash:016x}"

    def next_look(self, now: float) -> bool:
        """Sets when to look again. False: that was the last look."""
        self.asked = False
        for after in LOOKS_S:
            if self.written_at + after > now:
                self.due_at = self.written_at + after
                return True
        return False

    def note(self, now: float, text: str) -> None:
        """A line of the trace."""
        if len(self.trace) < TRACE_MAX:
            self.trace.append(f"{1000 * (now - self.written_at):.1f} ms after the write: {text}")

    def judge(self, answer: Answer, holding: Holding, told: int, now: float) -> None:
        """The peer holds an older version. Name the fault, as far as the answer shows it."""
        applied = (answer.incarnation, answer.cursor)
        reached = answer.incarnation == self.incarnation and answer.cursor >= self.position
        if not reached and told >= self.position:
            self.wrong = Wrong.AHEAD
            self.why = (
                f"its bridge has told that it applied this host's ring up to {told}, and its segment says "
                f"{answer.cursor}; the write is at {self.position}"
            )
        elif not reached:
            self.wrong = Wrong.NOT_APPLIED
            self.why = (
                f"it has applied this host's ring up to {answer.cursor}; the write is at {self.position}"
            )
        elif self.refilled:
            self.wrong = Wrong.REFILLED
            self.why = (
                f"it stored a value loaded at position {holding.version >> 1} of its ring, when it had "
                f"applied the write at {self.position}"
            )
        else:
            self.wrong = Wrong.LOST
            self.why = (
                f"its segment counts this host's ring as applied up to {answer.cursor}, with the write at "
                f"{self.position}, and still holds what the write replaced"
            )
        self.note(
            now,
            f"{self.wrong.value}: holds version {holding.version >> 1}{' (a fill)' * (holding.version & 1)}, "
            f"{holding.age_ms / 1000:.1f} s old; fence {holding.fence}; applied {applied[1]}; told {told}",
        )

    def view(self, now: float, over: bool) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "peer": self.peer,
            "namespace": self.namespace,
            "hash": f"{self.hash:016x}",
            "what": self.what,
            "since_s": round(now - self.written_at, 3),
            "over": over,
            "name": self.wrong.value if self.wrong is not None else "",
            "why": self.why,
            "trace": [*self.trace],
        }
