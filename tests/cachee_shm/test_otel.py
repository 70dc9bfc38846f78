"""Spans and metrics, as the SDK's exporters in memory have them."""

import asyncio
import os

import pytest

import cachee_shm
from cachee_shm.errors import KeyTooLong
from tests.cachee_shm.processes import in_fork

pytestmark = pytest.mark.needs("opentelemetry")


def instrument(cache, **options):
    from cachee_shm import otel

    otel.instrument(cache, **options)


class Telemetry:
    """What an application would send."""

    def __init__(self):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def on(self, cache, **options):
        instrument(cache, tracer_provider=self.tracers, meter_provider=self.meters, **options)
        return cache

    def spans(self):
        ended = self.exporter.get_finished_spans()
        self.exporter.clear()
        return ended

    def metrics(self):
        """By name and the attributes that differ, the values."""
        data = self.reader.get_metrics_data()
        return {
            (metric.name, *(value for name, value in sorted(point.attributes.items()) if name not in SAME)): (
                point.value
            )
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


SAME = ("db.system.name", "db.namespace")


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def cache(config, telemetry):
    with cachee_shm.attach(config=config) as attached:
        yield telemetry.on(attached)


def test_a_load_has_a_span_and_a_hit_has_none(cache, telemetry):
    for _ in range(2):
        assert cache.get_or_load("a", lambda: 7) == 7
    cache.get("a")
    cache.set("b", 1)
    (span,) = telemetry.spans()
    assert (span.name, span.kind.name) == ("LOAD shop", "INTERNAL")
    assert dict(span.attributes) == {
        "db.system.name": "cachee",
        "db.namespace": "shop",
        "db.operation.name": "LOAD",
    }
    assert span.status.status_code.name == "UNSET"


def test_what_the_loader_does_is_within_its_span(cache, telemetry):
    tracer = telemetry.tracers.get_tracer("app")

    def load():
        with tracer.start_as_current_span("SELECT"):
            return cachee_shm.current_load().key

    with tracer.start_as_current_span("GET /"):
        assert cache.get_or_load("a", load) == "a"
    inner, middle, outer = telemetry.spans()
    assert [each.name for each in (inner, middle, outer)] == ["SELECT", "LOAD shop", "GET /"]
    assert inner.parent.span_id == middle.context.span_id
    assert middle.parent.span_id == outer.context.span_id


def test_a_loader_that_fails_is_an_error_of_its_span(cache, telemetry):
    def load():
        raise LookupError("no row")

    with pytest.raises(LookupError):
        cache.get_or_load("a", load)
    (span,) = telemetry.spans()
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == "LookupError"
    assert [event.name for event in span.events] == ["exception"]


def test_a_coroutine_is_loaded_within_its_span(cache, telemetry):
    tracer = telemetry.tracers.get_tracer("app")

    async def load(value):
        with tracer.start_as_current_span("SELECT"):
            await asyncio.sleep(0)
        if value is None:
            raise LookupError
        return value

    async def story():
        assert await asyncio.gather(*(cache.aget_or_load("a", load, 7) for _ in range(5))) == [7] * 5
        with pytest.raises(LookupError):
            await cache.aget_or_load("b", load, None)

    asyncio.run(story())
    inner, outer, _, failed = telemetry.spans()
    assert (inner.name, outer.name) == ("SELECT", "LOAD shop")
    assert inner.parent.span_id == outer.context.span_id
    assert failed.attributes["error.type"] == "LookupError"


def test_a_load_of_many_has_one_span_that_says_how_many(cache, telemetry):
    async def several(keys):
        return dict.fromkeys(keys, 1)

    cache.set("a", 0)
    assert cache.get_or_load_many(["a", "b", "c"], lambda keys: dict.fromkeys(keys, 1)) == {
        "a": 0,
        "b": 1,
        "c": 1,
    }
    assert asyncio.run(cache.aget_or_load_many(["c", "d"], several)) == {"c": 1, "d": 1}
    spans = telemetry.spans()
    assert [(span.name, span.attributes["db.operation.batch.size"]) for span in spans] == [
        ("LOAD_MANY shop", 2),
        ("LOAD_MANY shop", 1),
    ]


def test_a_block_that_writes_has_a_span_that_says_whether_it_stored(cache, telemetry):
    async def story():
        async with cache.writing("a") as w:
            w.set(2)

    with cache.writing("a") as w:
        w.set(1)
    assert cache.get("a") == 1
    with cache.writing("a"):
        pass
    assert cache.get("a") is None
    asyncio.run(story())
    assert cache.get("a") == 2
    with pytest.raises(LookupError), cache.writing("a"):
        raise LookupError
    assert cache.get("a") is None
    spans = telemetry.spans()
    assert {span.name for span in spans} == {"WRITING shop"}
    assert [span.attributes.get("cachee.stored") for span in spans] == [True, False, True, False]
    assert [span.status.status_code.name == "ERROR" for span in spans] == [False, False, False, True]


def test_a_key_that_is_refused_ends_the_span_of_its_block(cache, telemetry):
    with pytest.raises(KeyTooLong), cache.writing("k" * 5000):
        pass

    async def awaited():
        async with cache.writing("k" * 5000):
            pass

    with pytest.raises(KeyTooLong):
        asyncio.run(awaited())
    spans = telemetry.spans()
    assert [span.attributes["error.type"] for span in spans] == ["cachee_shm.errors.KeyTooLong"] * 2


def test_mistakes_are_those_of_the_verbs(cache):
    async def load():
        return 1

    with pytest.raises(TypeError, match="has to be awaited"):
        cache.get_or_load("a", load)
    with pytest.raises(TypeError):
        asyncio.run(cache.aget_or_load("a", lambda: 1))
    assert cache.get("a") is None


@pytest.mark.parametrize("keys", [True, False])
def test_spans_have_keys_only_if_that_is_asked_for(config, telemetry, keys):
    with cachee_shm.attach(config=config) as cache:
        telemetry.on(cache, keys=keys)
        cache.get_or_load("user:7", lambda: 1)
        cache.get_or_load(b"raw\xff", lambda: 1)
        with cache.writing("user:7"):
            pass
    told = [span.attributes.get("cachee.key") for span in telemetry.spans()]
    assert told == (["user:7", "raw\ufffd", "user:7"] if keys else [None] * 3)


def test_decorated_functions_and_origins_are_traced(cache, telemetry):
    cache.origin("user:", load=lambda key: key)
    double = cache.cached(key="double:{n}")(lambda n: 2 * n)
    assert double(4) == 8
    assert double.refresh(4) == 8
    assert cache.get_or_load("user:1") == "user:1"
    assert [span.name for span in telemetry.spans()] == ["LOAD shop"] * 3


def test_metrics_are_what_this_process_did_since(config, telemetry):
    with cachee_shm.attach(config=config) as other, cachee_shm.attach(config=config) as cache:
        cache.set("before", 1)
        telemetry.on(cache)
        for _ in range(5):
            other.set("a", 1)
        cache.set("b", 1)
        cache.delete("b")
        cache.get_or_load("c", lambda: 1)
        other.get_or_load("d", lambda: 1)
        with pytest.raises(ZeroDivisionError):
            cache.get_or_load("e", lambda: 1 / 0)
        for _ in range(7):
            cache.get("c")
        told = telemetry.metrics()
        assert told["cachee.commands", "ok", "set"] == 1
        assert told["cachee.commands", "ok", "delete"] == 1
        assert told["cachee.loads", "ok"] == told["cachee.fills", "ok"] == 1
        assert told["cachee.loads", "error"] == 1
        assert told["cachee.lookups", "hit"] == 7
        assert told["cachee.lookups", "miss"] >= 2
        cache.set("b", 1)
        assert telemetry.metrics()["cachee.commands", "ok", "set"] == 2


def test_the_counts_of_a_slots_earlier_process_are_not_reported(config, telemetry):
    with cachee_shm.attach(config=config) as kept:
        with cachee_shm.attach(config=config) as gone:
            for _ in range(9):
                gone.set("a", 1)
        with cachee_shm.attach(config=config) as cache:
            telemetry.on(cache)
            cache.set("a", 1)
            assert telemetry.metrics()["cachee.commands", "ok", "set"] == 1
        assert kept.stats()["sets"] == 10


def test_a_forked_child_tells_of_itself_alone(cache, telemetry):
    for _ in range(9):
        cache.set("a", 1)
    telemetry.metrics()

    def child():
        counted = vars(cache)["_otel"]
        before = dict(counted.look())
        cache.set("a", 1)
        cache.set("a", 1)
        assert counted.look()["sets"] - before["sets"] == 2

    in_fork(child)


def test_of_another_segment_it_goes_on_counting(cache, telemetry):
    cache.set("a", 1)
    assert telemetry.metrics()["cachee.commands", "ok", "set"] == 1
    os.unlink(f"/dev/shm{cache.name}")
    cache.retire()
    cache.set("a", 1)
    telemetry.metrics()
    cache.set("a", 1)
    assert telemetry.metrics()["cachee.commands", "ok", "set"] >= 2


def test_a_closed_cache_is_told_of_no_more(cache, telemetry):
    cache.set("a", 1)
    cache.close()
    assert telemetry.metrics() == {}


def test_it_is_done_once(cache, telemetry):
    telemetry.on(cache)
    cache.get_or_load("a", lambda: 1)
    assert len(telemetry.spans()) == 1


def test_without_an_sdk_it_does_nothing(config):
    with cachee_shm.attach(config=config) as cache:
        instrument(cache)
        assert cache.get_or_load("a", lambda: 7) == 7
        with cache.writing("a") as w:
            w.set(8)
        assert cache.get("a") == 8


def test_a_get_of_an_instrumented_cache_is_the_method_of_the_core(cache):
    for verb in ("get", "set", "lookup", "delete", "get_many"):
        assert verb not in vars(cache)
