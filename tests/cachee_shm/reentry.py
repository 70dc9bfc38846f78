"""Closes a cache, or attaches it anew, wherever Python code may run in a verb: see test_reentry.py.

    python reentry.py FOLDER      FOLDER holds the package cachee_shm with a core that was built for this

It runs on any Python: it stands in for the libraries that are not made for each. A crash ends it; the last
line of its output then names the verb and the point.
"""

import contextvars
import mmap
import pickle
import struct
import sys
import types
import typing

sys.path.insert(0, sys.argv[1])


class ExtType(typing.NamedTuple):
    """As msgpack's; here it is pickled."""

    code: int
    data: bytes


def restored(value, hook):
    """As msgpack calls its hook: for what is in a container too."""
    if isinstance(value, ExtType):
        return hook(*value) if hook else value
    if isinstance(value, list):
        return [restored(each, hook) for each in value]
    if isinstance(value, dict):
        return {restored(key, hook): restored(each, hook) for key, each in value.items()}
    return value


# Files and serializers have no part in this.
sys.modules["posix_ipc"] = types.ModuleType("posix_ipc")
sys.modules["msgpack"] = types.ModuleType("msgpack")
sys.modules["msgpack"].__dict__.update(
    ExtType=ExtType,
    packb=lambda value, **_: pickle.dumps(value),
    unpackb=lambda data, ext_hook=None, **_: restored(pickle.loads(data), ext_hook),
)
sys.modules["msgspec"] = None  # type: ignore[assignment]  # where it is installed, it would be asked to decode what was pickled

import cachee_shm  # noqa: E402
from cachee_shm import _core  # noqa: E402
from cachee_shm.segment import embedded, private  # noqa: E402

MEMORY = 2 << 20
POINTS_MAX = 1000
SHARED, COPIES = 1, 2  # near_objects, as module.h numbers it
SPEC = private(embedded(None))._replace(memory_bytes=MEMORY, near_bytes=8192, near_objects=SHARED)
KEY = struct.pack("<Q", 7)
MAP = b"\x03\x03\xff\xff"


class Index:
    def __index__(self):
        return 1


class Bytes(bytes):
    """Of a class of its own: it is copied."""


class Mute:
    def __repr__(self):
        raise ValueError


class Keys:
    def __iter__(self):
        return iter(["t", "s", "u", "none"])


# Of a cache that gives copies of what is near: those verbs copy.
COPYING = {
    "get": [("d",), ("e",)],
    "lookup": [("d",)],
    "get_many": [(["d", "e", "s"],)],
    "__getitem__": [("d",)],
}
REST = (False, 0.0, 0.0, 0.0)  # of _judge: what get_or_load is rarely asked for

