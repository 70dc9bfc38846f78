"""How a namespace fares, with a bridge that says what it is told to."""

import os

import pytest

from cachee_shm import Health, PeerHealth
from cachee_shm._core import LAYOUT
from cachee_shm.errors import Closed
from tests.cachee_shm import bridged
from tests.cachee_shm.processes import until


@pytest.fixture
def bridge(config):
    made = bridged.Bridge(config)
    made.segment.set_serve_until(1 << 62)
    yield made
    made.close()


@pytest.fixture
def shop(config):
    with bridged.attach(config) as attached:
        yield attached


def test_without_a_bridge_there_is_nothing_to_miss(cache):
    cache.set("k", 1)
    health = cache.health()
    assert health == Health(True, "", "none", None, False, (), 1, health.free_bytes)


def test_free_memory_is_what_holds_nothing(cache):
    empty = cache.health().free_bytes
    assert 0 < empty <= cache.stats()["value_bytes"]
    for number in range(100):
        cache.set(f"k{number}", bytes(4096))
    half = cache.health().free_bytes
    assert half <= empty - 100 * 4096 + 2 * cache.stats()["page_bytes"]
    for number in range(2000):
        cache.set(f"k{number}", bytes(4096))
    assert cache.health().free_bytes < empty // 10


class TestBridge:
    def test_one_that_was_never_started_is_down_and_nobody_knows_since_when(self, shop):
        health = shop.health()
        assert (health.ok, health.bridge, health.bridge_s, health.isolated) == (False, "down", None, True)

    def test_one_that_has_left_is_red_at_once_though_it_still_lives(self, shop, bridge):
        bridge.vouch(60_000)
        assert shop.health().ok
        bridge.segment.bridge_leave(True)
        assert (shop.health().ok, shop.health().bridge) == (False, "left")
        assert not shop._synced(*shop._written())
        assert bridge.segment.bridge_acquire()
        assert shop.health().bridge == "up"

    @pytest.mark.parametrize("lost", ["removed", "retired", "given more memory"])
    def test_one_that_has_left_is_red_in_the_segments_that_follow(self, config, lost):
        config["namespaces"]["shop"]["memory"] = "4MiB"
        left = bridged.Bridge(config)
        left.segment.bridge_leave(True)
        left.close()
        path = f"/dev/shm/cachee.{config['host']['name']}.shop.{LAYOUT}"
        before = os.stat(path).st_ino
        shop = bridged.attach(config)
        if lost == "removed":
            os.unlink(path)
        elif lost == "retired":
            shop.retire()
        else:
            shop.close()
            config["namespaces"]["shop"]["memory"] = "8MiB"
            shop = bridged.attach(config)
        until(lambda: shop.set("k", 1) and os.path.exists(path) and os.stat(path).st_ino != before)
        until(lambda: not shop.detached)
        assert shop.health().bridge == "left"
        back = bridged.Bridge(config)
        assert shop.health().bridge == "up"
        os.unlink(path)
        until(lambda: shop.set("k", 2) and os.path.exists(path) and not shop.detached)
        assert shop.health().bridge == "down"
        back.close()
        shop.close()

    def test_one_that_tells_is_up_since_it_took_the_segment(self, shop, bridge):
        now = shop.now_ms()
        shop._freeze(now + 10_000)
        bridge.vouch(60_000)
        health = shop.health()
        assert (health.ok, health.bridge, health.isolated) == (True, "up", False)
        assert health.bridge_s >= 10.0

    def test_one_that_lives_and_tells_nothing_hangs_since_its_last_word(self, shop, bridge):
        bridge.segment._freeze(shop.now_ms() + 1000)
        bridge.vouch(500)
        shop._freeze(shop.now_ms() + 3000)
        health = shop.health()
        assert (health.ok, health.bridge) == (False, "hung")
        assert 1.5 <= health.bridge_s <= 2.0

    def test_one_that_has_not_told_yet_has_been_so_since_it_took_the_segment(self, config, shop):
        bridge = bridged.Bridge(config)
        bridge.segment._freeze(1)
        bridge.vouch(0)  # as a former life of it left it
        shop._freeze(shop.now_ms() + 1000)
        health = shop.health()
        assert health.bridge == "hung"
        assert 1.0 <= health.bridge_s < 60
        bridge.close()

    def test_one_that_died_is_down_since_its_last_word(self, shop, bridge):
        bridge.close()
        health = shop.health()
        assert (health.ok, health.bridge) == (False, "down")
        assert health.bridge_s is not None


class TestPeers:
    def test_each_is_told_with_what_it_lacks_and_how_old_its_word_is(self, shop, bridge):
        shop.set("k", 1)
        shop.set("k", 2)
        now = shop.now_ms()
        shop._freeze(now)
        bridge.tell("web-3", None, fresh_ms=0)
        bridge.tell("web-2", 1, fresh_ms=now - 250)
        health = shop.health()
        assert health.peers == (
            PeerHealth("web-2", True, 1, 1, 0.25),
            PeerHealth("web-3", True, None, 2, None),
        )
        assert health.ok
        assert health.tail == 2

    def test_one_that_cannot_be_reached_is_named(self, shop, bridge):
        bridge.tell("web-2", 0)
        bridge.tell("web-3", 0, reachable=False)
        health = shop.health()
        assert health.unreachable == ["web-3"]
        assert not health.ok

    def test_isolation_alone_is_not_well(self, shop, bridge):
        bridge.tell("web-2", 0)
        bridge.segment.set_serve_until(0)
        health = shop.health()
        assert (health.ok, health.bridge, health.isolated, health.unreachable) == (False, "up", True, [])


class TestSegment:
    def test_one_that_cannot_be_attached_any_more_is_told_not_raised(self, shop):
        shop.spec = shop.spec._replace(memory_bytes=1 << 60)
        shop.retire()
        health = shop.health()
        assert not health.ok
        assert health.error
        assert health == Health(False, health.error, "down", None, True, (), 0, 0)

    def test_one_that_was_replaced_is_followed(self, shop, config):
        shop.set("k", 1)
        shop.retire()
        assert shop.health().tail == 1  # that it cleared

    def test_a_closed_cache_says_so(self, cache):
        cache.close()
        with pytest.raises(Closed):
            cache.health()
