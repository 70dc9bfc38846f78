"""What the backends of all frameworks share: a cache that cannot be attached is one that misses.

A framework makes its backend as the application is imported, long before it is known whether the cache can be
had. So a backend attaches at its first use. Where that fails, whatever the reason, a wrong configuration
included, it is as with a segment that was removed under a worker: reads miss, the log says so once, the
health check fails, and it is tried again each second. What is written meanwhile is remembered, up to a bound
beyond which it is a ``clear()``, and announced before anything is read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from cachee_shm import transactions
from cachee_shm.attaching import kind_of_cache, spec_for
from cachee_shm.bypass import Bypass
from cachee_shm.cache import Cache
from cachee_shm.errors import ConfigError, NotACounter, NotLocal, SegmentError, Unserializable
from cachee_shm.health import Health
from cachee_shm.keys import WHOLE_BYTES_MAX, shortened
from cachee_shm.segment import EMBEDDED_NAMESPACE, NAMESPACE, Spec, embedded, private
from cachee_shm.service import service_name

if TYPE_CHECKING:
    from cachee_shm.config import Config

    Source = str | os.PathLike[str] | Mapping[str, Any] | Config | None

__all__ = [
    "Backing",
    "Misses",
    "changed",
    "count",
    "fitting",
    "lasting",
    "remaining_s",
    "seconds_of",
    "unpicklable",
]

PATIENCE_S = 1.0  # of a first use, which a request waits for
NAME_CHARACTERS = 64  # of a namespace whose name is none
MISSES_MAX = 64  # of one task
MISS_MS_MAX = 30_000  # a load takes less; a thread that handles request after request may have forgotten it
TRIES = 64
LASTING_S_MAX = 1e10  # three centuries


class Backing:
    """The cache of one backend: ``backing.cache`` is attached at its first use.

    However many threads use it first, one attachment is made. The others wait for it, a second at most.
    """

    cache: Cache

    def __init__(
        self,
        namespace: str | None = None,
        config: Source = None,
        attached: Cache | None = None,
        *,
        private: bool = False,
        service: str | None = None,
    ):
        """As of ``attach``; ``attached`` is a cache to use instead of one's own."""
        self._namespace, self._config, self._private, self._service = namespace, config, private, service
        self._owns = attached is None
        if attached is not None:
            self.cache = attached

    def __getattr__(self, name: str) -> Any:
        """``cache``, until it is a plain attribute."""
        if name != "cache":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        mine = First(kind_of_cache().unattached(self._placeholder(), self._found, PATIENCE_S))
        first: First = self.__dict__.setdefault("_first", mine)
        first.tried(first is mine)
        self.cache = first.cache
        if self.__dict__.get("_first") is not first:  # it was closed meanwhile
            self.__dict__.pop("cache", None)
        return first.cache

    def _found(self) -> Spec:
        """What the configuration says by now."""
        try:
            spec = spec_for(self._namespace, self._config, self._private)
        except (OSError, ImportError) as error:  # there may be no descriptor left for a file, or for pydantic
            raise ConfigError(f"The configuration cannot be read: {error}. Nothing was attached.") from error
        return spec._replace(service=service_name(self._service))

    def _placeholder(self) -> Spec:
        """It takes any value, as nothing is stored: whether the namespace has pickle is not known yet."""
        name = EMBEDDED_NAMESPACE if self._namespace is None else self._namespace
        is_name = isinstance(name, str) and NAMESPACE.fullmatch(name)
        shown = name if is_name else ascii(name)[:NAME_CHARACTERS]
        return private(embedded(None))._replace(namespace=shown, pickle=True)

    def health(self) -> Health:
        """``Cache.health``; not ``ok``, and why, while there is no segment."""
        return self.cache.health()

    def close(self) -> None:
        """Detach, if it was this backing that attached. A later use attaches again."""
        if not self._owns:
            return
        first: First | None = self.__dict__.pop("_first", None)
        self.__dict__.pop("cache", None)
        if first is not None:
            first.cache.close()


