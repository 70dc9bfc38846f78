"""An exception between any two byte codes of a waiting call leaves no lease, no intent and no stale value.

A signal handler's exception (Ctrl-C, a soft time limit) may come at any byte code, and the cancellation of a
task at any `await`. Each case runs once for each byte code that it has in this package and in itself, and the
exception comes at that byte code. The traceback is kept meanwhile, as code that logs it would keep it.
"""

import asyncio
import datetime as dt
import dis
import random
import signal
import sys
import threading
from contextlib import suppress

import pydantic
import pytest

import cachee_shm
from cachee_shm import events, loading, shape, waiting
from cachee_shm.errors import LockTimeout
from tests.cachee_shm import kept
from tests.cachee_shm.loaders import Origin
from tests.cachee_shm.processes import child, until

HERE = __file__
PACKAGE = cachee_shm.__path__[0]


class Interrupt(Exception):
    """What a signal handler raises."""


def returns_an_event(code, offset):
    """From 3.11 on no signal is handled at the byte code that returns; nothing could give the event back."""
    return code.co_filename == events.__file__ and dis.opname[code.co_code[offset]].startswith("RETURN_")


class ByteCodes:
    """Raises at the byte code of this number, of the package's frames and of the case's own; counts them."""

    def __init__(self, number):
        self.number = number
        self.seen = 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.frame)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def frame(self, frame, event, argument):
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) and (name != HERE or frame.f_code.co_name != "case"):
            return None
        frame.f_trace_opcodes = True
        return self.opcode

    def opcode(self, frame, event, argument):
        if event == "opcode" and not returns_an_event(frame.f_code, frame.f_lasti):
            self.seen += 1
            if self.seen == self.number:
                raise Interrupt
        return self.opcode


class Monitored(ByteCodes):
    """The same by sys.monitoring, where there is one."""

    TOOL = 3

    def __enter__(self):
        sys.monitoring.use_tool_id(self.TOOL, "interrupts")
        events = sys.monitoring.events
        sys.monitoring.register_callback(self.TOOL, events.INSTRUCTION, self.instruction)
        sys.monitoring.set_events(self.TOOL, events.INSTRUCTION)

    def __exit__(self, *_):
        sys.monitoring.set_events(self.TOOL, 0)
        sys.monitoring.free_tool_id(self.TOOL)

    def instruction(self, code, offset):
        if not code.co_filename.startswith(PACKAGE) and (code.co_filename != HERE or code.co_name != "case"):
            return sys.monitoring.DISABLE
        if threading.current_thread() is threading.main_thread() and not returns_an_event(code, offset):
            self.seen += 1
            if self.seen == self.number:
                raise Interrupt
        return None


TRACERS = [Monitored if hasattr(sys, "monitoring") else ByteCodes]  # from 3.12 on, tracing misses some


@pytest.fixture(params=TRACERS, ids=lambda tracer: tracer.__name__)
def interrupted(request):
    """``interrupted(prepare, case, check)``: at each byte code of ``case`` in turn, or at each of so many.

    ``through``: whatever came has to come out of it.
    """

    def run(prepare, case, check, through=False, step=1):
        number, kept = 1 - step, []
        while True:
            number += step
            prepare()
            tracer = request.param(number)
            try:
                with tracer:
                    case()
            except Interrupt as error:
                kept.append(error)
            finally:
                check()
            if tracer.seen < number:
                return number
            assert not through or len(kept) == (number - 1) // step + 1, f"lost at {number} of {tracer.seen}"
            assert number < 5000

    return run


def owes_nothing(cache):
    assert cache._holds() == (0, 0, 0), "leases, flights, intents"


def test_a_load_that_is_interrupted_leaves_nothing_behind(cache, interrupted):
    def case():
        cache.get_or_load("a", Origin({"a": [1]}), tags=["t"], stale=1)

    assert interrupted(lambda: cache.delete("a"), case, lambda: owes_nothing(cache)) > 50


def test_an_awaited_load_that_is_interrupted_leaves_nothing_behind(cache, interrupted):
    async def loader():
        await asyncio.sleep(0)
        return {"a": [1]}

    async def case():
        await cache.aget_or_load("a", loader, tags=["t"])

    assert interrupted(lambda: cache.delete("a"), lambda: run(case), lambda: owes_nothing(cache)) > 50


