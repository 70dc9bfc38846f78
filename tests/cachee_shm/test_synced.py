"""Waiting until the peers have applied what was written; the bridge says what a test wants."""

import asyncio
import itertools
import threading
import time
from datetime import timedelta

import posix_ipc
import pytest

import cachee_shm
from cachee_shm.errors import Closed
from tests import machine
from tests.cachee_shm import bridged
from tests.cachee_shm.processes import children

SHORT_S = 0.02
LONG_S = 60.0


@pytest.fixture
def bridge(config):
    made = bridged.Bridge(config)
    yield made
    made.close()


@pytest.fixture
def shop(config):
    with bridged.attach(config) as attached:
        yield attached


@pytest.fixture
def bell(shop):
    machine.require("message queues")
    queue = posix_ipc.MessageQueue(shop.spec.doorbell, posix_ipc.O_CREX, max_messages=2, max_message_size=128)
    yield queue
    queue.close()
    queue.unlink()


def synced(cache, timeout=SHORT_S):
    return cache.wait_synced(timeout)


class TestWithoutABridgeThatTells:
    def test_without_one_in_the_configuration_it_is_true(self, cache):
        cache.set("k", 1)
        assert synced(cache)
        with cachee_shm.attach(private=True) as alone:
            assert synced(alone)

    def test_one_that_was_never_started_is_a_no(self, shop):
        shop.set("k", 1)
        assert not synced(shop)

    def test_one_that_has_died_is_a_no_though_its_last_word_would_still_count(self, shop, bridge):
        shop.set("k", 1)
        assert synced(shop)
        bridge.close()
        assert not synced(shop)

    def test_one_that_has_been_silent_for_too_long_is_a_no(self, shop, bridge):
        assert synced(shop)
        bridge.vouch(-1000)
        assert not synced(shop)

    def test_it_is_a_yes_again_once_a_bridge_tells(self, shop, bridge):
        bridge.vouch(-1000)
        later = threading.Timer(SHORT_S, bridge.vouch)
        later.start()
        assert synced(shop, LONG_S)
        later.join()


