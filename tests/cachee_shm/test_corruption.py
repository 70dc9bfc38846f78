"""Wrong bytes in /dev/shm under live processes: each answer is a miss, a clear error, or of a new segment."""

import json
import os
import random
import signal
import time
from contextlib import suppress

import pytest

import cachee_shm
from tests.cachee_shm.processes import children

CORRUPTIONS = 3000 * int(os.environ.get("CACHEE_ROUNDS", "1"))
HEADER_BYTES = 1024  # of its page, those in use
PAGE_BYTES = 65536

# Whoever reads knows what may stand under a name. An exception that is not Cachee's ends the process.
WORKER = """
import collections, logging, random
logging.disable()  # each new segment is a warning
rng, counts, stop = random.Random(arguments['number']), collections.Counter(), False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
def value_of(key, n):
    match key % 4:
        case 0: return f'{key}:{n}'.encode() + bytes(rng.randrange(3000))
        case 1: return f'{key}:{n}:' + 'x' * rng.randrange(300)
        case 2: return {'key': key, 'n': n, 'of': ['a'] * rng.randrange(30)}
        case _: return f'{key}:{n}:'.encode() + bytes(20_000)
def is_right(key, value):
    match key % 4:
        case 0: return type(value) is bytes and value.startswith(f'{key}:'.encode()) and not any(value[20:])
        case 1: return type(value) is str and value.startswith(f'{key}:') and set(value[20:]) <= {'x'}
        case 2: return type(value) is dict and value['key'] == key and set(value['of']) <= {'a'}
        case _: return type(value) is bytes and value.startswith(f'{key}:'.encode()) and not any(value[20:])
def check(key, value):
    right = is_right(key, value)
    counts['right' if right else 'wrong'] += 1
def one(n):
    key, how = rng.randrange(200), rng.random()
    name = f'key-{key}'
    if how < 0.5:
        value = cache.get(name)
        check(key, value) if value is not None else counts.update(['misses'])
    elif how < 0.55: cache.set(name, value_of(key, n), tags=['t'])
    elif how < 0.75: cache.set(name, value_of(key, n), ttl=60 if how < 0.65 else None)
    elif how < 0.85: check(key, cache.get_or_load(name, lambda: value_of(key, n)))
    elif how < 0.9: cache.delete(name)
    elif how < 0.95:
        with cache.writing(name) as w: w.set(value_of(key, n))
    elif how < 0.97: cache.touch(name, ttl=50)
    elif how < 0.98: cache.add(name, value_of(key, n))
    elif how < 0.99: cache.stats(), cache.roster(), cache.sources(), len(cache)
    elif n % 50 == 0: cache.delete_tags('t')
say('works')
n = 0
while not stop:
    n += 1
    try: one(n)
    except cachee_shm.CacheeError as error: counts[type(error).__name__] += 1
    except (KeyError, TypeError) as error:
        if not arguments['values_too']: raise
        counts['wrong'] += 1
say(json.dumps(counts))
"""


class Corruptor:
    """Writes into whatever file has the segment's name now.

    It lives in no segment, so a file that its damage made look new may be truncated under it. A mapping would
    then end it with SIGBUS; a write by offset does not.
    """

    def __init__(self, path, seed):
        self.path, self.rng = path, random.Random(seed)
        self.file = None

    def look(self):
        """Is there a file to write into?"""
        try:
            if self.file is None or os.stat(self.path).st_ino != os.fstat(self.file.fileno()).st_ino:
                file = open(self.path, "r+b", buffering=0)  # noqa: SIM115 - until the next one
                if self.file is not None:
                    self.file.close()
                self.file = file
        except FileNotFoundError:
            return False
        return os.fstat(self.file.fileno()).st_size > 0

    def hit(self, end):
        """One word before ``end``; one in ten is in the header."""
        rng = self.rng
        at = rng.randrange(0, HEADER_BYTES if rng.random() < 0.1 else end, 8)
        word = int.from_bytes(os.pread(self.file.fileno(), 8, at), "little")
        new = rng.choice(
            (0, 2**64 - 1, rng.getrandbits(64), word ^ 1 << rng.randrange(64), word + 1, word - 1)
        )
        if at < os.fstat(self.file.fileno()).st_size:
            os.pwrite(self.file.fileno(), (new % 2**64).to_bytes(8, "little"), at)


@pytest.mark.parametrize("values_too", [False, True], ids=["tables", "values too"])
def test_wrong_bytes_give_misses_clear_errors_or_a_new_segment(config, values_too):
    with cachee_shm.attach(config=config) as cache:
        path, stats = f"/dev/shm{cache.name}", cache.stats()
    end = stats["memory_bytes"]
    if not values_too:  # what the pages and the rest behind them do not reach
        end -= stats["value_bytes"] + 2 * PAGE_BYTES
    corruptor = Corruptor(path, seed=end)
    with children(WORKER, 3, config=config, values_too=values_too) as workers:
        for worker in workers:
            worker.line()
        for n in range(CORRUPTIONS):
            if corruptor.look():
                corruptor.hit(end)
            if n % 4 == 0:
                time.sleep(0.001)
            assert all(worker.process.poll() is None for worker in workers)
        counts = []
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            counts.append(json.loads(worker.line()))
            worker.end()
    assert all(one["right"] > 0 for one in counts)
    assert values_too or not any(one.get("wrong") for one in counts)
    with suppress(FileNotFoundError):
        os.unlink(path)
    with cachee_shm.attach(config=config) as cache:
        assert cache.set("a", 1)
        assert cache.get("a") == 1
