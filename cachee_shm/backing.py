"""What the backends of all frameworks share: if the cache cannot be attached, every read misses.

A framework makes its backend while the application is imported. So a backend attaches at its first use. If
that fails, for whatever reason (a wrong configuration too), the backend behaves as if the segment had been
removed under a worker: reads miss, the log says so once, the health check fails, and attaching is tried again
each second. Writes are remembered meanwhile, and announced before anything is read; beyond a bound, a
``clear()`` is announced instead.

Frameworks make many backends: one for each cached task, decorated function or middleware. Backends of the
same namespace and configuration share one attachment, and so one slot of the roster and one near cache:

    Backing ──┐
    Backing ──┼─▶ First ─▶ Cache        in ATTACHED, by what the backings ask for, while any of them lives
    Backing ──┘

The last one that is closed detaches. ``cachee_shm.attach()`` always makes an attachment of its own, and so
does a private segment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

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

PATIENCE_S = 1.0  # of the first use, because a request waits for it
NAME_CHARACTERS = 64  # of an invalid name of a namespace
MISSES_MAX = 64  # of one task
MISS_MS_MAX = 30_000  # longer than a load takes, so that a thread does not carry a miss into a later request
TRIES = 64
LASTING_S_MAX = 1e10  # three centuries


class Wanted(NamedTuple):
    """What a backend asks for, as of ``attach``."""

    namespace: str | None
    config: Source
    private: bool
    service: str | None

    def key(self) -> tuple[object, ...] | None:
        """Equal for all backends that may share an attachment; None: not shared. The environment is part of
        it, because it may name another file by the time of the first use, or disable the cache."""
        config: object = self.config
        if config is None:
            config = os.environ.get("CACHEE_CONFIG")
        if isinstance(config, str | os.PathLike):
            config = os.path.abspath(config)
        elif config is not None:
            config = type(config), repr(config)
        shown = repr(self.namespace), config, self.service, kind_of_cache()
        return None if self.private else shown

    def found(self) -> Spec:
        """What the configuration says now."""
        try:
            spec = spec_for(self.namespace, self.config, self.private)
        except (OSError, ImportError) as error:  # there may be no descriptor left for a file, or for pydantic
            raise ConfigError(f"The configuration cannot be read: {error}. Nothing was attached.") from error
        return spec._replace(service=service_name(self.service))

    def placeholder(self) -> Spec:
        """Used before the configuration is known. It accepts any value, because nothing is stored anyway."""
        name = EMBEDDED_NAMESPACE if self.namespace is None else self.namespace
        is_name = isinstance(name, str) and NAMESPACE.fullmatch(name)
        shown = name if is_name else ascii(name)[:NAME_CHARACTERS]
        return private(embedded(None))._replace(namespace=shown, pickle=True)


class Backing:
    """The cache of one backend: ``backing.cache`` is attached at its first use.

    Even if many threads and many backings use it for the first time at once, one attachment is made. The
    others wait for it, a second at most.
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
        self._wanted = Wanted(namespace, config, private, service)
        self._owns = attached is None
        if attached is not None:
            self.cache = attached

    def __getattr__(self, name: str) -> Any:
        """``cache``, until it is a plain attribute."""
        if name != "cache":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        first, is_mine = self._joined()
        first.tried(is_mine)
        self.cache = first.cache
        if self.__dict__.get("_first") is not first:  # it was closed meanwhile
            self.__dict__.pop("cache", None)
        return first.cache

    def _joined(self) -> tuple[First, bool]:
        """The attachment that this backing shares, and whether it is new."""
        with sharing:
            first: First | None = self.__dict__.get("_first")
            if first is not None:  # of another thread of this backing
                return first, False
            key = self._wanted.key()
            first = ATTACHED.get(key)
            is_new = first is None or first.cache.closed
            if first is None or is_new:
                cache = kind_of_cache().unattached(self._wanted.placeholder(), self._wanted.found, PATIENCE_S)
                first = First(key, cache)
                if key is not None:
                    ATTACHED[key] = first
            first.users.add(self)
            self._first = first
            return first, is_new

    def health(self) -> Health:
        """``Cache.health``; not ``ok``, and why, while there is no segment."""
        return self.cache.health()

    def close(self) -> None:
        """Detach, unless another backing uses the same attachment. A later use attaches again."""
        if not self._owns:
            return
        with sharing:
            first: First | None = self.__dict__.pop("_first", None)
            self.__dict__.pop("cache", None)
            if first is None or first.is_used_without(self):
                return
            if ATTACHED.get(first.key) is first:
                del ATTACHED[first.key]
        first.cache.close()