class TestPeers:
    def test_without_any_it_is_true(self, shop, bridge):
        shop.set("k", 1)
        assert synced(shop)

    def test_all_of_them_must_have_applied_the_last_write(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", shop.tail)
        bridge.tell("web-3", shop.tail - 1)
        assert not synced(shop)
        bridge.tell("web-3", shop.tail)
        assert synced(shop)
        shop.delete("k")
        assert not synced(shop)

    @pytest.mark.parametrize(
        "write",
        [
            lambda cache: cache.set("k", 1),
            lambda cache: cache.add("new", 1),
            lambda cache: cache.delete("k"),
            lambda cache: cache.delete_tags("t"),
            lambda cache: cache.clear(),
            lambda cache: cache.set_many({"a": 1, "b": 2}),
            lambda cache: cache.writing("k").__enter__().__exit__(None, None, None),
        ],
    )
    def test_whatever_is_announced_counts(self, shop, bridge, write):
        bridge.tell("web-2", shop.tail)
        assert synced(shop)
        write(shop)
        assert not synced(shop)

    def test_what_stays_on_the_host_does_not_count(self, shop, bridge):
        bridge.tell("web-2", shop.tail)
        shop.set("draft", 1, local=True)
        shop.get_or_load("k", lambda: 1)
        assert synced(shop)

    def test_one_that_has_said_nothing_yet_is_waited_for_even_by_who_wrote_nothing(self, shop, bridge):
        bridge.tell("web-2", None)
        assert not synced(shop)
        bridge.tell("web-2", 0)
        assert synced(shop)

    def test_one_that_cannot_be_reached_holds_nobody_up(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", 0, reachable=False)
        bridge.tell("web-3", shop.tail)
        assert synced(shop)

    def test_one_that_was_forgotten_holds_nobody_up(self, shop, bridge):
        shop.set("k", 1)
        index = bridge.tell("web-2", 0)
        assert not synced(shop)
        bridge.segment.source_forget(index)
        assert synced(shop)

    def test_one_that_was_removed_and_may_come_back_holds_nobody_up(self, shop, bridge):
        shop.set("k", 1)
        index = bridge.tell("web-2", 0)
        bridge.segment.source_set_aside(index)
        assert synced(shop)
        assert shop.health().peers == ()

    def test_who_comes_into_its_slot_has_said_nothing(self, shop, bridge):
        shop.set("k", 1)
        index = bridge.tell("web-2", shop.tail)
        bridge.segment.source_forget(index)
        names = (f"web-{number}" for number in itertools.count(3))
        newcomer = next(name for name in names if bridge.segment.source_open(name) == index)
        assert bridge.tell(newcomer, None) == index
        assert not synced(shop)

    def test_a_position_that_was_never_written_is_not_believed(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", shop.tail + 1)
        assert not synced(shop)

    def test_a_position_that_is_written_only_later_is_not_believed_then(self, shop, bridge):
        bridge.tell("web-2", shop.tail + 2)
        shop.set("k", 1)
        shop.set("l", 1)
        assert not synced(shop)

    def test_only_known_slots_take_a_word(self, bridge):
        for index in (0, 1 << 20):
            with pytest.raises(ValueError, match="no source"):
                bridge.segment.source_acked(index, 1)
            with pytest.raises(ValueError, match="no source"):
                bridge.segment.source_tell(index, True, 1)


class TestWhoseWrites:
    def test_what_another_process_wrote_is_not_waited_for(self, config, shop, bridge):
        bridge.tell("web-2", shop.tail)
        code = "cache.set('k', 1); say(cache.wait_synced(0))"
        with children(code, config=bridged.with_bridge(config)) as (other,):
            assert other.line() == "False"
        assert synced(shop)

    def test_a_segment_that_was_replaced_is_synced_once_peers_have_met_its_successor(self, config, shop):
        with bridged.attach(config) as other:
            old = bridged.Bridge(config)
            shop.set("k", 1)
            written = shop._written()
            old.segment.retire()
            old.close()
            other.set("k", 1)
            new = bridged.Bridge(config)
            index = new.tell("web-2", None)
            assert not shop._synced(*written)
            new.segment.source_acked(index, 0)
            assert not shop._synced(*written)  # not yet: it has cleared the successor
            new.segment.source_acked(index, new.segment.tail)
            assert shop._synced(*written)
            new.close()


class TestWaiting:
    def test_it_ends_when_the_peer_has_applied(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        later = threading.Timer(SHORT_S, bridge.tell, ("web-2", shop.tail))
        later.start()
        assert synced(shop, LONG_S)
        later.join()

    def test_what_is_written_meanwhile_is_not_waited_for(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        before = shop.tail

        def meanwhile():
            shop.set("k", 2)
            bridge.tell("web-2", before)

        later = threading.Timer(SHORT_S, meanwhile)
        later.start()
        assert synced(shop, LONG_S)
        later.join()
        assert not synced(shop)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_without_time_it_looks_once(self, shop, bridge, timeout):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        assert not synced(shop, timeout)
        bridge.tell("web-2", shop.tail)
        assert synced(shop, timeout)

    def test_a_time_may_be_a_timedelta_and_nothing_else_than_a_number(self, shop, bridge):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        assert not synced(shop, timedelta(milliseconds=1)) and not synced(shop, timedelta(-1))
        bridge.tell("web-2", shop.tail)
        assert synced(shop, timedelta(days=1)) and synced(shop, 1 << 5000)
        for timeout in ("1", None, b"1", [1]):
            with pytest.raises(ValueError, match=r"seconds .* or a timedelta.*Nothing was waited"):
                synced(shop, timeout)
            with pytest.raises(ValueError, match="a number of seconds"):
                asyncio.run(shop.await_synced(timeout))

    def test_a_coroutine_waits_without_blocking_the_others(self, shop, bridge):
        async def main():
            shop.set("k", 1)
            bridge.tell("web-2", 0)
            waiting = asyncio.create_task(shop.await_synced(LONG_S))
            await asyncio.sleep(SHORT_S)
            assert not waiting.done()
            bridge.tell("web-2", shop.tail)
            assert await waiting
            shop.delete("k")
            return await shop.await_synced(SHORT_S)

        assert asyncio.run(main()) is False

    def test_the_bridge_is_told_what_is_waited_for_and_nothing_else(self, shop, bridge):
        shop.set("k", 1)
        written = shop.tail
        shop.set("draft", 1, local=True)
        assert bridge.segment.sync_asked() == 0
        bridge.tell("web-2", 0)
        assert not synced(shop)
        assert bridge.segment.sync_asked() == written

    def test_a_bridge_that_sleeps_is_rung_for_once(self, shop, bridge, bell):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        bridge.segment.heal(0, 100, 0, b"")
        for rings in (1, 0):
            assert bridge.segment.bridge_sleep(True)
            assert not synced(shop)
            assert bell.current_messages == rings
            for _ in range(rings):
                bell.receive(0)

    def test_a_closed_cache_says_so(self, shop):
        shop.close()
        with pytest.raises(Closed):
            shop.wait_synced(0)

    def test_a_wait_leaves_time_to_others(self, shop):
        before, began = time.process_time(), time.monotonic()
        assert not synced(shop, 0.3)
        assert time.process_time() - before < (time.monotonic() - began) / 2
