"""Workers come and go, by exit and by SIGKILL, with values of all kinds: what they leave does not add up."""

import os

from tests.cachee_shm.processes import children, until
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