class First:
    """A cache on its way to its first segment, and from then on."""

    def __init__(self, key: tuple[object, ...] | None, cache: Cache) -> None:
        self.key, self.cache = key, cache
        self.users: WeakSet[Backing] = WeakSet()
        """Those that have asked for it and were not closed since."""
        self._tried = threading.Event()

    def is_used_without(self, backing: Backing) -> bool:
        """Remove ``backing`` from the users. Returns whether another one is left."""
        self.users.discard(backing)
        return len(self.users) > 0

    def tried(self, is_mine: bool) -> None:
        """Try to attach, or wait for the thread that does. A forked child may wait in vain; then it tries at
        its next verb."""
        if not is_mine:
            self._tried.wait(PATIENCE_S)
            return
        try:
            _ = self.cache.tail  # any verb looks for the segment
        finally:
            self._tried.set()


ATTACHED: WeakValueDictionary[tuple[object, ...] | None, First] = WeakValueDictionary()
"""The attachments that the backings of this process share. A forked child inherits them: its caches attach
again."""
sharing = threading.RLock()  # re-entrant, because a finalizer that runs while it is held may close a backing


def _in_child() -> None:
    """Make a new lock: another thread of the parent may have held the old one."""
    global sharing
    sharing = threading.RLock()


os.register_at_fork(after_in_child=_in_child)


class Missed(NamedTuple):
    """A key that was not found, and the position of the ring at that time."""

    cache: Cache
    scope: object
    token: int
    now_ms: int


class Misses:
    """For ``set_after_miss_fills``: the last keys that this task, or thread, has not found.

    The option turns a ``set`` into a fill if this task has asked for its key, has found nothing, and has done
    nothing else with the key since. That is safe only where nothing is written to the origin in between; see
    "A set after a miss" in examples/django. So a miss is forgotten when the task finds the key, or writes it,
    after MISS_MS_MAX, and when the request ends. A ``set`` without a miss is a write, which is always safe.
    """

    def __init__(self, scope: Callable[[], object] = lambda: None) -> None:
        """``scope()`` returns the request that is being handled, if the framework knows it."""
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

    def looked(self, cache: Cache, key: object, found: bool) -> None:
        """The task has looked for ``key``."""
        if found:
            self.forget(cache, (key,))
        else:
            self.remember(cache, key)

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
    """Shorten a key to a length that the cache accepts: a long one becomes its beginning and a digest."""
    return key if len(key) <= WHOLE_BYTES_MAX // 4 else shortened(key)


def seconds_of(timeout: float | timedelta) -> float:
    """A number of seconds or a ``timedelta``, as seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def lasting(seconds: float) -> float | None:
    """Convert a lifetime to one that the cache accepts: centuries become None (never expires)."""
    return seconds if seconds < LASTING_S_MAX else None


def unpicklable(error: Unserializable, cache: Cache) -> Unserializable:
    """The error for a value in a framework whose other backends pickle: it says which setting would allow
    it."""
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
    ``KeyError``: there is no value and no ``initial``. ``TypeError``: the value is not a number.
    """
    for _ in range(TRIES):
        try:
            total = cache._incr(key, delta, True)
        except NotACounter:
            value, found = cache.lookup(key)
            total = (value if found else 0) + delta
            cache.set(key, total, ttl=ttl, tags=tags)
        except SegmentError:  # this host has no segment at present: every count begins again
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
    """Replace this host's value of ``key`` by the result of ``change``; no concurrent change is lost.

    ``change`` gets the value, None where there is none, and returns the new value and a result. It runs
    again when another process was faster. Returns the result of its last run. If the value cannot be stored,
    that counts as an eviction.
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