def run(case):
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(case())
    finally:
        loop.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_lock_that_is_interrupted_leaves_nothing_behind(cache, interrupted, is_async):
    """Nothing is left but, at worst, the lock of a block whose traceback is kept, until its time is over."""
    inside, left = [], []

    def block():
        def case():
            with cache.host.lock("a", ttl=0.02, wait=60):
                inside.append(1)

        case()

    async def ablock():
        async def case():
            async with cache.host.lock("a", ttl=0.02, wait=60):
                inside.append(1)

        await case()

    def check():
        try:
            with cache.host.lock("a", wait=0):
                pass
        except LockTimeout:
            left.append(1)
            with cache.host.lock("a", wait=60):
                pass

    assert interrupted(lambda: None, (lambda: run(ablock)) if is_async else block, check) > 10
    assert inside
    assert len(left) < 10


@pytest.mark.parametrize("sets", [True, False])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_writing_block_that_is_interrupted_leaves_no_stale_value(cache, interrupted, is_async, sets):
    origin = {}

    def prepare():
        origin["a"] = "old"
        cache.set("a", {"is": "old"})

    def block():
        def case():
            with cache.writing("a") as w:
                origin["a"] = "new"
                if sets:
                    w.set({"is": "new"}, ttl=60, tags=["t"])

        case()

    async def ablock():
        async def case():
            async with cache.writing("a") as w:
                origin["a"] = "new"
                if sets:
                    w.set({"is": "new"}, ttl=60, tags=["t"])

        await case()

    def check():
        owes_nothing(cache)
        assert cache.get("a") in (None, {"is": origin["a"]})

    assert interrupted(prepare, (lambda: run(ablock)) if is_async else block, check) > 10


@pytest.mark.parametrize("is_async", [False, True])
def test_a_writing_block_that_is_interrupted_ends_although_its_object_is_kept(cache, interrupted, is_async):
    """Neither the variable nor the traceback keeps the block open."""
    origin, kept = {}, []

    def prepare():
        origin["a"] = "old"
        cache.set("a", {"is": "old"})

    def block():
        def case():
            w = cache.writing("a")
            kept.append(w)
            with w:
                origin["a"] = "new"
                w.set({"is": "new"})

        case()

    async def ablock():
        async def case():
            w = cache.writing("a")
            kept.append(w)
            async with w:
                origin["a"] = "new"
                w.set({"is": "new"})

        await case()

    def check():
        owes_nothing(cache)
        assert cache.get("a") in (None, {"is": origin["a"]})

    assert interrupted(prepare, (lambda: run(ablock)) if is_async else block, check) > 10


def test_waiting_for_peers_that_is_interrupted_leaves_nothing_behind(config, interrupted):
    config["bridge"] = {"listen": "127.0.0.1:1", "peers": []}
    with cachee_shm.attach(config=config) as cache:
        cache.set("a", 1)
        for case in (lambda: cache.wait_synced(0.001), lambda: run(lambda: cache.await_synced(0.001))):
            interrupted(lambda: None, case, lambda: owes_nothing(cache))


@pytest.mark.parametrize("is_async", [False, True])
def test_following_events_that_is_interrupted_loses_no_event(cache, interrupted, is_async):
    """What was not given away is given later. Nothing comes twice."""
    cursor, got = cache.events(), []

    def follow():
        for event in cursor:
            got.append(event.sequence)
            if len(got) == 2:
                break

    async def afollow():
        async for event in cursor:
            got.append(event.sequence)
            if len(got) == 2:
                break

    def prepare():
        got.clear()
        cache.set("a", 1)
        cache.set("b", 1)

    def check():
        got.extend(event.sequence for event in cursor.poll())
        assert got == [cache.tail - 1, cache.tail]

    assert interrupted(prepare, (lambda: run(afollow)) if is_async else follow, check) > 50


def test_a_poll_for_events_that_is_interrupted_loses_no_event(cache, interrupted):
    cursor, got = cache.events(), []

    def poll():
        got.extend(cursor.poll())

    def prepare():
        got.clear()
        cache.set("a", 1)

    def check():
        got.extend(cursor.poll())
        assert [event.sequence for event in got] == [cache.tail]

    assert interrupted(prepare, poll, check) > 50