CALLS = {
    "get": [("t",), ("t", 1), ("s",), ("u",), ("i",), ("f",), ("b",), ("none",), (1,), ("k" * 2000,)],
    "lookup": [("t",), ("s",), ("none",)],
    "set": [
        ("t", (2,)),
        ("new", {"a": (1,)}, 5.0, ["x", "y"]),
        ("t", object()),
        ("t", b"x" * (1 << 20)),
        ("i", 1 << 70),
    ],
    "add": [("new", (2,)), ("t", 1), ("new", object())],
    "touch": [("t", 5), ("none", 5.0), ("t", "x"), ("t", Mute())],
    "delete": [("t",), (1,)],
    "get_many": [(Keys(),), (["t", "s"],), ("ab",)],
    "set_many": [({"t": (1,), "n": object(), "s": "x"}, 5, ["x"]), ([1],)],
    "delete_many": [(Keys(),), (["t", 1],)],
    "delete_tags": [("x", "y"), ("x", 1)],
    "pack": [(Index(), 100, 10000), (0, 100, 10000), (0, 0, 0)],
    "missed": [(0,), (1 << 40,)],
    "map_piece": [(0, 0, 1 << 20)],
    "fence_map": [(1, MAP, 0, 0, 1000), (1, bytearray(MAP), 0, 0, 1), (1, b"", 0, 0, 1)],
    "evict_map": [(1, MAP, 1 << 60, 0, 1 << 20), (1, memoryview(MAP), 1 << 60, 0, 10), (1, b"", 0, 0, 1)],
    "heal": [(0, 100, 0, b"head"), (Index(), 100, 0, b""), (0, 100, 1, b"")],
    "apply": [
        (1, b"\x01" + KEY),
        (1, bytearray(b"\x01" + KEY)),
        (1, Bytes(b"\x04")),
        (1, b"\xff"),
        (1, None),
    ],
    "read_ring": [(0, 100), (1 << 40, 1)],
    "source_open": [("web-9",), ("",), ("x" * 100,)],
    "source_store": [(1, 5, 5), (0, 1, 1)],
    "source_acked": [(1, 1)],
    "source_tell": [(1, True, 1)],
    "_source_name": [(1, 1 << 40)],
    "_judge": [
        (5.0, 1, 2.0, Keys(), False, *REST),
        (object(), 1, 2, [], 0, *REST),
        (5, 1, 2, "ab", 1, *REST),
    ],
    "_arrive": [("t", ("x",), False), (1, (), False)],
    "_waits": [
        ("t", (5, 0, None, ("x",), False, *REST), 0, 0),
        ("none", (5, 0, None, (), False, *REST), Index(), 0),
    ],
    "_load": [
        ("none", tuple, (), (5, 0, None, ("x",), False, *REST), 0, 0, False, 0),
        ("t", 1, (), (), 0, 0, 0, 0),
    ],
    "_aload": [("none", tuple, (), (5, 0, None, ("x",), False, *REST), 0, 0, False, 0)],
    "_load_many": [
        ([("none", 0, 0, False, 0), ("t", Index(), 0, False, 0)], list, (5, 0, None, ("x",), False, *REST)),
    ],
    "_aload_many": [([("none", 0, 0, False, 0)], list, (5, 0, None, ("x",), False, *REST))],
    "_keys": [(Keys(),), (["t"],), ("t",)],
    "_will_wait": [("t",), (1,)],
    "_lateness": [(1, 1)],
    "_find": [("t", True), ("none", False)],
    "_find_early": [("t", 1.0), ("none", 1.0), ("t", 1)],
    "_stored": [("t",), ("none",)],
    "_fill": [("t", (3,), 1 << 60, 1, 5, 0, ["x"], False), ("new", (3,), 0, 1, 5, 1000, [], False)],
    "_set_fenced": [("t", (3,), 0, 1, 5, ["x"])],
    "_incr": [("count", 1), ("t", 1), ("none", Index())],
    "_freeze": [(1_000_000,), (None,)],
    "_hash": [("t",), (1,)],
    "__contains__": [("t",), ("none",), (1,)],
    "__getitem__": [("t",), ("none",)],
    "__setitem__": [("t", (5,)), ("t", object())],
    "__delitem__": [("t",), ("none",)],
}
# A verb that is not above is called with each of these; what it does not take, it refuses.
ANY = [(), ("t",), (1,), (1, 1), (1, 1, 1), ("t", 1)]


def kept(cache, **options):
    return cache._judge(options.get("ttl", 5.0), 1, 2.0, Keys(), False, *REST)


def load(cache, key, loader, alone=False):
    kept_as = kept(cache)
    return cache._load(key, loader, (), kept_as, *cache._arrive(key, kept_as[3], False), alone, 0)


def load_of_a_value(cache):
    load(cache, "new", lambda: (2,))


def load_of_what_no_codec_takes(cache):
    load(cache, "new", lambda: lambda: 1)


def load_that_fails(cache):
    load(cache, "new", lambda: 1 / 0)


def load_of_a_stale_value(cache):
    cache._fill("old", (1,), 1 << 60, 0, 0.001, 10_000, [], False)
    cache._freeze(cache.now_ms() + 5000)
    load(cache, "old", lambda: 1 / 0)