class First:
    """A cache on its way to its first segment."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._tried = threading.Event()

    def tried(self, is_mine: bool) -> None:
        """Try, or wait for the one who does. A forked child may wait in vain: it tries at its next verb."""
        if not is_mine:
            self._tried.wait(PATIENCE_S)
            return
        try:
            _ = self.cache.tail  # any verb looks for the segment
        finally:
            self._tried.set()


class Missed(NamedTuple):
    """That a key was not found, and where the ring was then."""

    cache: Cache
    scope: object
    token: int
    now_ms: int


class Misses:
    """For ``set_after_miss_fills``: the keys that this task, or thread, has missed last.

    The option turns a ``set`` into a fill if this task has asked for its key, has found nothing, and has done
    nothing else with the key since. That is safe only where nothing is written to the origin in between; see
    "A set after a miss" in examples/django. So a miss is forgotten when the task finds the key, or writes it,
    after MISS_MS_MAX, and when the request ends. A ``set`` without a miss is a write, which is always safe.
    """

    def __init__(self, scope: Callable[[], object] = lambda: None) -> None:
        """``scope()`` is the request that is being handled, where the framework tells."""
        self._scope = scope
        self._kept: ContextVar[dict[tuple[int, object], Missed]] = ContextVar("cachee_shm.misses")

    def remember(self, cache: Cache, key: object) -> None:
        """The task has not found ``key``. In a transaction that has written, what it sets then is a write."""
        if transactions.snapshot(cache) is False:
            self.forget(cache, (key,))
            return
        kept = {**self._kept.get({}), (id(cache), key): Missed(cache, self._scope(), *cache._token())}
        if len(kept) > MISSES_MAX:
            del kept[next(iter(kept))]
        self._kept.set(kept)

    def forget(self, cache: Cache, keys: Iterable[object]) -> None:
        """The task has found these keys, or has written them."""
        if kept := self._kept.get({}):
            gone = {(id(cache), key) for key in keys}
            self._kept.set({each: missed for each, missed in kept.items() if each not in gone})

    def forget_all(self) -> None:
        """The request has ended, or everything was cleared."""
        self._kept.set({})

    def taken(self, cache: Cache, key: object) -> tuple[int, int] | None:
        """The token for one fill of this key; None: this ``set`` is a write.

        The token is no newer than the snapshot of a transaction that was open at the miss.
        """
        missed = self._kept.get({}).get((id(cache), key))
        if missed is None:
            return None
        self.forget(cache, (key,))
        is_old = cache.now_ms() - missed.now_ms > MISS_MS_MAX
        if is_old or missed.cache is not cache or missed.scope is not self._scope():
            return None
        if transactions.snapshot(cache) is False:
            return None
        return missed.token, missed.now_ms


def fitting(key: str) -> str:
    """A key of any length as one that the cache takes: a long one is its beginning and a digest."""
    return key if len(key) <= WHOLE_BYTES_MAX // 4 else shortened(key)


def seconds_of(timeout: float | timedelta) -> float:
    """A number of seconds or a ``timedelta``, as seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def lasting(seconds: float) -> float | None:
    """A lifetime of any length as one that the cache takes: what no clock tells is for ever."""
    return seconds if seconds < LASTING_S_MAX else None


def unpicklable(error: Unserializable, cache: Cache) -> Unserializable:
    """The refusal of a value in a framework whose other backends pickle: it says what would take it."""
    if cache.spec.pickle:
        return error
    return Unserializable(
        f"{error}. The other backends of this framework pickle such a value: `pickle = true` in "
        f"[namespaces.{cache.namespace}] of the configuration does so here. Whoever may write the segment "
        "may then run code in the processes that read it."
    )


def count(
    cache: Cache, key: str, delta: int, initial: int | None, ttl: Any, tags: tuple[str, ...] = ()
) -> Any:
    """Add to the number of ``key`` on this host; ``initial`` is what a missing one counts as.

    Counts are of this host alone. An integer that was set for all hosts becomes one of this host's with its
    first count; it keeps its lifetime, and other hosts keep their copies. No count is lost. The sum of any
    other number is set for all hosts, and of two such sums at once one may be lost. Returns the sum.
    ``KeyError``: there is none, and no ``initial``. ``TypeError``: what is there is no number.
    """
    for _ in range(TRIES):
        try:
            total = cache._incr(key, delta, True)
        except NotACounter:
            value, found = cache.lookup(key)
            total = (value if found else 0) + delta
            cache.set(key, total, ttl=ttl, tags=tags)
        except SegmentError:  # this host has none at present: every count begins anew
            if not cache.detached:
                raise
            total = None
        if total is not None:
            return total
        if initial is None:
            raise KeyError(key)
        is_new = cache.add(key, initial + delta, ttl=ttl, tags=tags, local=True)
        if is_new or cache.detached or isinstance(cache, Bypass):
            return initial + delta
    raise NotACounter(f"There is no room for a counter of {key!r}. It was not counted.")


def changed(cache: Cache, key: str, change: Callable[[Any], tuple[Any, Any]], ttl: Any) -> Any:
    """Replace this host's value of ``key`` by what ``change`` makes of it: no concurrent change is lost.

    ``change`` gets the value, None where there is none, and returns the new value and a result. It runs
    again when another process was faster. Returns the result of its last run. Where the value cannot be
    stored, it is as if it had been evicted.
    """
    for _ in range(TRIES):
        try:
            value, token = cache.host.gets(key)
        except NotLocal:  # it was set for all hosts: from now on it is this host's
            new, result = change(cache.get(key))
            cache.set(key, new, ttl, local=True)
            return result
        except SegmentError:  # this host has none at present
            return change(None)[1]
        new, result = change(value)
        if cache.host.cas(key, new, token, ttl):
            break
    return result


def remaining_s(cache: Cache, key: str) -> float | None:
    """The seconds that are left to the value of ``key``; None: it never expires. KeyError: there is none."""
    state, _, ends_ms = cache._find_early(key, 0.0)
    if not state:
        raise KeyError(key)
    return max(0, ends_ms - cache.now_ms()) / 1000 if ends_ms else None
