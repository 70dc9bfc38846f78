"""Host coherence between processes, also when they are killed or stopped at any instruction."""

import mmap
import os
import random
import signal
import struct
import time

import pytest

import cachee_shm
from tests.cachee_shm.processes import child, children, forked, until

KEYS = 16
ROUNDS = int(os.environ.get("CACHEE_ROUNDS", "1"))
KILLING_S = 6.0 * ROUNDS

# What both sides know: for each writer and key, the newest number whose set() has returned, in a shared file.
# Stored whole: struct.pack_into() puts zeros there first, and a writer killed right then would leave a 0.
FLOORS = """
import mmap, random, struct
rng = random.Random(arguments['seed'])
with open(arguments['floors'], 'r+b') as file:
    floors = memoryview(mmap.mmap(file.fileno(), 0)).cast('q')
def floor(writer, key): return floors[writer * arguments['keys'] + key]
def raise_floor(writer, key, n): floors[writer * arguments['keys'] + key] = n
"""

# A number that was under way when the last one died may be visible: it goes on well above it.
WRITER = (
    FLOORS
    + """
me = arguments['writer']
numbers = [floor(me, key) + 1000 for key in range(arguments['keys'])]
say('writing')
while True:
    key = rng.randrange(arguments['keys'])
    numbers[key] += 1
    n, name = numbers[key], f'{me}:{key}'
    value = struct.pack('<q', n) + bytes(rng.randrange(3000))
    how = rng.random()
    if how < 0.6: cache.set(name, value, tags=[f'tag:{key}'] if how < 0.1 else (), ttl=60)
    elif how < 0.7:
        with cache.writing(name) as w: w.set(value)
    elif how < 0.8: cache.delete(name)
    elif how < 0.85: cache.touch(name, ttl=50); continue
    elif how < 0.9:
        token, started = cache._token()
        cache.delete(name)
        cache._fill(name, struct.pack('<q', n - 1), token, started, 60, 0, (), False)
    else:
        cache.delete(name)
        cache.get_or_load(name, lambda: value)
    raise_floor(me, key, n)
"""
)

READER = (
    FLOORS
    + """
seen, reads, stop = {}, 0, False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
say('reading')
while not stop:
    writer, key = rng.randrange(arguments['writers']), rng.randrange(arguments['keys'])
    least = floor(writer, key)
    value = cache.get(f'{writer}:{key}')
    if value is None: continue
    n = struct.unpack_from('<q', value)[0]
    newest = seen.get((writer, key), 0)
    if n < least or n < newest or any(value[8:]):
        say('STALE', writer, key, n, least, newest)
        sys.exit(1)
    seen[writer, key] = n
    reads += 1
say(reads)
"""
)


@pytest.fixture
def floors(tmp_path):
    path = tmp_path / "floors"
    path.write_bytes(bytes(8 * KEYS * 8))
    return str(path)


def test_no_reader_sees_an_older_value_while_writers_are_killed_and_nobody_hangs(cache, config, floors):
    rng = random.Random(7)
    shared = {"config": config, "floors": floors, "keys": KEYS, "writers": 3}
    killed = 0
    with children(READER, 2, seed=1, **shared) as readers:
        for reader in readers:
            reader.line()
        deadline = time.monotonic() + KILLING_S
        while time.monotonic() < deadline:
            with (
                child(WRITER, seed=rng.random(), writer=0, **shared) as a,
                child(WRITER, seed=rng.random(), writer=1, **shared) as b,
                child(WRITER, seed=rng.random(), writer=2, **shared) as c,
            ):
                for writer in (a, b, c):
                    writer.line()
                for writer in (a, b, c):
                    time.sleep(rng.random() * 0.05)
                    writer.kill()
                    killed += 1
            assert all(reader.process.poll() is None for reader in readers)
        for reader in readers:
            reader.process.terminate()
            assert int(reader.line()) > 100  # more by far, on a machine that is not busy
    cache.sweep()
    assert cache.sweep() == 0
    stats = cache.stats()
    assert (stats["attached"], stats["corrupt"], stats["no_room"]) == (1, 0, 0)
    assert stats["swept"] >= killed - 3
    with mmap_of(floors) as numbers:
        assert max(struct.unpack(f"<{KEYS * 3}q", numbers[: 8 * KEYS * 3])) > 1000
    assert_all_memory_is_usable(cache)