def load_that_others_wait_for(cache):
    flights, told = [], []

    def loader():
        ended, flight, _ = contextvars.Context().run(load, cache, "new", lambda: 1)
        if not ended and flight is not None:
            flight.waiters.add(lambda: told.append(flight.outcome()))
            flights.append(flight)
        load(cache, "new", lambda: 2)
        return (3,)

    load(cache, "new", loader)
    for flight in flights:
        flight.outcome()


class Once:
    def __await__(self):
        yield 1


def awaited(cache, loader):
    kept_as = kept(cache)
    since, asked_ms = cache._arrive("new", kept_as[3], False)
    return cache._aload("new", loader, (), kept_as, since, asked_ms, False, 0)


async def pauses():
    await Once()
    return (2,)


async def fails():
    await Once()
    raise OSError


def awaited_load(cache):
    step = awaited(cache, pauses)
    step.send(None)
    next(step)


def awaited_load_that_fails(cache):
    step = awaited(cache, fails)
    step.send(None)
    next(step)


def awaited_load_that_is_cancelled(cache):
    step = awaited(cache, pauses)
    step.send(None)
    step.throw(OSError())


def awaited_load_that_is_closed(cache):
    step = awaited(cache, pauses)
    step.send(None)
    step.close()


def awaited_load_that_is_dropped(cache):
    step = awaited(cache, pauses)
    step.send(None)
    del step


def asks(cache, *keys):
    kept_as = kept(cache)
    return [(key, *cache._arrive(key, kept_as[3], False), False, 0) for key in keys], kept_as


def load_many(cache, loader):
    asked, kept_as = asks(cache, "t", "new", "other")
    cache._load_many(asked, loader, kept_as)


def load_of_many(cache):
    def loader(keys):
        _core.flight.get().batch  # noqa: B018
        contextvars.Context().run(load_many, cache, lambda keys: [(4,)] * len(keys))
        cache._will_wait("none")
        return [(3,)] * len(keys)

    load_many(cache, loader)


def load_of_many_that_fails(cache):
    cache._fill("new", (1,), 1 << 60, 0, 0.001, 10_000, [], False)
    cache._freeze(cache.now_ms() + 5000)
    load_many(cache, lambda keys: 1 / 0)


def awaited_many(cache, loader):
    asked, kept_as = asks(cache, "t", "new", "other")
    return cache._aload_many(asked, loader, kept_as)


async def pauses_for_many(keys):
    await Once()
    return [(2,)] * len(keys)


def awaited_load_of_many(cache):
    step = awaited_many(cache, pauses_for_many)
    step.send(None)
    next(step)


def awaited_load_of_many_that_is_dropped(cache):
    step = awaited_many(cache, pauses_for_many)
    step.send(None)
    del step


def writing_a_value(cache):
    with _core.Writing(cache, "t") as w:
        w.set((3,), ttl=5, tags=Keys())
        w.stored, w._intent  # noqa: B018


def writing_nothing(cache):
    with _core.Writing(cache, "t"):
        pass


def writing_twice_and_an_exception(cache):
    w = _core.Writing(cache, "t")
    with w:
        pass
    with w:
        w.set(lambda: 1)
        raise OSError


def writing_in_a_coroutine(cache):
    async def block():
        async with _core.Writing(cache, "t") as w:
            await Once()
            w.set((3,))

    step = block()
    step.send(None)
    step.send(None)


def writing_that_is_dropped(cache):
    async def block():
        async with _core.Writing(cache, "t"):
            await Once()

    step = block()
    step.send(None)
    step.close()


def writing_by_hand(cache):
    w = _core.Writing(cache, "t")
    w.__enter__()
    w.__exit__(None, None, None)


