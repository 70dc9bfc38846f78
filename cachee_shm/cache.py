"""The cache: what ``cachee_shm.attach()`` returns.

``get``, ``set``, ``delete`` and the other hot verbs are methods of the C type and never enter Python; this
class adds what waits, loads or iterates.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from cachee_shm.errors import CacheeError, Closed, ConfigError, SegmentError
from cachee_shm.events import Events
from cachee_shm.filling import Filling
from cachee_shm.health import Health, health
from cachee_shm.host import Host
from cachee_shm.loading import DEFAULT_TTL, TTL, Options, Writing, aload, load
from cachee_shm.many import aload_many, judged
from cachee_shm.many import load_many as fetch_many
from cachee_shm.mistakes import refuse_unknown
from cachee_shm.segment import NO_FILE, Segment, warn
from cachee_shm.synced import await_synced, wait_synced
from cachee_shm.timeouts import Limits, aload_many_within, aload_within, load_many_within, load_within

if TYPE_CHECKING:
    from typing_extensions import Never, Self, TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")
    from cachee_shm.cached import AsyncCachedFunction, CachedFunction, Decorator, MakesKey
    from cachee_shm.segment import Spec

__all__ = ["Cache"]

P = ParamSpec("P")
K = TypeVar("K", bound=str | bytes)
T = TypeVar("T")

without_segment: weakref.WeakSet[Cache] = weakref.WeakSet()
"""Caches that may have something to announce in a segment that they have not got yet."""


@atexit.register
def _at_exit() -> None:
    """A last try for each: most processes end without close()."""
    for cache in list(without_segment):
        cache.close()


class Cache(Segment):
    """One namespace's cache on this host, shared by every process that attaches to it."""

    _follows = True
    _wanted: Callable[[], Spec] | None = None
    """Of a cache that was never attached: it says to what it is to be."""
    _patience_s = 0.0
    """Of its first try: how long that waits for another process that is making the segment."""

    @classmethod
    def unattached(cls, spec: Spec, find: Callable[[], Spec], patience_s: float) -> Self:
        """A cache whose first verb looks for its segment. Without one it misses; see ``_reattach``.

        ``find`` returns what to attach to, or raises ``ConfigError``: it is asked again at each try. Until it
        has returned something, the cache goes by ``spec``, of which nothing is attached. The first try alone
        waits, at most ``patience_s`` seconds. Raises ``MemoryError`` alone.
        """
        made = cls.__new__(cls)
        made._configure(spec)
        made._wanted, made._patience_s = find, patience_s
        made._attach_file(NO_FILE)
        return made

    def _reattach(self) -> None:
        """Called by the core when the segment was retired or removed, and again until there is another.

        While there is none, this is a cache that misses: what it writes is remembered, and announced first.
        """
        was_attached = self._wanted is None
        try:
            self._search()
        except Closed:
            raise
        except (ConfigError, SegmentError) as error:
            self._missed_segment(error)
        else:
            if was_attached and self.name:
                warn("segment %s was retired or removed; attached to its successor", self.name)
            elif self.detached_because:
                warn("namespace %s: attached at last", self.namespace)
            self.detached_because = ""
            without_segment.discard(self)

    def _search(self) -> None:
        if self._wanted is None:
            self._try_to_open()
            return
        patience_s, self._patience_s = self._patience_s, 0.0
        self._configure(self._wanted())
        self._open(patience_s)
        self._wanted = None

    def _missed_segment(self, error: CacheeError) -> None:
        if not self.detached_because:
            warn(
                "%s cannot be attached: reads miss and writes are announced later, until it can; it is "
                "tried each second: %s",
                f"segment {self.name}" if self.name else f"namespace {self.namespace}",
                error,
            )
        self.detached_because = str(error)
        without_segment.add(self)

    def _never_announced(self) -> None:
        """Called by the core when it is closed before it could announce what it wrote."""
        warn(
            "segment %s could not be attached before close(): what was written since is announced nowhere; "
            "run `cachee segment rm` for that namespace, which empties it: %s",
            self.name or f"of namespace {self.namespace}",
            self.detached_because,
        )

    def _open(self, patience_s: float | None = None) -> None:
        super()._open(patience_s)
        if self.spec.has_bridge and self._left():
            warn(
                "namespace %s: the bridge of this host has left the mesh, and none has come back. What is "
                "written now is heard by no other host, and they may serve what is older; it is announced "
                "first when a bridge runs again. Start it before the workers.",
                self.namespace,
            )

    def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        ttl: TTL = DEFAULT_TTL,
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        tags: Sequence[str] = (),
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        **unknown: Never,
    ) -> T:
        """The value of ``key``, or what ``loader(*args)`` returns, which is then cached.

        One caller of this host loads. The others wait for it, and load, one at a time, only if it fails or if
        its value is too old for them. A load that takes more than twice as long as the last one of its key is
        late (10 s if there was none; never less than 5 s): one waiter loads in its place. Nobody waits for
        more than twice that time: a caller then loads by itself, which ``stats()`` counts as ``waits_over``.
        A loader that asks for the key that it loads, also from a task or thread of its own, loads it at once.
        So does a loader that asks for a key whose load waits for its own (``waits_circular``), and one that
        waits for two other keys already.
        What was loaded before an invalidation is returned to those whose call began before it, but is never
        stored after it.

        ``ttl``: seconds, a timedelta, None for ever. ``stale``: seconds or a timedelta
        after the lifetime in which the old value may still be returned, while one caller reloads it or when
        the loader raises; never a value that was invalidated. ``on_error="raise"``: not when it raises.
        ``negative_ttl``: the lifetime of a None that was loaded.
        ``early``: True, or how eagerly (1 is usual): as the end of its lifetime comes near, one caller loads
        the value while the others still have it (XFetch; it needs ``early`` at the load before).
        ``jitter``: a share from 0 to 1; each lifetime is shortened by up to so much, so that what was
        loaded together does not end together; left out, it is the namespace's.
        ``sliding``: seconds or a timedelta that the value lives after its last use on this host, until
        ``ttl`` counted from its load has passed.
        ``soft_timeout``: seconds or a timedelta that a caller with an older value waits for the load; then it
        has that value. ``hard_timeout``: that any caller waits; then ``LoadTimeout``, or the older value. The
        load goes on in a thread (a task, of a coroutine function), and what it loads is cached.

        Raises what the loader raises, also to the callers of this process that waited for it. Raises
        ``InvalidKey``, ``KeyTooLong``, ``InvalidTTL`` and ``Closed`` before anything is loaded. A value that
        cannot be cached (no codec takes it, or it is too large) is returned with a ``RuntimeWarning``, once
        per type of value.
        """
        if unknown:
            refuse_unknown(Cache.get_or_load, unknown)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        if limits is not None:
            return load_within(self, key, options, limits, loader, args)
        return load(self, key, options, loader, args)

    async def aget_or_load(
        self,
        key: str | bytes,
        loader: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        ttl: TTL = DEFAULT_TTL,
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        tags: Sequence[str] = (),
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        **unknown: Never,
    ) -> T:
        """``get_or_load`` for a coroutine function of asyncio, uvloop or trio. No event loop is blocked."""
        if unknown:
            refuse_unknown(Cache.aget_or_load, unknown)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        if limits is not None:
            return await aload_within(self, key, options, limits, loader, args)
        return await aload(self, key, options, loader, args)

    def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K], Unpack[Ts]], Mapping[K, T]],
        *args: Unpack[Ts],
        ttl: TTL = DEFAULT_TTL,
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        tags: Sequence[str] = (),
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        **unknown: Never,
    ) -> dict[K, T | None]:
        """``get_or_load`` for many keys: a dict from each of ``keys`` to its value, in their order.

        ``load_many(missing, *args)`` is called once, with the list of the keys that are not there and that
        nobody else loads. It returns a mapping from key to value. A key that the mapping does not have is a
        loaded None: it is None in the result, and cached for ``negative_ttl``, or for ``ttl`` without one.
        What the mapping has beside the keys is not looked at.

            def load_users(keys):
                uids = {key: int(key.removeprefix("user:")) for key in keys}
                rows = select("... WHERE id = ANY(%s)", list(uids.values()))  # a dict by id
                return {key: rows[uid] for key, uid in uids.items() if uid in rows}

            users = cache.get_or_load_many(["user:1", "user:2"], load_users, ttl=60)

        Each key has a lease and a fill token of its own: a write in the middle of the load keeps that key
        alone from being stored. While the caller holds leases it waits for nobody: keys that other callers
        load are waited for after its own load, and what is still missing then (a loader failed or died) is
        loaded by a further call, which no other key delays beyond the time that ``get_or_load`` would wait.

        The options are those of ``get_or_load``, for all the keys. If the loader raises, so does this, unless
        each of the keys that it was called with has an older value that ``stale`` and ``on_error`` let
        through. ``soft_timeout`` is for calls of which every missing key has an older value.
        ``current_load()`` is a ``BatchLoad`` in the loader.

        Raises what ``get_or_load`` raises, ``InvalidKey`` also where ``keys`` is one str or names a key
        twice, and ``TypeError`` or ``ValueError`` for a loader that returns no mapping, or a mapping of other
        keys alone.
        """
        if unknown:
            refuse_unknown(Cache.get_or_load_many, unknown)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        asked = judged(self, keys)
        if limits is not None:
            return load_many_within(self, asked, options, limits, load_many, args)
        return fetch_many(self, asked, options, load_many, args)

    async def aget_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K], Unpack[Ts]], Awaitable[Mapping[K, T]]],
        *args: Unpack[Ts],
        ttl: TTL = DEFAULT_TTL,
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        tags: Sequence[str] = (),
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        **unknown: Never,
    ) -> dict[K, T | None]:
        """``get_or_load_many`` for a coroutine function of asyncio, uvloop or trio."""
        if unknown:
            refuse_unknown(Cache.aget_or_load_many, unknown)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        asked = judged(self, keys)
        if limits is not None:
            return await aload_many_within(self, asked, options, limits, load_many, args)
        return await aload_many(self, asked, options, load_many, args)

    @overload
    def cached(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncCachedFunction[P, T]: ...
    @overload
    def cached(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...
    @overload
    def cached(
        self,
        *,
        key: MakesKey | None = None,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        condition: Callable[[Any], object] | None = None,
    ) -> Decorator: ...
    def cached(  # type: ignore[misc]  # mypy does not follow the / of the third
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        key: MakesKey | None = None,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        local: bool = False,
        on_error: Literal["stale", "raise"] = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
        soft_timeout: float | timedelta | None = None,
        hard_timeout: float | timedelta | None = None,
        condition: Callable[[Any], object] | None = None,
        **unknown: Never,
    ) -> Any:
        """Decorate a function or coroutine function: its results are cached as by ``get_or_load``.

            @cache.cached(ttl=60, key="user:{uid}", tags=["team:{team}"])
            def profile(uid: int, team: int) -> dict: ...

            profile(7, 1)              # runs the function at most once a host and lifetime
            profile.invalidate(7, 1)   # on every host; so does cache.delete("user:7")
            profile.refresh(7, 1)      # runs it now
            profile.cache_info(), profile.cache_clear(), profile.key(7, 1), profile.__wrapped__

        ``key``: a template over the parameters (``keys.py`` says how arguments become text), or a function
        of the call's arguments that returns the key; left out, the function's name and all arguments. What a
        template leaves out does not count: calls that differ in it alone share a result. A method's key has
        to name ``self``: ``key="{self.id}:{page}"``. ``tags``: templates. ``condition``:
        called with each result; a false answer leaves it uncached. The other options are those of
        ``get_or_load``. Each result has a tag of the function too, by which ``cache_clear`` drops them all.

        Raises ``ValueError``, ``TypeError``, ``InvalidTTL`` when decorated, for what could never work.
        """
        if unknown:
            refuse_unknown(Cache.cached, unknown)
        from cachee_shm.cached import Kept, decorator  # brings inspect along

        loads = (on_error, early, jitter, sliding, soft_timeout, hard_timeout)
        kept = Kept(ttl, stale, negative_ttl, local, *loads)
        decorate = decorator(
            self,
            key,
            tags,
            kept,
            condition,
        )
        return decorate if function is None else decorate(function)

    def writing(self, key: str | bytes) -> Writing:
        """A block that writes the origin and then the cache; see ``Writing``.

        ``with cache.writing(key) as w`` takes the key's intent as it is entered: ``InvalidKey``,
        ``KeyTooLong`` and ``Closed`` come before the origin is written. ``async with`` works alike.
        """
        return Writing(self, key)

    def filling(self) -> Filling:
        """The right to store, fenced and unannounced, what is read from the origin from now on: ``Filling``.

        Raises ``Closed``, and what attaching raises when the segment was replaced meanwhile.
        """
        return Filling(self)

    def events(self, keys: Iterable[str | bytes] | None = None) -> Events:
        """What is written from now on, here and on every peer; of these keys only, if given: ``Events``."""
        return Events(self, keys)

    def wait_synced(self, timeout: float = 1.0) -> bool:
        """Whether every peer that can be reached has applied what this process wrote before the call.

        Waits for it, at most ``timeout`` seconds; 0 looks once. Read from the segment, where the bridge keeps
        what peers tell it. A peer that was not heard for ``lost_after`` holds nobody up: ``health()`` names
        it. True at once without a ``[bridge]``; False, when the time is over, with one that is dead, hung or
        not started.

        Raises ``Closed``, and what attaching raises when the segment was replaced meanwhile.
        """
        return wait_synced(self, timeout)

    async def await_synced(self, timeout: float = 1.0) -> bool:
        """``wait_synced``, without blocking the event loop."""
        return await await_synced(self, timeout)

    def health(self) -> Health:
        """How the segment, the bridge and the peers fare, for people and probes: ``Health``.

        Raises ``Closed`` alone: whatever else is wrong is in the answer.
        """
        return health(self)

    @property
    def host(self) -> Host:
        """The keys of this host alone: ``cache.host.incr("hits", initial=0)``; see ``Host``."""
        return Host(self)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
