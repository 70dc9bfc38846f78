"""The bridge's log, which never makes the event loop wait.

    the loop     log.info(...)  ->  Lines.emit: the line is formatted and put into a bounded queue
    a thread     takes lines from the queue and writes them to the descriptor; it waits there for as long as
                 whoever reads the descriptor does (a full pipe, a log driver that stands still)

A line is dropped when the queue is full, when lines come faster than LINES_PER_S after a burst of
LINES_BURST, or when the write fails (the reader has died). Dropped lines are counted. The next line that is
written says how many were dropped before it.

The thread is a daemon: a process that ends does not wait for it for longer than CLOSE_S.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

LINES_MAX = 1000
"""Lines that wait to be written: at most 1000 characters each (shell.py), so about 1 MB."""
LINES_BURST = 1000
LINES_PER_S = 5.0
"""The rate after a burst: at most 20 to 50 MB a day, whatever peers cause."""
CLOSE_S = 0.5
MISTAKE_S = 60.0
"""How often the traceback of one kind of mistake is written."""
KINDS_MAX = 256

log = logging.getLogger("cachee_bridge")


class Lines(logging.Handler):
    """Writes to `descriptor` from a thread of its own, which begins with the first line."""

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._descriptor, self._clock = descriptor, clock
        self._queue: deque[str] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._allowed, self._at = float(LINES_BURST), clock()
        self._ends = False
        self.dropped = 0
        """Lines that were dropped, and that the log has not reported yet."""

    def emit(self, record: logging.LogRecord) -> None:
        """Does not wait and does not raise."""
        try:
            line = self.format(record)
        except Exception:  # the arguments do not fit the text, or cannot be printed
            line = f"a line that cannot be formatted: {record.msg!r}"
        with self._changed:
            if len(self._queue) >= LINES_MAX or not self._allows():
                self.dropped += 1
                return
            self._tell_dropped()
            self._queue.append(line)
            if self._thread is None:
                self._begin()
            self._changed.notify()

    def close(self) -> None:
        """Waits for what is queued, for at most CLOSE_S. Without a thread, it writes that by itself."""
        with self._changed:
            self._ends = True
            self._tell_dropped()
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)
        elif thread is None:
            self._write_at_once()
        super().close()

    def _allows(self) -> bool:
        now = self._clock()
        self._allowed = min(float(LINES_BURST), self._allowed + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="cachee-log", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be made: the next line tries again
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while (lines := self._take()) is not None:
            if not self._write("".join(f"{line}\n" for line in lines).encode(errors="replace")):
                with self._changed:
                    self.dropped += len(lines)

    def _take(self) -> list[str] | None:
        """All that wait, None once there are none and none follow."""
        with self._changed:
            while not self._queue and not self._ends:
                self._changed.wait()
            if not self._queue:
                return None
            lines = [*self._queue]
            self._queue.clear()
            return lines

    def _write_at_once(self) -> None:
        """As much of what is queued as the descriptor takes now: its reader may stand still."""
        data = "".join(f"{line}\n" for line in self._queue).encode(errors="replace")
        self._queue.clear()
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        for at in range(0, len(data), select.PIPE_BUF):
            if not room.poll(0) or not self._write(data[at : at + select.PIPE_BUF]):
                return

    def _tell_dropped(self) -> None:
        if self.dropped:
            text = f"{self.dropped} lines of this log were dropped"
            told = logging.LogRecord(log.name, logging.WARNING, __file__, 0, text, (), None)
            self._queue.append(self.format(told))
            self.dropped = 0

    def _write(self, data: bytes) -> bool:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BlockingIOError:  # somebody has made the descriptor non-blocking, for all who share it
            time.sleep(0.05)
            return False
        except OSError:
            return False
        return True


class Mistakes:
    """Tracebacks of unexpected exceptions: one a minute of each kind, with their number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def tell(self, what: str, error: BaseException) -> None:
        """`what` was not done, because of `error`."""
        kind = f"{what}: {type(error).__name__}"
        now = self._clock()
        said_at, times = self._seen.get(kind, (float("-inf"), 0))
        if now < said_at + MISTAKE_S:
            self._seen[kind] = said_at, times + 1
            return
        if len(self._seen) >= KINDS_MAX:
            self._seen.clear()
        self._seen[kind] = now, 0
        again = f" ({times} times more since this was last said)" if times else ""
        if isinstance(error, OSError | MemoryError):  # the machine's affair: no line of ours is at fault
            log.warning("%s: %s%s", what, error or "out of memory", again)
        else:
            log.error("%s: a mistake in the bridge%s", what, again, exc_info=error)
