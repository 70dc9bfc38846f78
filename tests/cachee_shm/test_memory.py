"""Memory: what is over gives its space back, every size fits, and nothing goes beyond what was granted."""

import os
import random
import re
import uuid
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cachee_shm
from tests.cachee_shm.processes import forked
from tests.conftest import unlink

MIB = 1 << 20
HEADER_BYTES = 32  # of an entry; one tag, eight more
KEY_BYTES = 8
ROUNDS = 50
SHORT_MS = 1000


def config_of(memory, host):
    return {"host": {"name": host}, "namespaces": {"shop": {"memory": f"{memory}B"}}}


@contextmanager
def attached(memory, writers=1):
    """So many attachments of one segment."""
    host = f"test-{uuid.uuid4().hex[:12]}"
    try:
        with ExitStack() as stack:
            config = config_of(memory, host)
            yield [stack.enter_context(cachee_shm.attach(config=config)) for _ in range(writers)]
    finally:
        unlink(f"cachee.{host}")


class Population:
    """`live` entries, which fill 60 % of value memory and are read; each round, others fill 30 %."""

    def __init__(self, caches, value_bytes):
        self.caches, self.value = caches, bytes(value_bytes)
        self.now_ms = caches[0].now_ms()
        self.pass_time(0)
        entry = HEADER_BYTES + 8 + KEY_BYTES + -(-value_bytes // 8) * 8
        room = caches[0].stats()["value_bytes"]
        self.live = [f"l{number:07d}" for number in range(room * 6 // 10 // entry)]
        self.each_round = room * 3 // 10 // entry
        for key in self.live:
            assert caches[0].set(key, self.value)
        for _ in range(2):
            assert self.lost() == []

    def pass_time(self, ms):
        self.now_ms += ms
        for cache in self.caches:
            cache._freeze(self.now_ms)

    def lost(self):
        return [key for key in self.live if self.caches[0].get(key) is None]

    def passing(self, number, **options):
        """Fill a round's share with entries that will not last, by every attachment in turn."""
        keys = [f"{number % 100:02d}{at:06d}" for at in range(self.each_round)]
        for at, key in enumerate(keys):
            assert self.caches[at % len(self.caches)].set(key, self.value, **options)
        return keys


def expire(population, number):
    population.passing(number, ttl=SHORT_MS / 1000)
    population.pass_time(2 * SHORT_MS)


def delete(population, number):
    population.caches[0].delete_many(population.passing(number))


def delete_their_tag(population, number):
    population.passing(number, tags=["passing"])
    population.caches[0].delete_tags("passing")


@pytest.mark.parametrize(("memory", "writers"), [(8 * MIB, 1), (32 * MIB, 2)])
@pytest.mark.parametrize("end", [expire, delete, delete_their_tag])
def test_dead_entries_make_room_before_any_living_one(end, memory, writers):
    with attached(memory, writers) as caches:
        population = Population(caches, 1000)
        for number in range(ROUNDS):
            end(population, number)
            assert population.lost() == []


def test_if_every_read_hits_the_small_queue_takes_no_room_from_entries_that_are_read():
    """The climb looks each ten times as many reads as there are entries: here a dozen times."""
    with attached(8 * MIB) as caches:
        population = Population(caches, 1000)
        for number in range(ROUNDS):
            for _ in range(3):
                assert population.lost() == []
            expire(population, number)


def test_after_a_clear_all_of_the_memory_is_there_again():
    with attached(8 * MIB) as (cache,):
        room, value = cache.stats()["value_bytes"], bytes(1000)
        keys = [f"{number:08d}" for number in range(room * 9 // 10 // (HEADER_BYTES + KEY_BYTES + 1000))]
        for _ in range(10):
            for key in keys:
                assert cache.set(key, value)
            assert [key for key in keys if cache.get(key) is None] == []
            cache.clear()
            assert [key for key in keys if cache.get(key) is not None] == []


BURST = st.tuples(
    st.floats(6, 20),  # the power of two of its largest value
    st.booleans(),  # all as large, or from 64 B on
    st.integers(1, 60),  # values
    st.sampled_from(["new", "again", "short", "tagged", "deleted", "read"]),
)


@pytest.mark.fuzz
@pytest.mark.parametrize("memory", [8 * MIB, 32 * MIB])
@settings(max_examples=settings().max_examples // 4)
@given(
    bursts=st.lists(BURST, min_size=1, max_size=40),
    writers=st.integers(1, 4),
    seed=st.integers(0, 1 << 32),
)
def test_a_mixture_of_sizes_never_makes_a_set_fail(memory, bursts, writers, seed):
    drawn = random.Random(seed)
    blob = drawn.randbytes(MIB)
    with attached(memory, writers) as caches:
        largest = min(MIB, caches[0].stats()["value_bytes"] // 8)
        for number, (power, is_fixed, count, kind) in enumerate(bursts):
            for at in range(count):
                size = min(int(2 ** (power if is_fixed else drawn.uniform(6, power))), largest)
                cache = drawn.choice(caches)
                key = f"{0 if kind == 'again' else number}:{at}"
                options = {"short": {"ttl": 0.001}, "tagged": {"tags": ["t"]}}.get(kind, {})
                assert cache.set(key, blob[:size], **options)
                if kind == "deleted":
                    cache.delete(key)
            if kind == "tagged":
                caches[0].delete_tags("t")


def test_two_hundred_processes_that_write_one_value_and_exit_keep_each_other_s():
    """A segment of 106 pages: each that is left begun is gone on with by the next."""
    count, at_once = 200, 4

    def write(config, number):
        with cachee_shm.attach(config=config) as own:
            assert own.set(f"k{number}", bytes(1000))

    with attached(2 * MIB) as (cache,):
        config = config_of(2 * MIB, cache.name.split(".")[1])
        running = []
        for number in range(count):
            running.append(forked(lambda number=number: write(config, number)))
            if len(running) == at_once:
                assert os.waitpid(running.pop(0), 0)[1] == 0
        assert [os.waitpid(pid, 0)[1] for pid in running] == [0] * len(running)
        assert [number for number in range(count) if cache.get(f"k{number}") is None] == []
        assert cache.stats()["evicted"] == 0


def shared_kib(pid, name):
    """Resident memory of a process's mappings of a shared file."""
    with open(f"/proc/{pid}/smaps", encoding="ascii") as file:
        mappings = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", file.read())
    return sum(int(re.search(r"^Rss: +(\d+)", each, re.MULTILINE)[1]) for each in mappings if name in each)


def test_it_never_takes_more_than_it_was_granted():
    memory = 8 * MIB
    with attached(memory, 2) as caches:
        path = f"/dev/shm/{caches[0].name.lstrip('/')}"
        for number in range(40_000):
            caches[number % 2].set(f"{number}", bytes(1 + number % 3000), tags=["t"], ttl=60)
            caches[number % 2].get(f"{number // 2}")
        file = os.stat(path)
        assert (file.st_size, file.st_blocks * 512) == (memory, memory)
        lock_pages = 4 * len(caches)  # each maps the header once more: it holds the lock of its roster slot
        # one process, two attachments: two mappings of the same memory
        assert 0 < shared_kib("self", path) <= len(caches) * memory // 1024 + lock_pages
