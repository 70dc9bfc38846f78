"""Workers come and go, by exit and by SIGKILL, with values of all kinds: what they leave does not add up.

Nor does what one process leaves that attaches and closes, cannot attach, forks, or has its segment damaged.
"""

import os

import posix_ipc
import pytest

from cachee_shm._core import LAYOUT
from tests import machine
from tests.cachee_shm import bridged
from tests.cachee_shm.processes import child, children, until
from tests.cachee_shm.test_death import assert_all_memory_is_usable

COMERS = 60 * int(os.environ.get("CACHEE_ROUNDS", "1"))
RSS_SLACK_BYTES = (
    512 << 10
)  # what the allocator keeps back; a leak of each dict that is set would be twice that

MIX = """
import gc, logging, random
logging.disable()
rng = random.Random(arguments['number'])
def value():
    kind = rng.randrange(6)
    if kind == 0: return rng.randbytes(rng.randrange(2000))
    if kind == 1: return 'x' * rng.randrange(2000)
    if kind == 2: return rng.random()
    if kind == 3: return {'a': [1, 2.5, None, 'b'] * rng.randrange(40)}
    if kind == 4: return rng.randbytes(rng.randrange(200_000))
    return None
def work(cache, n):
    for _ in range(n):
        key, how = f'key-{rng.randrange(400)}', rng.random()
        if how < 0.5: cache.get(key)
        elif how < 0.7: cache.set(key, value(), ttl=rng.choice((None, 0.01, 60)))
        elif how < 0.75: cache.set(key, value(), tags=['t'])
        elif how < 0.85: cache.get_or_load(key, value)
        elif how < 0.9: cache.delete(key)
        elif how < 0.95:
            with cache.writing(key) as w: w.set(value())
        elif how < 0.97: cache.get_many(['a', key]); cache.set_many({key: 1}); cache.stats(); cache.roster()
        elif how < 0.99: cache.touch(key, ttl=5); cache.add(key, 1)
        else: cache.delete_tags('t')
"""

# Works on, and tells what it holds when it is asked.
STEADY = (
    MIX
    + """
def held():
    gc.collect()
    with open('/proc/self/status') as status:
        rss = [int(line.split()[1]) << 10 for line in status if line.startswith('RssAnon')]
    return rss[0], len(os.listdir('/proc/self/fd'))
say('works')
while True:
    work(cache, int(wait()))
    say(*held())
"""
)

# Forks one worker after another; each attaches for itself, works, and leaves in one of three ways.
NURSERY = (
    MIX
    + """
def live(n):
    rng.seed(n)
    mine = cachee_shm.attach(config=arguments['config'])
    if n % 3 == 0: signal.setitimer(signal.ITIMER_REAL, rng.random() * 0.02)
    if n % 3 == 1: mine.writing('key-1').__enter__()
    work(mine, 200)
    if n % 3 == 1: die()
    if n % 2: mine.close()
cache.close()
signal.signal(signal.SIGALRM, lambda *_: die())
say('works')
n = 0
while True:
    for _ in range(int(wait())):
        n += 1
        pid = os.fork()
        if pid == 0:
            live(n)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in (0, -signal.SIGKILL): say('ended with', status)
    say('had', n)
"""
)


@pytest.mark.timeout(1200)  # 12 s of work for each of three processes, on a machine that others use too
def test_what_workers_leave_behind_does_not_add_up(cache, config):
    def pass_by(comers):
        for one in (*steady, nursery):
            one.tell(str(comers * 600 if one in steady else comers))
        assert nursery.line().startswith("had")
        return [tuple(map(int, one.line().split())) for one in steady]

    with children(STEADY, 2, config=config) as steady, children(NURSERY, config=config) as (nursery,):
        for one in (*steady, nursery):
            one.line()
        pass_by(COMERS)  # what is held for good is held by now
        before = pass_by(COMERS)
        slots = max(slot for slot, *_ in cache.roster())
        after = pass_by(COMERS)
        for (rss, files), (rss_then, files_then) in zip(before, after, strict=True):
            assert files_then == files
            assert rss_then <= rss + RSS_SLACK_BYTES
        cache.sweep()
        assert cache.stats()["attached"] == 3
        assert max(slot for slot, *_ in cache.roster()) <= max(slots, 8)
    until(lambda: cache.sweep() == 0 and cache.stats()["attached"] == 1)
    assert_all_memory_is_usable(cache)
    assert cache.stats()["corrupt"] == 0