def test_a_waiting_caller_that_is_interrupted_leaves_the_poll(cache, interrupted, config):
    """Nothing of it is left in the poll, and the load goes on."""
    code = """
def loader():
    say('loading'); wait()
    return 'loaded'
say(cache.get_or_load('a', loader))
"""
    with child(code, config=config) as holder:
        holder.line()
        cache._lateness(1, 1)
        options = loading.Options(cache)

        def case():
            call = loading.Asking(cache, "a", options).call
            waiting.wait_for_flight(call, None)

        def acase():
            async def case():
                await waiting.await_flight(loading.Asking(cache, "a", options).call, None)

            run(case)

        for each in (case, acase):
            interrupted(lambda: None, each, lambda: owes_nothing(cache))
        until(lambda: not waiting.poll.watched)
        holder.tell()
        assert holder.line() == "loaded"


# Real signals and cancellations


class Row(pydantic.BaseModel):
    """Its bytes are decoded, and it is encoded, by Python code."""

    when: dt.datetime
    parts: dict[str, tuple[int, ...]]


ROW = Row(when=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), parts={"a": (1, 2), "b": ()})
THROUGH = {  # what Python code of ours or of the caller's runs in, and no exception may be taken for its own
    "decoding": lambda cache: cache.get("row"),
    "encoding": lambda cache: cache.set("b", ROW),
    "what has no encoding": lambda cache: cache.set_many({"b": object()}),
    "filling": lambda cache: cache.get_or_load("a", lambda: ROW),
    "decoding before a load": lambda cache: cache.get_or_load("row", pytest.fail),
    "objects of classes": lambda cache: cache.set("b", OBJECTS),
    "the shape of a model": lambda cache: (shape.DIGESTS.clear(), shape.shape_digest(Row)),
    "a lifetime": lambda cache: cache.set("b", 1, ttl=Lifetime()),
}


OBJECTS = [kept.Frozen(1, kept.Text("a")), kept.Level.LOW]


class Lifetime:
    def total_seconds(self):
        return 60


@pytest.mark.parametrize("verb", THROUGH)
def test_an_exception_in_the_middle_of_a_verb_reaches_the_caller_and_is_no_miss(cache, interrupted, verb):
    cache.set("row", ROW)
    cache.set("b", OBJECTS)  # what their classes are like is known from here on
    step = {"the shape of a model": 41, "encoding": 5, "filling": 7, "objects of classes": 3}.get(verb, 1)

    def case():
        THROUGH[verb](cache)

    interrupted(lambda: cache.delete("a"), case, lambda: owes_nothing(cache), True, step)
    assert cache.get("row") == ROW
    assert cache.stats()["undecodable"] == 0


def test_a_signal_at_any_instant_leaves_nothing_behind(cache):
    """As a soft time limit does it: also within the loader, and within what encodes the value."""
    chance = random.Random(7)
    origin = {"a": 0}
    armed = False

    def handler(*_):
        if armed:
            raise Interrupt

    def once(number):
        cache.get_or_load(f"k{number}", Origin({"a": [1]}), tags=["t"])
        with cache.writing("a") as w:
            origin["a"] += 1
            w.set(origin["a"])

    before = signal.signal(signal.SIGALRM, handler)
    kept = []
    try:
        for number in range(1000):
            armed = True
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 60e-6))
                    once(number)
                finally:  # the one signal may come here as well
                    armed = False
            except Interrupt as error:
                kept.append(error)
            armed = False
            assert cache.get("a") in (None, origin["a"])
            owes_nothing(cache)
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert kept


def test_a_task_that_is_cancelled_at_any_instant_leaves_nothing_behind(cache):
    chance = random.Random(7)

    async def loader():
        for _ in range(3):
            await asyncio.sleep(0)
        return 1

    async def write():
        async with cache.writing("a") as w:
            await asyncio.sleep(0)
            w.set(1)

    async def main():
        for _ in range(300):
            tasks = [asyncio.create_task(cache.aget_or_load("a", loader)) for _ in range(3)]
            tasks.append(asyncio.create_task(write()))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, chance.randrange(5)):
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            owes_nothing(cache)

    asyncio.run(main())
