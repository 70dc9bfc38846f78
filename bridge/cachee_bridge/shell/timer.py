"""A timer of microseconds as a descriptor, since uvloop's own timers count milliseconds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are defined as these

_libc = ctypes.CDLL(None, use_errno=True)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("first", _TimeSpec))


_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_TimerSpec), ctypes.c_void_p)


class Timer:
    """One shot at a time: readable when it has passed, and until the next one or `passed` is asked for."""

    def __init__(self) -> None:
        """OSError when the process has no descriptor left."""
        self._fd = int(_libc.timerfd_create(time.CLOCK_MONOTONIC, FLAGS))
        if self._fd < 0:
            raise _errno()
        self._specs: dict[int, _TimerSpec] = {}
        self._is_set = False

    def fileno(self) -> int:
        return self._fd

    def after(self, delay_us: int) -> None:
        """Passes once, `delay_us` (1 to 999,999) from now; a shot still under way is forgotten."""
        spec = self._specs.get(delay_us)
        if spec is None:
            spec = self._specs[delay_us] = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(0, delay_us * 1000))
        if _libc.timerfd_settime(self._fd, 0, spec, None) < 0:
            raise _errno()
        self._is_set = True

    def passed(self) -> None:
        """Makes the descriptor unreadable again, where no other shot follows."""
        if self._is_set:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)
                self._is_set = False

    def close(self) -> None:
        os.close(self._fd)


def _errno() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
