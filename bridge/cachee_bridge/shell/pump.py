"""Moves new records from this host's rings to the mesh: it decides when to poll and when to sleep.

    ASLEEP   the doorbell is armed; the first writer to end the silence rings it, once
    AWAKE    after records that came thick: looks 50 and 150 µs after the last, then sleep

Waking costs the bridge 20 µs or more if the machine was idle, and ringing costs the writer as much. So the
bridge polls while writes are frequent, and sleeps while they are not. A spell is busy when a look found a
record, however late the look was, or when one that rang came so soon after the one before it that the looks
would have found it. A third look would be later than a ring: what one host writes when another has answered
comes 150 µs apart and more, and waited for it.

Home before away: `moved` applies a record here before the mesh sends it, or a peer could fetch the old value
back from a half-done write.

Asleep is not blind: `check`, called at every tick of the mesh (three times a second, by default, where all is
calm), finds what rang no bell (a writer that was killed between its record and its ring, or that lives in
another IPC namespace and cannot ring at all). When that keeps happening, the pump looks slowly beside the
bell; without any bell it does so from the start.

A ring says whose it is, so a look costs what rang, and not what there is: each ring has a bell of its own to
arm, and those that nobody writes to stay asleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Protocol

from cachee_bridge.shell.timer import Timer

if TYPE_CHECKING:
    from cachee_bridge.shell.doorbell import Doorbell

STEPS_US = (50, 100)  # doubling, because looks that find nothing are the expensive ones
THICK_S = sum(STEPS_US) / 1e6
SLOW_US = 3_000  # where the doorbell does not work: 1.5 ms late on average, for about 1 % of a core
CALM_S = 0.001
TURNS = 16  # rings that each check also looks at, without a bell; each of them once
UNHEARD_COST = 10  # a write that did not ring counts as much as this many that did
UNHEARD_MAX = 3 * UNHEARD_COST


class Ring(Protocol):
    """What the pump needs of a Segment."""

    @property
    def tail(self) -> int:
        """The last position in the ring."""

    @property
    def pump_cursor(self) -> int:
        """The last position healed."""

    def sync_asked(self) -> int:
        """The position up to which a worker waits for the peers."""

    def gather(self) -> None:
        """Takes into this ring what was written in this host's segments of other layouts."""

    def bridge_sleep(self, sleeping: bool, /) -> bool:
        """Arms or disarms the bell. Arming returns False, and does not arm, when tail != pump_cursor."""