SCENES = [
    load_of_many,
    load_of_many_that_fails,
    awaited_load_of_many,
    awaited_load_of_many_that_is_dropped,
    load_of_a_value,
    load_of_what_no_codec_takes,
    load_that_fails,
    load_of_a_stale_value,
    load_that_others_wait_for,
    awaited_load,
    awaited_load_that_fails,
    awaited_load_that_is_cancelled,
    awaited_load_that_is_closed,
    awaited_load_that_is_dropped,
    writing_a_value,
    writing_nothing,
    writing_twice_and_an_exception,
    writing_in_a_coroutine,
    writing_that_is_dropped,
    writing_by_hand,
]
NOT_VERBS = {"_attach", "__new__", "__init__", "__repr__", "__doc__", "__module__", "__dict__", "__weakref__"}


def cache_with_values(near_objects):
    cache = cachee_shm.Cache(SPEC._replace(near_objects=near_objects))
    cache.bridge_acquire()
    for name in ("web-1", "web-2", "web-3"):
        index = cache.source_open(name)
        cache.source_store(index, 1, 0)
        cache.source_tell(index, True, 1)
    cache.source_set_aside(index)
    for key, value in {
        "t": (1, 2),
        "s": "text",
        "u": "\u00e9",
        "i": 3,
        "f": 0.5,
        "b": b"x",
        "n": None,
        "d": {"a": [1, {"b": [2]}], "c": {}},
        "e": [[1], {"a": 2}],
    }.items():
        cache.set(key, value, tags=["x"] if key == "t" else [])
    cache.set("count", 1, local=True)
    for n in range(24):  # the near cache is full: whoever comes in pushes another out
        cache.set(f"near-{n}", (n,) if near_objects == SHARED else [n])
        cache.get(f"near-{n}")
    assert 0 < cache.stats()["near_entries"] < 24
    cache.get("d")  # it is near, "e" is not
    return cache


def close(cache):
    cache.close()


def attach_anew(cache):
    cache.close()
    holes.append(mmap.mmap(-1, MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0))  # not where the old one was
    cache._open()


def move(cache):
    cache._open()
    holes.append(mmap.mmap(-1, MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0))


holes = []


class Hook:
    def __init__(self, cache, at, act):
        self.cache, self.at, self.act, self.seen = cache, at, act, 0

    def __call__(self, where):
        self.seen += 1
        if self.seen == self.at:
            print(f"   point {self.at}: {where[:60]}: {self.act.__name__}", flush=True)
            self.act(self.cache)


def ran_to_its_end(name, call, at, act, near_objects):
    """Whether the verb had fewer points than that."""
    cache = cache_with_values(near_objects)
    hook = Hook(cache, at, act)
    _core._reentry(hook)
    try:
        call(cache)
    except SystemError:
        raise
    except (Exception, KeyError):
        pass
    finally:
        _core._reentry(None)
    if cache.closed:
        cache._open()
    assert cache.set("after", (1,)) and cache.get("after") == (1,), name
    cache.close()
    for hole in holes:
        hole.close()
    holes.clear()
    return hook.seen < at


def run(name, call, near_objects=SHARED):
    points = 0
    for act in (close, attach_anew, move):
        for at in range(1, POINTS_MAX):
            if ran_to_its_end(name, call, at, act, near_objects):
                points += at - 1
                break
        else:
            sys.exit(f"{name} has more than {POINTS_MAX} points")
    return points


def main():
    points = 0
    for name, found in vars(_core.Segment).items():
        if name in NOT_VERBS:
            continue
        print(name, flush=True)
        if type(found).__name__ == "getset_descriptor":
            points += run(name, lambda cache, name=name: getattr(cache, name))
            continue
        for arguments in CALLS.get(name, ANY):
            points += run(
                name, lambda cache, name=name, arguments=arguments: getattr(cache, name)(*arguments)
            )
    for name, calls in COPYING.items():
        print(f"{name}, copies", flush=True)
        for arguments in calls:
            points += run(
                name,
                lambda cache, name=name, arguments=arguments: getattr(cache, name)(*arguments),
                COPIES,
            )
    for scene in SCENES:
        print(scene.__name__, flush=True)
        points += run(scene.__name__, scene)
    print(f"{points} points")


main()