def mmap_of(path):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def assert_all_memory_is_usable(cache):
    """No page stays with the dead: one process can fill nearly all of them, eight entries a page."""
    cache.sweep()
    cache.clear()
    stats = cache.stats()
    value = bytes(stats["page_bytes"] // 8 - 80)
    fit = stats["value_bytes"] // stats["page_bytes"] * 8
    for i in range(2 * fit):
        assert cache.set(f"page-{i}", value)
    assert len(cache.get_many(f"page-{i}" for i in range(2 * fit))) >= fit * 0.95


def test_pages_of_the_dead_are_given_back(cache, config):
    for _ in range(5):
        with children(
            "cache.set_many({f'{i}': bytes(30_000) for i in range(10)}); die()", 4, config=config
        ) as all_:
            for one in all_:
                one.died()
    assert_all_memory_is_usable(cache)
    assert cache.stats()["attached"] == 1


def test_a_stopped_writer_holds_up_nobody(cache, config, floors):
    shared = {"config": config, "floors": floors, "keys": KEYS, "writers": 3, "seed": 5}
    with child(WRITER, writer=0, **shared) as stopped:
        stopped.line()
        for _ in range(20):
            time.sleep(0.005)
            os.kill(stopped.pid, signal.SIGSTOP)
            for i in range(500):
                assert cache.set(f"0:{i % KEYS}", i)
                assert cache.get(f"0:{i % KEYS}") == i
                assert cache.delete(f"0:{i % KEYS}")
                assert cache.get_or_load(f"other:{i % KEYS}", lambda: 1) == 1
            assert cache.sweep() == 0
            os.kill(stopped.pid, signal.SIGCONT)


def test_what_a_killed_writer_had_set_stays(cache, config):
    with child("cache.set('a', 1, tags=['t']); die()", config=config) as writer:
        writer.died()
    assert cache.get("a") == 1
    assert cache.sweep() == 1
    assert cache.get("a") == 1


def test_sweep_counts_the_dead_although_entering_any_verb_may_sweep_them(cache, config):
    with child("die()", config=config) as dead:
        dead.died()
    time.sleep(1.1)  # the first verb of a new second keeps house
    assert cache.sweep() == 1


def test_a_slot_is_given_to_the_next_also_without_a_sweep(cache, config):
    for _ in range(3):
        with child("cache.writing('a').__enter__(); die()", config=config) as writer:
            writer.died()
    cache.set("a", 1)
    assert len(cache.roster()) <= 4
    with children("wait()", 3, config=config):
        until(lambda: cache.stats()["attached"] == 4)
    cache.sweep()
    assert cache.stats()["attached"] == 1


def test_a_process_killed_while_it_attaches_leaves_nothing_behind(cache, config):
    code = "cache.close()\nsay('ready')\nwhile True: cachee_shm.attach(config=arguments['config']).close()"
    for _ in range(3):
        with children(code, 2, config=config) as attaching:
            for one in attaching:
                one.line()
                one.kill()
    cache.sweep()
    assert cache.stats()["attached"] == 1
    with cachee_shm.attach(config=config) as other:
        assert other.set("a", 1)
        assert cache.get("a") == 1


# Debts are paid by whoever lives, at any rate of use, with privileges or without.

IN_A_BLOCK = "cache.writing('owed').__enter__(); die()"
VERBS = {
    "a hit": lambda cache: cache.get("there"),
    "a miss": lambda cache: cache.get("nowhere"),
    "a near hit": lambda cache: cache.get("object"),
    "lookup": lambda cache: cache.lookup("there"),
    "in": lambda cache: "there" in cache,
    "get_many": lambda cache: cache.get_many(["there"]),
    "set": lambda cache: cache.set("mine", 1),
    "set, local": lambda cache: cache.set("mine", 1, local=True),
    "delete": lambda cache: cache.delete("mine"),
    "touch": lambda cache: cache.touch("there"),
    "incr": lambda cache: cache.host.incr("count", 1, initial=0),
    "get_or_load": lambda cache: cache.get_or_load("there", int),
    "delete_tags": lambda cache: cache.delete_tags("t"),
    "len": len,
    "stats": lambda cache: cache.stats(),
    "health": lambda cache: cache.health(),
}
VERBS_MAX = 12  # one each 0.25 s


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_on_a_quiet_host_any_verb_pays_what_a_dead_process_owes(cache, config, verb):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": True}
    with cachee_shm.attach(config=config) as seldom:
        seldom.set_many({"owed": "old", "there": 1})
        seldom.set("object", {"a": [1]})
        seldom.get("object")
        cache._freeze(cache.now_ms())  # it keeps no house: it only looks
        with child(IN_A_BLOCK, config=config) as writer:
            writer.died()
        verbs = 0
        while cache.get("owed") == "old" and verbs < VERBS_MAX:
            time.sleep(0.25)
            verb(seldom)
            verbs += 1
        assert cache.get("owed") is None


def drop_privileges():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def enter_an_empty_root(folder):
    os.chroot(folder)
    os.chdir("/")


@pytest.mark.needs("other users", "root directories")
@pytest.mark.parametrize("how", ["privileges", "chroot", "both"])
def test_a_process_without_privileges_or_proc_clears_up_after_another_one(cache, tmp_path, how):
    """Both were forked before: they attach no more, and cannot open the segment's file again."""
    cache.set("owed", "old")
    entered, says = os.pipe()

    def drop():
        if how != "privileges":
            enter_an_empty_root(tmp_path)
        if how != "chroot":
            drop_privileges()

    def dies():
        drop()
        cache.writing("owed").__enter__()
        cache.set("a page of its own", 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def lives():
        drop()
        os.write(says, b"x")
        until(lambda: cache.get("owed") is None)

    living = forked(lives)
    os.read(entered, 1)
    os.waitpid(forked(dies), 0)
    assert os.waitpid(living, 0)[1] == 0
    os.close(entered), os.close(says)
    cache.sweep()
    assert [pid for _, pid, *_ in cache.roster()] == [os.getpid()]


def test_a_process_stopped_in_a_sweep_delays_nobody(cache, config):
    """Stopped at any moment: one that sweeps all the time."""
    code = "say('sweeps')\nwhile True: cache.sweep()"
    with child(code, config=config) as sweeper:
        sweeper.line()
        for number in range(5):
            key = f"owed-{number}"
            cache.set(key, "old")
            with child(
                f"cache.writing({key!r}).__enter__(); say('in'); wait(); die()", config=config
            ) as writer:
                writer.line()
                os.kill(sweeper.pid, signal.SIGCONT)
                writer.tell()
                os.kill(sweeper.pid, signal.SIGSTOP)
                writer.died()
            cache.sweep()
            assert cache.get(key) is None
        os.kill(sweeper.pid, signal.SIGCONT)
