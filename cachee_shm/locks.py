"""Locks by name between the processes of a host: ``cache.host.lock(name)``.

The core keeps them in the segment (``core/lock.h``): a lock is free again when its holder releases it, when
its holder's process ends for any reason, or when its ttl is over. The code here waits. A waiter holds
nothing, so an exception at any moment leaves nothing behind. Waiting uses the real clock, also where a test
has frozen the cache's.
"""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from cachee_shm import _core
from cachee_shm.errors import LockTimeout, SegmentError
from cachee_shm.waiting import await_while

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Lock"]

TAKEN, HELD, NO_ROOM, GONE = range(4)  # what Hold.take says

POLL_MIN_S = 0.0002
POLL_MAX_S = 0.01
WAIT_S_MAX = 1e9


class Lock:
    """One block under a lock of this host's processes: what ``cache.host.lock`` returns.

    Of all processes and threads of a host, at most one is in a block of the same name and namespace. Other
    hosts have locks of their own.
    """

    def __init__(
        self,
        segment: Segment,
        name: str | bytes,
        ttl: float | timedelta | None,
        wait: float | timedelta,
    ) -> None:
        self._segment = segment
        self._name = name
        self._ttl = ttl
        self._wait_s = _seconds(wait)
        self._hold = _core.Hold(segment, name, ttl)  # the last block's; this first one checks the arguments

    @property
    def fence(self) -> int:
        """The fencing number of the last acquisition: above that of every earlier one of any lock of the
        namespace on this host, also of a segment before this one. It fits 63 bits.

        Send it along with what the block writes, and let the store refuse a number below one that it has
        seen. Then it refuses the write of a holder whose lock has ended meanwhile and was taken by another.

        Raises ``RuntimeError`` before the first block.
        """
        fence = self._hold.fence
        if fence is None:
            raise RuntimeError(f"The lock {self._name!r} was not taken yet: it has no fencing number.")
        return fence

    def held(self) -> bool:
        """Does this block still hold the lock? False once its ttl is over, in a forked child, after
        ``release()``, and if the segment was removed, retired or closed."""
        return self._hold.held()

    def release(self) -> bool:
        """Give the lock back before the block ends. False: this block did not hold it any more (see
        ``held``). Another holder, if there is one, keeps it."""
        return self._hold.release()

    def __enter__(self) -> Lock:
        self._require_end()
        hold = _core.Hold(self._segment, self._name, self._ttl)
        try:
            waiting, pause = Waiting(self._segment, self._wait_s), POLL_MIN_S
            while (said := hold.take()) != TAKEN:
                left = waiting.left_s()
                if not left:
                    raise self._refused(hold, said)
                time.sleep(min(pause, left))
                pause = min(pause * 2, POLL_MAX_S)
            return self._entered(hold)
        except BaseException:
            hold.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hold.release()

    async def __aenter__(self) -> Lock:
        """As ``with``, for tasks of asyncio, uvloop and trio. No event loop is blocked."""
        self._require_end()
        hold = _core.Hold(self._segment, self._name, self._ttl)
        try:
            waiting = Waiting(self._segment, self._wait_s)
            while (said := hold.take()) != TAKEN:
                if not waiting.left_s():
                    raise self._refused(hold, said)
                await await_while(Looks(hold, waiting))
            return self._entered(hold)
        except BaseException:
            hold.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hold.release()

    def __repr__(self) -> str:
        return f"<Lock {self._name!r} {'held' if self.held() else 'not held'}>"

    def _require_end(self) -> None:
        """Otherwise the end of one block would release the lock of another."""
        if self._hold.open:
            raise RuntimeError(
                f"A block under this object of the lock {self._name!r} is open: around this one, or in "
                "another task or thread. Nothing was changed. Give each block an object of its own: "
                "cache.host.lock(name)."
            )

    def _entered(self, hold: _core.Hold) -> Lock:
        self._require_end()
        self._hold = hold
        return self

    def _refused(self, hold: _core.Hold, said: int) -> LockTimeout | SegmentError:
        waited = f"was waited for during {self._wait_s:g} s"
        if said == HELD:
            return LockTimeout(
                f"The lock {self._name!r} {waited}, and is held by {self._process(hold.holder)}. "
                "The block did not run. Try again later, or wait for longer than the holder needs."
            )
        if said == NO_ROOM:
            return SegmentError(
                f"The lock {self._name!r} {waited}, and there is no room for it: too many other locks are "
                "held. The block did not run. Hold fewer, or give the namespace more memory."
            )
        return SegmentError(
            f"The lock {self._name!r} cannot be reached: this host's segment is gone, and there is no new "
            "one yet. The block did not run. health() says why. Attaching is tried again each second."
        )

    def _process(self, slot: int) -> str:
        for of, pid, _, command, service, _ in self._segment.roster():
            if of == slot:
                return f"process {pid} ({service or command})"
        return "another process"


class Waiting:
    """The deadline of one waiter."""

    def __init__(self, segment: Segment, wait_s: float) -> None:
        self.segment = segment
        self.until_ms = segment._real_ms() + wait_s * 1000 if wait_s else 0.0

    def left_s(self) -> float:
        """0 once the time is over."""
        if not self.until_ms:
            return 0.0
        return max(self.until_ms - self.segment._real_ms(), 0.0) / 1000


class Looks:
    """Whether a waiter goes on waiting. The first call is always True: the waiter has just tried, so it
    pauses before it tries again."""

    def __init__(self, hold: _core.Hold, waiting: Waiting) -> None:
        self.hold = hold
        self.waiting = waiting
        self.looked = False

    def __call__(self) -> bool:
        looked, self.looked = self.looked, True
        return self.waiting.left_s() > 0 and not (looked and self.hold.free())


def _seconds(wait: float | timedelta) -> float:
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, (int, float)) and 0 <= seconds <= WAIT_S_MAX:
        return float(seconds)
    raise ValueError(
        f"wait is a number of seconds from 0 (one try) to 1e9, or a timedelta; not {wait!r}. "
        "Nothing was locked."
    )