class Pump:
    """All rings of one host, under one doorbell."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bell: Doorbell | None,
        moved: Callable[[str], int],
        warn: Callable[[str], None],
        spoilt: Callable[[str, Exception], None],
    ) -> None:
        """`moved(namespace)`: something was written in its ring, or a worker waits for the peers. Heals some
        of it and sends it; answers how far the ring is healed.
        `warn(text)`: writers do not reach the bell. `spoilt(what, error)`: that was not done, because of an
        exception; it is tried again, at the next tick of the mesh if not before."""
        self._loop = loop
        self._bell = bell
        self._moved = moved
        self._warn = warn
        self._spoilt = spoilt
        self._rings: dict[str, Ring] = {}
        self._awake: dict[str, float] = {}
        """Rings whose bell is not armed, and when something was last found: looked at while it is awake."""
        self._turns: Iterator[str] = cycle(())
        self._asked: dict[str, int] = {}
        """By ring, the `sync_asked` that the mesh knows of."""
        self._timer = Timer()
        self._step = 0
        self._found_at = 0.0
        self._asleep = False
        self._unheard = 0
        self._deaf = bell is None

    def start(self) -> None:
        """Looks at once: records that were written while no bridge ran are sent first."""
        self._loop.add_reader(self._timer.fileno(), self._on_timer)
        if self._bell is not None:
            self._loop.add_reader(self._bell.fileno(), self._on_bell)
        self._wake(list(self._rings))

    def add(self, namespace: str, ring: Ring) -> None:
        """One more ring; also after start."""
        self._rings[namespace] = ring
        self._turns = cycle(list(self._rings))
        self._wake([namespace])

    def stop(self) -> None:
        """Looks no more. The bell and the rings belong to the caller."""
        self._loop.remove_reader(self._timer.fileno())
        if self._bell is not None:
            self._loop.remove_reader(self._bell.fileno())
        self._timer.close()
        for ring in self._rings.values():
            ring.bridge_sleep(False)

    def look(self, names: Iterable[str] | None = None) -> list[str]:
        """Heals and hands on what came into these rings (None: into all) since the last look, remote records
        too. In which anything had."""
        moved = []
        for name in list(self._rings) if names is None else names:
            try:
                if name in self._rings and self._look_at(name, self._rings[name]):
                    moved.append(name)
            except Exception as error:  # the other rings must not wait for this one
                self._spoilt(f"the ring of namespace {name}", error)
        return moved

    def _look_at(self, name: str, ring: Ring) -> bool:
        ring.gather()
        cursor, end, asked = ring.pump_cursor, ring.tail, ring.sync_asked()
        if cursor != end:
            self._drain(name, cursor, end)
        elif asked != self._asked.get(name, 0):
            self._moved(name)
        self._asked[name] = asked
        return cursor != end

    def check(self) -> None:
        """Looks at the rings that are awake, and at some of the others in turn, for what should have rung and
        did not. To be called some times a second."""
        asleep, names = self._asleep, [*self._awake, *self._next_in_turn()]
        moved = self.look(names)
        if not moved:
            return
        if asleep and self._bell is not None and not self._bell.answer():
            self._not_heard()
        self._found(moved)

    def _next_in_turn(self) -> list[str]:
        """A writer that died between its record and its ring has disarmed the bell: it is armed again."""
        count = min(TURNS, len(self._rings))
        names = [name for name in islice(self._turns, count) if name not in self._awake]
        if self._asleep and self._bell is not None:
            for name in names:
                self._rings[name].bridge_sleep(True)
        return names

    def _drain(self, name: str, cursor: int, end: int) -> None:
        """Up to the tail as it was: writers that go on meanwhile are met at the next look."""
        while cursor < end:
            healed = self._moved(name)
            if healed <= cursor:
                break
            cursor = healed

    def _on_bell(self) -> None:
        try:
            rung = self._bell.rung() if self._bell is not None else []
            if rung is None or any(name not in self._rings for name in rung):
                rung = list(self._rings)
            self.look(rung)
            if rung:
                self._heard()
            self._found(rung)
        except Exception as error:
            self._bell_is_broken(error)

    def _bell_is_broken(self, error: Exception) -> None:
        """A descriptor that stays readable would be called for without end."""
        self._spoilt("the doorbell", error)
        if self._bell is not None:
            self._loop.remove_reader(self._bell.fileno())
        self._deaf = True
        self._timer.after(SLOW_US)

    def _on_timer(self) -> None:
        try:
            self._timer_passed()
        except Exception as error:
            self._spoilt("looking for writes", error)
            self._timer.after(SLOW_US)

    def _timer_passed(self) -> None:
        if moved := self.look(None if self._deaf else list(self._awake)):
            self._found(moved)
        elif self._asleep:
            self._rest()
        elif self._step + 1 < len(STEPS_US):
            self._step += 1
            self._timer.after(STEPS_US[self._step])
        else:
            self._sleep()

    def _found(self, names: Sequence[str]) -> None:
        """More is looked for in these if a look found this or it followed closely, else waited for."""
        before, self._found_at = self._found_at, time.monotonic()
        if not self._asleep or self._found_at - before < THICK_S:
            self._wake(names)
            self._calm()
        else:
            self._awake.update(dict.fromkeys(names, self._found_at))
            self._sleep()

    def _wake(self, names: Sequence[str]) -> None:
        """Disarms these rings' bells, so that writers need not ring while the pump polls."""
        self._asleep = False
        for name in names:
            if name not in self._awake:
                self._rings[name].bridge_sleep(False)
            self._awake[name] = self._found_at
        self._step = 0
        self._timer.after(STEPS_US[0])

    def _calm(self) -> None:
        """Rings in which nothing was found for a while, though others are busy, go back to their bells."""
        for name in [name for name, at in self._awake.items() if self._found_at - at > CALM_S]:
            if self._arm(name):
                del self._awake[name]

    def _sleep(self) -> None:
        """Unless a record or one who waits slipped in between the last look and the arming of the bell."""
        self._asleep = True
        if self._bell is not None:
            for name in list(self._awake):
                if self._arm(name):
                    del self._awake[name]
        else:
            self._awake.clear()
        if self._awake:
            self._wake([])
        else:
            self._rest()

    def _arm(self, namespace: str) -> bool:
        """Who asks before the bell is armed does not ring: what they ask is read after it."""
        ring = self._rings[namespace]
        return ring.bridge_sleep(True) and ring.sync_asked() == self._asked.get(namespace, 0)

    def _rest(self) -> None:
        """Until the bell rings, or for a while where no bell is to be trusted."""
        if self._deaf:
            self._timer.after(SLOW_US)
        else:
            self._timer.passed()

    def _heard(self) -> None:
        self._unheard = max(0, self._unheard - 1)
        self._deaf = self._deaf and self._unheard > 0

    def _not_heard(self) -> None:
        self._unheard = min(UNHEARD_MAX, self._unheard + UNHEARD_COST)
        if self._unheard == UNHEARD_MAX and not self._deaf:
            self._deaf = True
            self._warn(
                f"writes came without a ring of the doorbell (another IPC namespace?): "
                f"looking every {SLOW_US / 1000:g} ms as well"
            )
