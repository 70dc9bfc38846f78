"""OpenTelemetry: spans of loads and ``writing`` blocks, and what this process did as metrics.

    from cachee_shm.otel import instrument

    cache = cachee_shm.attach("shop")
    instrument(cache)                       # once, after the SDK was set up

Only the API is needed; without an SDK it does nothing. A ``get`` or ``set`` has no span and costs nothing
more: metrics are read from the segment's counters when the SDK collects. A bridge's ``/metrics`` counts the
whole host; these metrics count this process only, so a backend may add up those of all processes.

    span             kind       attributes beside db.system.name "cachee", db.namespace, db.operation.name
    LOAD shop        INTERNAL   around the loader of one key; ``keys=True``: cachee.key
    LOAD_MANY shop   INTERNAL   around a loader of many: db.operation.batch.size
    WRITING shop     INTERNAL   around the block: cachee.stored (true, false: it was not, because something
                                newer came or the block stored nothing)

An exception is recorded in the span, with ``error.type``, as the semantic conventions have it.

    metric                 unit        attributes
    cachee.lookups         {lookup}    cachee.result: hit, miss
    cachee.commands        {command}   db.operation.name: set, delete; cachee.result: ok, lost, guarded
    cachee.fills           {fill}      cachee.result: ok, refused
    cachee.loads           {load}      cachee.result: ok, error (a load of many is one)
    cachee.evictions       {entry}     by capacity
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from cachee_shm._core import Write, Writing
    from cachee_shm.cache import Cache

__all__ = ["instrument"]

SCOPE = "cachee_shm"
LOADED, FAILED = "loaded", "failed"
"""Counted here, because the segment counts loads for the whole host."""
COUNTERS: dict[str, tuple[str, dict[str, dict[str, str]]]] = {
    "cachee.lookups": (
        "{lookup}",
        {"hits": {"cachee.result": "hit"}, "misses": {"cachee.result": "miss"}},
    ),
    "cachee.commands": (
        "{command}",
        {
            "sets": {"db.operation.name": "set", "cachee.result": "ok"},
            "sets_lost": {"db.operation.name": "set", "cachee.result": "lost"},
            "sets_guarded": {"db.operation.name": "set", "cachee.result": "guarded"},
            "deletes": {"db.operation.name": "delete", "cachee.result": "ok"},
        },
    ),
    "cachee.fills": (
        "{fill}",
        {"fills": {"cachee.result": "ok"}, "fills_refused": {"cachee.result": "refused"}},
    ),
    "cachee.loads": (
        "{load}",
        {LOADED: {"cachee.result": "ok"}, FAILED: {"cachee.result": "error"}},
    ),
    "cachee.evictions": ("{entry}", {"evicted": {}}),
}
"""By metric: its unit, and by counter of the segment the attributes."""


def instrument(
    cache: Cache,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    keys: bool = False,
) -> None:
    """Trace and measure this cache object; a second call does nothing.

    ``keys``: spans of loads and ``writing`` have the key's text, which may be private. The providers are the
    global ones where they are left out. A process that is forked later is traced as well, and measured from
    then on.
    """
    if "_otel" in vars(cache):
        return
    tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
    meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
    counted = Counted(cache)
    loads = Spans(tracer, cache.namespace, keys, counted)
    # Only this object's verbs are replaced: other caches pay nothing.
    vars(cache).update(
        _otel=counted,
        _load=loads.around_load(cache._load),
        _aload=loads.around_aload(cache._aload),
        _load_many=loads.around_load_many(cache._load_many),
        _aload_many=loads.around_aload_many(cache._aload_many),
        writing=loads.around_writing(cache.writing),
    )
    for name, (unit, of) in COUNTERS.items():
        meter.create_observable_counter(name, [counted.observing(of)], unit=unit)


class Spans:
    """The spans of one cache."""

    def __init__(self, tracer: Tracer, namespace: str, keys: bool, counted: Counted) -> None:
        self._tracer, self._namespace, self._keys, self._counted = tracer, namespace, keys, counted

    def begin(self, operation: str, key: object = None, **more: Any) -> AbstractContextManager[Span]:
        """A span that is the current one until it ends; an exception is recorded in it."""
        said = {
            "db.system.name": "cachee",
            "db.namespace": self._namespace,
            "db.operation.name": operation,
            **more,
        }
        if self._keys and key is not None:
            said["cachee.key"] = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
        return self._tracer.start_as_current_span(
            f"{operation} {self._namespace}",
            kind=SpanKind.INTERNAL,
            attributes=said,
            record_exception=False,
            set_status_on_exception=False,
        )

    def ran(self, loader: Callable[..., Any], args: tuple[Any, ...], *span: Any, **more: Any) -> Any:
        """What the loader returns."""
        with self.begin(*span, **more) as begun:
            try:
                value = loader(*args)
            except BaseException as error:
                self._failed(begun, error)
                raise
            self._counted.one_more(LOADED)
            return value

    def awaited(self, loader: Callable[..., Any], args: tuple[Any, ...], *span: Any, **more: Any) -> Any:
        """What the loader returns; it runs when it is awaited. If the loader is of the wrong kind, the verb
        refuses it."""
        made = loader(*args)
        return self._awaited(made, *span, **more) if hasattr(type(made), "__await__") else made

    async def _awaited(self, made: Awaitable[Any], *span: Any, **more: Any) -> Any:
        with self.begin(*span, **more) as begun:
            try:
                value = await made
            except BaseException as error:
                self._failed(begun, error)
                raise
            self._counted.one_more(LOADED)
            return value

    def _failed(self, span: Span, error: BaseException) -> None:
        self._counted.one_more(FAILED)
        failed(span, error)

    def around_load(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def load(key: Any, loader: Callable[..., Any], args: Any, *rest: Any) -> Any:
            return verb(key, lambda *given: self.ran(loader, given, "LOAD", key), args, *rest)

        return load

    def around_aload(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def aload(key: Any, loader: Callable[..., Any], args: Any, *rest: Any) -> Any:
            return verb(key, lambda *given: self.awaited(loader, given, "LOAD", key), args, *rest)

        return aload

    def around_load_many(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def load_many(asks: Any, values: Callable[..., Any], kept: Any) -> Any:
            return verb(asks, lambda keys: self.ran(values, (keys,), "LOAD_MANY", **sized(keys)), kept)

        return load_many

    def around_aload_many(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def aload_many(asks: Any, values: Callable[..., Any], kept: Any) -> Any:
            return verb(asks, lambda keys: self.awaited(values, (keys,), "LOAD_MANY", **sized(keys)), kept)

        return aload_many

    def around_writing(self, verb: Callable[[Any], Writing]) -> Callable[[Any], TracedWriting]:
        return lambda key: TracedWriting(self, key, verb(key))


def sized(keys: list[Any]) -> dict[str, int]:
    """How the semantic conventions have the size of a batch."""
    return {"db.operation.batch.size": len(keys)}


def failed(span: Span, error: BaseException) -> None:
    """Record the error in the span, as the semantic conventions have it."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    span.set_attribute("error.type", name)
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, str(error)))


