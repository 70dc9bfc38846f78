"""Resolves names of hosts. A silent name server delays no other name.

    ask(name)   an asker (a thread of its own) calls getaddrinfo; at most ASKERS_MAX at a time
    in time     its answer, which is also kept as the last good one
    no answer   within DEADLINE_S: the last good answer, else OSError. The asker goes on, since getaddrinfo
                cannot be stopped; what it brings later is kept for the next question
    no name     the last good answer, else OSError

Fair between names: a name is asked for by one asker at a time. A name that was slow is asked for after those
that were not, and names that were slow never take more than half of the askers.

The threads are daemons: a process that ends does not wait for them. (The event loop's own getaddrinfo runs in
threads that its end waits for, 40 s and more.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable

DEADLINE_S = 2.0
ASKERS_MAX = 64
"""Threads that wait in getaddrinfo cost some 10 KB each, and a descriptor."""
ADDRESSES_MAX = 4
"""Of one name, which are tried in turn."""
KNOWN_MAX = 4096

Ask = Callable[[str], list[str]]


class Names:
    """Of one event loop. `ask(name)` blocks, in a thread; it raises OSError or UnicodeError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Ask | None = None) -> None:
        self._loop = loop
        self._ask: Ask = ask or look_up
        self._askers_max = min(ASKERS_MAX, max(2, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
        self._known: dict[str, list[str]] = {}
        """The last good answers."""
        self._slow: set[str] = set()
        """Names that did not answer within the deadline when they were last asked for."""
        self._waiting: dict[str, asyncio.Future[list[str]]] = {}
        """Names that wait to be asked for, in order."""
        self._asked: dict[str, asyncio.Future[list[str]]] = {}
        """An asker is at it."""
        self._stopped = False

    async def addresses(self, name: str) -> list[str]:
        """At most ADDRESSES_MAX. OSError: there are none, and there never were any."""
        if is_address(name):
            return [name]
        answer = self._asked.get(name) or self._waiting.get(name)
        if answer is None:
            answer = self._waiting[name] = self._loop.create_future()
            answer.add_done_callback(_seen)
            self._begin()
        try:
            return await asyncio.wait_for(asyncio.shield(answer), DEADLINE_S)
        except asyncio.TimeoutError:
            self._slow.add(name)
            if len(self._slow) > KNOWN_MAX:
                self._slow.clear()
            error: Exception = TimeoutError(f"no name server answers for {name!r} within {DEADLINE_S:g} s")
        except Exception as failed:  # OSError and UnicodeError, mostly
            error = failed
        if name in self._known:
            return self._known[name]
        raise OSError(str(error)) from error

    def stop(self) -> None:
        """Stop asking name servers."""
        self._stopped = True
        for answer in (*self._waiting.values(), *self._asked.values()):
            answer.cancel()
        self._waiting.clear()

    def _begin(self) -> None:
        """Start askers for the names that wait, as far as the bound allows."""
        while self._waiting and not self._stopped and len(self._asked) < self._askers_max:
            quick = next((name for name in self._waiting if name not in self._slow), None)
            if quick is None and len(self._asked.keys() & self._slow) >= self._askers_max // 2:
                return
            name = quick if quick is not None else next(iter(self._waiting))
            self._asked[name] = self._waiting.pop(name)
            try:
                threading.Thread(target=self._run, args=(name,), name="cachee-asker", daemon=True).start()
            except RuntimeError as error:  # no thread can be made
                self._answered(name, OSError(str(error)))

    def _run(self, name: str) -> None:
        """In a thread."""
        answer: list[str] | Exception
        try:
            answer = self._ask(name) or OSError("it has no address")
        except Exception as error:
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._answered, name, answer)

    def _answered(self, name: str, answer: list[str] | Exception) -> None:
        future = self._asked.pop(name)
        self._begin()
        if isinstance(answer, list):
            self._slow.discard(name)
            self._known.pop(name, None)
            self._known[name] = answer
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        if future.done():
            return
        if isinstance(answer, list):
            future.set_result(answer)
        else:
            future.set_exception(answer)


def look_up(name: str) -> list[str]:
    """By the rules of /etc/nsswitch.conf, and for as long as they take. OSError, UnicodeError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))[:ADDRESSES_MAX]


def look_up_all(names: Iterable[str], seconds: float) -> dict[str, list[str]]:
    """Without an event loop, all at once: what has an answer after so many seconds.

    A name for which no thread can be started has none.
    """
    found: dict[str, list[str]] = {name: [name] for name in names if is_address(name)}
    asked = [name for name in dict.fromkeys(names) if name not in found]

    def ask(name: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found[name] = look_up(name)

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in asked]
    end = time.monotonic() + seconds
    for thread in threads:
        with contextlib.suppress(RuntimeError):
            thread.start()
    for thread in (each for each in threads if each.ident is not None):
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def is_loopback(address: str) -> bool:
    """Of an address in figures."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def is_address(host: str) -> bool:
    """Whether `host` is in figures; a scope (fe80::1%eth0) may follow."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host.partition("%")[0])
            return True
    return False


def _seen(answer: asyncio.Future[list[str]]) -> None:
    """An answer that comes after its deadline is not an error."""
    if not answer.cancelled():
        answer.exception()