# Attaches and closes in every way there is, and tells what it holds. A bridge sleeps: each first write rings.
GUEST = """
import contextlib, gc, glob, logging, mmap, struct, warnings
logging.disable(); warnings.simplefilter('ignore')
from cachee_shm.errors import LayoutMismatch
plain, bridged, garbage = (arguments[name] for name in ('plain', 'bridged', 'garbage'))
HEADER_MAGIC, HEADER_STATE = 0, 216

def fall_asleep(bell):
    while not bell.bridge_sleep(True): bell.heal(bell.tail - 1, 1 << 20, 0, b'')

def attach_and_close(bell):
    with cachee_shm.attach(config=plain) as cache:
        cache.set('a', {'a': 1}); cache.get('a')
    with cachee_shm.attach(private=True) as cache:
        cache.set('a', bytes(100_000))
    with cachee_shm.attach(config=bridged) as cache:
        fall_asleep(bell)
        cache.set('a', 1)
    cache = cachee_shm.attach(config=bridged)
    fall_asleep(bell)
    cache.set('a', 1)
    del cache

def fail_to_attach():
    with contextlib.suppress(LayoutMismatch):
        cachee_shm.attach(config=garbage)
        say('garbage was attached to')

def fork_and_end(bell):
    with cachee_shm.attach(config=bridged) as cache:
        fall_asleep(bell)
        cache.set('a', 1)
        if (pid := os.fork()) == 0:
            cache.set('a', 2)
            os._exit(0)
        os.waitpid(pid, 0)

def be_damaged(offset, value):
    with cachee_shm.attach(config=plain) as cache:
        made = cache.incarnation
        with open(f'/dev/shm{cache.name}', 'r+b') as file:
            file.seek(offset)
            file.write(struct.pack('<Q', value))
        while cache.incarnation == made:
            cache.get('a'); cache.set('b', 1); time.sleep(0.02)

def page_words(file):
    '''Where the words of the pages are, as layout.h and segment.c have it, and the words.'''
    tag_slots, buckets, pages, _ = struct.unpack_from('<4I', file, 72)
    own_tags_at, = struct.unpack_from('<Q', file, 4096 - 128 + 72)
    index_at = -(-(own_tags_at + 4 * tag_slots) // 64) * 64
    at = index_at + 64 * buckets
    return at, struct.unpack_from(f'<{pages}Q', file, at)

STATE, OWNER, HELD, SEALED = 7, 0xFFF, (1, 3, 4), 2

def lost_pages(cache, file):
    '''Pages that are held, and by no process that lives.'''
    live = {slot for slot, *_, alive in cache.roster() if alive}
    return sum(word & STATE in HELD and word >> 4 & OWNER not in live for word in page_words(file)[1])

def lose_pages(cache):
    '''By a death, and by words whose owner cannot be: how many, before and after a sweep.'''
    cache.set_many({f'page-{i}': bytes(30_000) for i in range(100)})
    if (pid := os.fork()) == 0:
        cache.set_many({f'child-{i}': bytes(30_000) for i in range(10)})
        die()
    os.waitpid(pid, 0)
    with open(f'/dev/shm{cache.name}', 'r+b') as opened, mmap.mmap(opened.fileno(), 0) as file:
        at, words = page_words(file)
        sealed = [i for i, word in enumerate(words) if word & STATE == SEALED]
        for n, i in enumerate(sealed[::3]):
            stray = words[i] & ~(OWNER << 4 | STATE) | OWNER << 4 | HELD[n % 3]
            struct.pack_into('<Q', file, at + 8 * i, stray)
        lost = lost_pages(cache, file)
        cache.sweep()
        return lost, lost_pages(cache, file)

def held():
    gc.collect()
    with open('/proc/self/maps') as maps:
        shared = sum('cachee' in line for line in maps)
    files = glob.glob(f"/dev/shm/cachee.{plain['host']['name']}*")
    return len(os.listdir('/proc/self/fd')), shared, len(files)

say('ready')
bell = cachee_shm.attach(config=bridged)
while True:
    for _ in range(int(wait())):
        attach_and_close(bell)
        fail_to_attach()
        fork_and_end(bell)
    be_damaged(HEADER_STATE, 2)
    be_damaged(HEADER_MAGIC, 7)
    say(*held(), bell.stats()['doorbells'], *lose_pages(bell))
"""


@pytest.fixture
def queue(config):
    name = f"/cachee.{config['host']['name']}-b"
    machine.require("message queues")
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=2, max_message_size=128)
    yield queue
    queue.close()
    queue.unlink()


def test_attaching_closing_failing_forking_and_being_damaged_leaves_nothing_open(config, queue):
    """Descriptors, mappings and files are as many after two rounds as after one. No page is lost."""
    host = config["host"]["name"]
    second = bridged.with_bridge({**config, "host": {"name": f"{host}-b"}})
    third = {**config, "host": {"name": f"{host}-c"}}
    garbage = f"/dev/shm/cachee.{host}-c.shop.{LAYOUT}"
    with open(garbage, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(b"not a segment " * 1000)
    with child(GUEST, plain=config, bridged=second, garbage=third) as guest:
        assert guest.line() == "ready"
        rounds = []
        for _ in range(3):
            guest.tell("10")
            rounds.append([int(word) for word in guest.line().split()])
    assert rounds[2][:3] == rounds[1][:3]
    assert rounds[1][3] - rounds[0][3] >= 10
    for *_, lost, lost_after_a_sweep in rounds:
        assert lost > 8
        assert lost_after_a_sweep == 0