class TracedWriting:
    """A ``writing`` block and its span. The block's announcement is made before the span ends; if this object
    is dropped, the inner block announces."""

    def __init__(self, spans: Spans, key: Any, writing: Writing) -> None:
        self._spans, self._key, self._writing = spans, key, writing
        self._span: AbstractContextManager[Span] | None = None
        self._begun: Span | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writing, name)

    def _begin(self) -> None:
        self._span = self._spans.begin("WRITING", self._key)
        self._begun = self._span.__enter__()

    def _end(self, error: BaseException | None) -> None:
        span, self._span = self._span, None
        if span is None or self._begun is None:
            return
        if error is not None:
            failed(self._begun, error)
        stored = self._writing.stored
        if stored is not None:
            self._begun.set_attribute("cachee.stored", stored)
        span.__exit__(None, None, None)

    def __enter__(self) -> Write:
        self._begin()
        try:
            return self._writing.__enter__()
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writing.__exit__(kind, error, trace)
        except BaseException as other:
            self._end(other)
            raise
        self._end(error)

    async def __aenter__(self) -> Write:
        self._begin()
        try:
            return await self._writing.__aenter__()
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._writing.__aexit__(kind, error, trace)
        except BaseException as other:
            self._end(other)
            raise
        self._end(error)


class Counted:
    """What this process has done with one cache since it was instrumented.

    A slot of the roster keeps the counts of its earlier holders, so that sums over all slots only grow. So
    this class reports the growth since this process took its slot. After a fork, or in another segment, the
    process has another slot, and counting begins anew there.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = weakref.ref(cache)
        self._totals: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._place: object = None
        self.look()

    def one_more(self, what: str) -> None:
        """Count something that the segment does not count by process."""
        with counting:
            self._totals[what] = self._totals.get(what, 0) + 1

    def look(self) -> dict[str, int] | None:
        """The totals by now; None: the cache is closed, or gone."""
        cache = self._cache()
        if cache is None or cache.closed:
            return None
        place, now = cache._counted()
        here = os.getpid(), cache.incarnation, place
        if here == self._place:
            for name, count in now.items():
                self._totals[name] = self._totals.get(name, 0) + max(0, count - self._last[name])
        self._place, self._last = here, now
        return self._totals

    def observing(self, of: dict[str, dict[str, str]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """The callback of one metric."""

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            totals, cache = self.look(), self._cache()
            if totals is None or cache is None:
                return []
            always = {"db.system.name": "cachee", "db.namespace": cache.namespace}
            return [
                Observation(totals.get(name, 0), {**always, **attributes}) for name, attributes in of.items()
            ]

        return observe


counting = threading.Lock()


def _in_child() -> None:
    """Make a new lock: another thread of the parent may have held the old one."""
    global counting
    counting = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
