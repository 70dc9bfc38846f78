"""A machine that is suspended: its values grow old meanwhile, and it has heard of no change."""

import json

import pytest

from tests.cachee_shm.processes import child
from tests.cachee_shm.suspending import SUSPEND

LOOKED = """
def looked():
    '''A second has begun since, as it has after any suspend: the next verb looks.'''
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)
    time.sleep(0.05)  # the core's second is as coarse as the kernel's tick
"""


pytestmark = pytest.mark.needs("time namespaces")


def test_the_time_in_suspend_counts_for_lifetimes(config):
    code = f"""{SUSPEND}{LOOKED}
cache.set('short', 1, ttl=100), cache.set('long', 1, ttl=1000), cache.set('for ever', 1, ttl=None)
say(json.dumps(sorted(cache.get_many(['short', 'long', 'for ever']))))
suspended(200)
looked()
say(json.dumps(sorted(cache.get_many(['short', 'long', 'for ever']))))
suspended(2000)
looked()
say(json.dumps(sorted(cache.get_many(['short', 'long', 'for ever']))))
"""
    with child(code, config=config) as other:
        assert json.loads(other.line()) == ["for ever", "long", "short"]
        assert json.loads(other.line()) == ["for ever", "long"]
        assert json.loads(other.line()) == ["for ever"]


def test_a_host_that_wakes_is_isolated_at_its_first_verb_until_its_bridge_has_heard_its_peers(config):
    config["bridge"] = {"listen": "127.0.0.1:7946"}
    config["namespaces"]["shop"].update(on_isolation="cap", isolation_ttl="100s")
    code = f"""{SUSPEND}{LOOKED}
def look():
    say(json.dumps([cache.get('k'), cache.health().isolated, cache.stats()['isolated']]))
assert cache.bridge_acquire()
cache.set_serve_until(cache.now_ms() + 60_000)
cache.set('k', 1)
look()
suspended(200)
looked()
look()
cache.set_serve_until(cache.now_ms() + 60_000)
look()
"""
    with child(code, config=config) as other:
        assert json.loads(other.line()) == [1, False, 0]
        assert json.loads(other.line()) == [None, True, 1]
        assert json.loads(other.line()) == [1, False, 1]


def test_what_was_suspended_before_the_segment_was_made_is_not_new_to_anybody(config):
    code = f"""{SUSPEND}{LOOKED}
suspended(5000)
cache = cachee_shm.attach(config=arguments['settings'])
made = cache.now_ms()
cache.set('k', 1, ttl=100)
looked()
since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
say(json.dumps([cache.get('k'), cache.now_ms() - made < 50_000, since_boot - made < 50_000]))
"""
    with child(code, settings=config) as other:
        assert json.loads(other.line()) == [1, True, True]


def test_a_damaged_word_of_the_clock_retires_the_segment(config, cache):
    """No machine was suspended for less than it was suspended for."""
    cache.set("k", 1)
    with open(f"/dev/shm{cache.name}", "r+b") as file:
        file.seek(232)
        file.write((10**12).to_bytes(8, "little"))
    with child(f"{LOOKED}\nlooked()\nsay(cache.get('k'))", config=config) as other:
        assert other.line() == "None"
        other.end()
    assert cache.get("k") is None
    assert cache.set("k", 2) and cache.get("k") == 2
