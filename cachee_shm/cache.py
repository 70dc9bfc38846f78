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
from cachee_shm.mistakes import refuse_loader, refuse_unknown
from cachee_shm.origins import Kept, Origin, Origins, aload_one, aload_several, load_one, load_several, made
from cachee_shm.segment import NO_FILE, Segment, warn
from cachee_shm.synced import await_synced, wait_synced
from cachee_shm.timeouts import Limits, aload_many_within, aload_within, load_many_within, load_within

if TYPE_CHECKING:
    from typing_extensions import Never, Self, TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")
    from cachee_shm._core import Write
    from cachee_shm.cached import AsyncCachedFunction, CachedFunction, Decorator, MakesKey
    from cachee_shm.explain import Explanation
    from cachee_shm.origins import LoadOptions
    from cachee_shm.segment import Spec

__all__ = ["Cache"]

P = ParamSpec("P")
K = TypeVar("K", bound=str | bytes)
T = TypeVar("T")

without_segment: weakref.WeakSet[Cache] = weakref.WeakSet()
"""Caches without a segment: they may have writes to announce as soon as they have one."""


@atexit.register
def _at_exit() -> None:
    """Make a last attempt to attach and announce: most processes end without close()."""
    for cache in list(without_segment):
        cache.close()


class Cache(Segment):
    """One namespace's cache on this host, shared by every process that attaches to it."""

    _follows = True
    _wanted: Callable[[], Spec] | None = None
    """For a cache that was never attached: returns the Spec of what to attach to."""
    _patience_s = 0.0
    """How long the first attempt waits for another process that is making the segment."""
    _origins: Origins | None = None

    @classmethod
    def unattached(cls, spec: Spec, find: Callable[[], Spec], patience_s: float) -> Self:
        """A cache whose first verb attaches to its segment. Without a segment its reads miss; see
        ``_reattach``.

        ``find`` returns what to attach to, or raises ``ConfigError``. It is called again at each attempt.
        Until it has returned something, the cache uses the settings of ``spec``. Only the first attempt
        waits, at most ``patience_s`` seconds. Raises only ``MemoryError``.
        """
        made = cls.__new__(cls)
        made._configure(spec)
        made._wanted, made._patience_s = find, patience_s
        made._attach_file(NO_FILE)
        return made

    def _reattach(self) -> None:
        """Called by the core when the segment was retired or removed, and again until another one is
        attached.

        Without a segment every read misses. Writes are remembered, and announced as soon as there is one.
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
                "%s cannot be attached: until it can, reads miss and writes are announced later; it is "
                "tried each second: %s",
                f"segment {self.name}" if self.name else f"namespace {self.namespace}",
                error,
            )
        self.detached_because = str(error)
        without_segment.add(self)

    def _never_announced(self) -> None:
        """Called by the core when the cache is closed before it could announce its writes."""
        warn(
            "segment %s could not be attached before close(), so no host is told what this process wrote; "
            "run `cachee segment rm` for that namespace, which empties it: %s",
            self.name or f"of namespace {self.namespace}",
            self.detached_because,
        )

    def _open(self, patience_s: float | None = None) -> None:
        super()._open(patience_s)
        if self.spec.has_bridge and self._left():
            warn(
                "namespace %s: the bridge of this host has left the mesh, and no bridge is running now. "
                "Other hosts do not hear what is written here, and may serve older values; it is announced "
                "first when a bridge runs again. Start the bridge before the workers.",
                self.namespace,
            )

    @overload
    def get_or_load(
        self,
        key: str | bytes,
        loader: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        **options: Unpack[LoadOptions],
    ) -> T: ...
    @overload
    def get_or_load(self, key: str | bytes, **options: Unpack[LoadOptions]) -> Any: ...
    def get_or_load(  # type: ignore[misc]  # mypy does not match a TypedDict with keywords
        self,
        key: str | bytes,
        loader: Callable[..., Any] | None = None,
        *args: Any,
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
    ) -> Any:
        """The value of ``key``, or what ``loader(*args)`` returns, which is then cached.

        Without a loader, the key's origin loads: see ``origin``.
        One caller of this host loads. The others wait for its value. They load themselves, one at a time,
        only if the load fails or if its value is too old for them. A load that takes more than twice as long
        as the last one of its key is late (10 s if there was none; never less than 5 s): then one waiter
        loads as well. No caller waits for more than twice that time: it then loads by itself, which
        ``stats()`` counts as ``waits_over``. A loader that asks for its own key, also from a task or thread
        that it started, loads it at once. So does a loader that asks for a key whose load waits for its own
        (``waits_circular``), and one that already waits for two other keys.

        A value that was loaded before an invalidation is returned to callers that called before the
        invalidation, but is never stored after it.

        ``ttl``: seconds, a timedelta, or None: the value never expires.
        ``stale``: for how long after its lifetime (seconds or a timedelta) the old value may still be
        returned, while one caller reloads it or when the loader raises; an invalidated value is never
        returned. ``on_error="raise"``: do not return the old value when the loader raises.
        ``negative_ttl``: the lifetime of a loaded None.
        ``early``: True, or a number for how early (1 is usual): shortly before the lifetime ends, one caller
        reloads the value while the others still get the old one (XFetch; the load before must have had
        ``early`` too).
        ``jitter``: a share from 0 to 1. Each lifetime is shortened by a random part of up to this share, so
        that values that were loaded together do not expire together. By default the namespace's.
        ``sliding``: seconds or a timedelta that the value lives after its last use on this host, until
        ``ttl`` counted from its load has passed.
        ``soft_timeout``: how long (seconds or a timedelta) a caller waits for the load if there is an older
        value; then it gets the older value.
        ``hard_timeout``: how long any caller waits; then it gets the older value, or ``LoadTimeout``. The
        load goes on in a thread (for a coroutine function, in a task), and its value is cached.

        Raises what the loader raises, also in the callers of this process that waited for it. Raises
        ``InvalidKey``, ``KeyTooLong``, ``InvalidTTL`` and ``Closed`` before anything is loaded. A value that
        cannot be cached (no codec takes it, or it is too large) is returned with a ``RuntimeWarning``, once
        per type of value.
        """
        if unknown:
            refuse_unknown(Cache.get_or_load, unknown)
        if loader is None:
            later = (early, jitter, sliding, soft_timeout, hard_timeout)
            said = Kept(ttl, stale, negative_ttl, tags, local, on_error, *later)
            return load_one(self, key, args, said)
        if not callable(loader):
            refuse_loader(Cache.get_or_load, loader)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        if limits is not None:
            return load_within(self, key, options, limits, loader, args)
        return load(self, key, options, loader, args)

    @overload
    async def aget_or_load(
        self,
        key: str | bytes,
        loader: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        **options: Unpack[LoadOptions],
    ) -> T: ...
    @overload
    async def aget_or_load(self, key: str | bytes, **options: Unpack[LoadOptions]) -> Any: ...
    async def aget_or_load(  # type: ignore[misc]  # mypy does not match a TypedDict with keywords
        self,
        key: str | bytes,
        loader: Callable[..., Any] | None = None,
        *args: Any,
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
    ) -> Any:
        """``get_or_load`` for a coroutine function of asyncio, uvloop or trio. No event loop is blocked."""
        if unknown:
            refuse_unknown(Cache.aget_or_load, unknown)
        if loader is None:
            later = (early, jitter, sliding, soft_timeout, hard_timeout)
            said = Kept(ttl, stale, negative_ttl, tags, local, on_error, *later)
            return await aload_one(self, key, args, said)
        if not callable(loader):
            refuse_loader(Cache.aget_or_load, loader)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        if limits is not None:
            return await aload_within(self, key, options, limits, loader, args)
        return await aload(self, key, options, loader, args)

    @overload
    def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K], Unpack[Ts]], Mapping[K, T]],
        *args: Unpack[Ts],
        **options: Unpack[LoadOptions],
    ) -> dict[K, T | None]: ...
    @overload
    def get_or_load_many(self, keys: Iterable[K], **options: Unpack[LoadOptions]) -> dict[K, Any]: ...
    def get_or_load_many(  # type: ignore[misc]  # mypy does not match a TypedDict with keywords
        self,
        keys: Iterable[K],
        load_many: Callable[..., Any] | None = None,
        *args: Any,
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
    ) -> Any:
        """``get_or_load`` for many keys: a dict from each of ``keys`` to its value, in their order.

        ``load_many(missing, *args)`` is called once, with the list of the keys that are not cached and that
        no other caller loads. It returns a mapping from key to value. A key that the mapping does not have
        counts as a loaded None: it is None in the result, and cached for ``negative_ttl``, or else for
        ``ttl``. Other keys in the mapping are ignored.

            def load_users(keys):
                uids = {key: int(key.removeprefix("user:")) for key in keys}
                rows = select("... WHERE id = ANY(%s)", list(uids.values()))  # a dict by id
                return {key: rows[uid] for key, uid in uids.items() if uid in rows}

            users = cache.get_or_load_many(["user:1", "user:2"], load_users, ttl=60)

        Each key has its own lease and fill token: if a key is written during the load, only that key is not
        stored. While the caller holds leases it does not wait for other loads. It waits for keys that other
        callers load after its own load, and loads what is still missing then (a loader failed or died) by a
        further call. It waits no longer than ``get_or_load`` would.

        The options are those of ``get_or_load``, for all keys. If the loader raises, so does this, unless
        every key that it was called with has an older value that ``stale`` and ``on_error`` allow.
        ``soft_timeout`` applies only if every missing key has an older value. ``current_load()`` is a
        ``BatchLoad`` in the loader.

        Raises what ``get_or_load`` raises, ``InvalidKey`` also where ``keys`` is one str or names a key
        twice, and ``TypeError`` or ``ValueError`` for a loader that returns no mapping, or a mapping of other
        keys alone.
        """
        if unknown:
            refuse_unknown(Cache.get_or_load_many, unknown)
        if load_many is None:
            later = (early, jitter, sliding, soft_timeout, hard_timeout)
            said = Kept(ttl, stale, negative_ttl, tags, local, on_error, *later)
            return load_several(self, keys, args, said)
        if not callable(load_many):
            refuse_loader(Cache.get_or_load_many, load_many)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        asked = judged(self, keys)
        if limits is not None:
            return load_many_within(self, asked, options, limits, load_many, args)
        return fetch_many(self, asked, options, load_many, args)

    @overload
    async def aget_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K], Unpack[Ts]], Awaitable[Mapping[K, T]]],
        *args: Unpack[Ts],
        **options: Unpack[LoadOptions],
    ) -> dict[K, T | None]: ...
    @overload
    async def aget_or_load_many(self, keys: Iterable[K], **options: Unpack[LoadOptions]) -> dict[K, Any]: ...
    async def aget_or_load_many(  # type: ignore[misc]  # mypy does not match a TypedDict with keywords
        self,
        keys: Iterable[K],
        load_many: Callable[..., Any] | None = None,
        *args: Any,
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
    ) -> Any:
        """``get_or_load_many`` for a coroutine function of asyncio, uvloop or trio."""
        if unknown:
            refuse_unknown(Cache.aget_or_load_many, unknown)
        if load_many is None:
            later = (early, jitter, sliding, soft_timeout, hard_timeout)
            said = Kept(ttl, stale, negative_ttl, tags, local, on_error, *later)
            return await aload_several(self, keys, args, said)
        if not callable(load_many):
            refuse_loader(Cache.aget_or_load_many, load_many)
        options = Options(self, ttl, stale, negative_ttl, tags, local, on_error, early, jitter, sliding)
        limits = Limits.judged(soft_timeout, hard_timeout)
        asked = judged(self, keys)
        if limits is not None:
            return await aload_many_within(self, asked, options, limits, load_many, args)
        return await aload_many(self, asked, options, load_many, args)

    def origin(
        self,
        prefix: str,
        functions: object = None,
        *,
        load: Callable[[Any], Any] | None = None,
        load_many: Callable[[list[Any]], Any] | None = None,
        store: Callable[[Any, Any], Any] | None = None,
        missing: Literal["negative", "error"] = "negative",
        retries: int = 0,
        backoff: float | timedelta = 0.05,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
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
    ) -> None:
        """Register the functions that load and store the keys that begin with ``prefix``, for this cache
        object.

            cache.origin("user:", load=load_user, load_many=load_users, store=save_user, ttl=60, stale=300)

            cache.get_or_load("user:42")                 # load_user("user:42"): no loader is given here
            cache.get_or_load_many(["user:1", "user:2"]) # load_users(["user:1", "user:2"])
            with cache.writing("user:42") as w:
                w.store(user)                            # save_user("user:42", user); then it is cached

        The longest registered prefix of a key is its origin. ``get``, ``set``, ``in`` and ``[]`` never call
        one. ``functions``: an object with methods of these names, instead of the three keywords. Either all
        are plain functions, for ``get_or_load``, or all are coroutine functions, for ``aget_or_load``.

        ``load(key)`` returns the value. ``load_many(keys)`` returns a mapping from key to value, at most 500
        keys a call; misses of several threads or tasks of this process within a millisecond share one call,
        and ``current_load()`` is a ``BatchLoad`` there. A key that the mapping leaves out counts as a loaded
        None (with ``missing="error"``, callers that asked for it get a ``KeyError``). ``store(key, value)``
        writes the origin and commits. Its return value is cached, or ``value`` if it returns None.
        ``retries``: how often a load that raised ``retry_on`` is repeated, at most 10 times. The pause before
        a retry is random, up to ``backoff`` seconds, doubled each time, 5 s at most. All keys of the origin
        share a budget: while most loads fail, failed loads are not repeated.
        The other options are those of ``get_or_load``; a call that leaves one at its default gets this one.

        Raises ``ValueError`` for a prefix that is registered already, ``InvalidKey`` for one that is no str
        of at least one character, ``TypeError`` and ``ValueError`` for other mistakes. Nothing is registered
        then. ``get_or_load(key)`` raises ``NoOrigin`` for a key of no registered prefix.
        """
        if unknown:
            refuse_unknown(Cache.origin, unknown)
        later = (early, jitter, sliding, soft_timeout, hard_timeout)
        kept = Kept(ttl, stale, negative_ttl, tags, local, on_error, *later)
        kept.judged(self)
        origin = made(prefix, functions, load, load_many, store, kept, missing, retries, backoff, retry_on)
        if self._origins is None:
            self._origins = Origins()
        self._origins.add(origin)

    def _origin_of(self, key: Any) -> Origin:
        return (self._origins or Origins()).of(key)

    def _store_through(self, write: Write, key: Any, value: Any, ttl: TTL, tags: Any) -> Any:
        """Called by the core: ``w.store(value)`` in a ``writing`` block."""
        return self._origin_of(key).stored(write, key, value, ttl, tags)

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
        of the call's arguments that returns the key; left out, the function's name and all arguments. Calls
        that differ only in parameters that the template leaves out share a result. A method's key must name
        ``self``: ``key="{self.id}:{page}"``. ``@classmethod`` stands below this decorator (before Python 3.13
        also above), ``@staticmethod`` and ``@property`` stand above. ``tags``: templates. ``condition``:
        called with each result; a false answer leaves it uncached. The other options are those of
        ``get_or_load``. Each result has a tag of the function too, by which ``cache_clear`` drops them all.

        Raises ``ValueError``, ``TypeError``, ``InvalidTTL`` when decorating, for options that could never
        work.
        """
        if unknown:
            refuse_unknown(Cache.cached, unknown)
        from cachee_shm.cached import decorator  # brings inspect along

        later = (early, jitter, sliding, soft_timeout, hard_timeout)
        kept = Kept(ttl, stale, negative_ttl, (), local, on_error, *later)  # no tags: these are templates
        decorate = decorator(self, key, tags, kept, condition)
        return decorate if function is None else decorate(function)

    def writing(self, key: str | bytes) -> Writing:
        """A block that writes the origin and then the cache; see ``Writing``.

        ``with cache.writing(key) as w`` takes the key's intent as it is entered: ``InvalidKey``,
        ``KeyTooLong`` and ``Closed`` come before the origin is written. ``async with`` works alike.
        """
        return Writing(self, key)

    def filling(self) -> Filling:
        """The right to store what is read from the origin from now on, as a fill (fenced, not announced):
        ``Filling``.

        Raises ``Closed``, and what attaching raises when the segment was replaced meanwhile.
        """
        return Filling(self)

    def events(self, keys: Iterable[str | bytes] | None = None) -> Events:
        """What is written from now on, here and on every peer; of these keys only, if given: ``Events``."""
        return Events(self, keys)

    def wait_synced(self, timeout: float | timedelta = 1.0) -> bool:
        """Whether every peer that can be reached has applied what this process wrote before the call.

        Waits at most ``timeout`` (seconds or a timedelta); 0 checks once. The answer is read from the
        segment, where the bridge keeps the acknowledgements of its peers. It does not wait for a peer that
        was not heard for ``lost_after``; ``health()`` names such peers. Without a ``[bridge]`` it is True at
        once. If the bridge is dead, hung or not started, it is False after ``timeout``.

        Raises ``Closed``, ``ValueError`` for a time that is none, and what attaching raises when the segment
        was replaced meanwhile.
        """
        return wait_synced(self, timeout)

    async def await_synced(self, timeout: float | timedelta = 1.0) -> bool:
        """``wait_synced``, without blocking the event loop."""
        return await await_synced(self, timeout)

    def health(self) -> Health:
        """How the segment, the bridge and the peers fare, for people and probes: ``Health``.

        Raises ``Closed`` alone: whatever else is wrong is in the answer.
        """
        return health(self)

    def explain(self, key: str | bytes) -> Explanation:
        """What happened to a key on this host and, by its bridge, on every linked one: ``Explanation``.

        One key in 256 of a namespace is journalled (``journal`` in the configuration), and each watched key:
        those of ``cachee explain --watch``, and those that a bridge's checker suspects to be stale. Waits up
        to 5 s for the bridge. Raises only ``Closed`` and ``InvalidKey``; hosts that do not answer are named
        in the result.
        """
        from cachee_shm.explain import explain

        return explain(self, key)

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
