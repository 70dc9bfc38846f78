"""A bridge whose place another has taken: nothing of what it still wants to write is written."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import cachee_shm
from cachee_bridge.wire.frames import encode, head_of
from cachee_bridge.wire.messages import Frame
from cachee_shm.errors import BridgeRunning
from tests.cachee_shm.processes import in_fork
from tests.simulation.zombies import REFUSED

FRAME = encode(Frame("shop", "web-2", 7, 42, 42, bytes((4,))))
MARK = 0x1D0_57A1E_C0FFEE
ARGUMENTS = {
    "heal": (0, 10, 0, b""),
    "apply": (1, bytes((5,))),
    "receive": (1, 7, 41, head_of("shop", "web-2", 7), FRAME, False, 9),
    "fence_map": (1, b"a map", 0, 0, 1),
    "evict_map": (1, b"a map", 9, 0, 10),
    "source_open": ("web-3",),
    "source_store": (1, 9, 9),
    "source_forget": (1,),
    "source_set_aside": (1,),
    "raise_incarnation": ((1 << 64) - 1,),
    "source_acked": (1, 9),
    "source_tell": (1, True, 9),
    "bridge_vouch": (1 << 40,),
    "bridge_leave": (True,),
    "draw_line": (),
    "evict_before": (1,),
    "set_serve_until": (1,),
    "bridge_sleep": (True,),
}


def take_over(bridge: cachee_shm.Cache) -> None:
    """As another bridge does. The lock that keeps it out while this process lives is got round: its word of
    the header stands behind serve_until."""
    bridge.set_serve_until(MARK)
    with open(f"/dev/shm{bridge.name}", "r+b") as file, mmap.mmap(file.fileno(), 4096) as header:
        at = bytes(header).index(struct.pack("<Q", MARK)) + 8
        (generation,) = struct.unpack_from("<Q", header, at)
        assert generation == bridge.bridge_generation()
        struct.pack_into("<Q", header, at, generation + 1)


def state(cache: cachee_shm.Cache) -> tuple[Any, ...]:
    sources = (cache.sources(), cache.forgotten(), cache._peers())
    words = cache.tail, cache.pump_cursor, cache.serve_until, cache.incarnation, cache._left()
    return *words, sources, cache.get("a"), cache._bridge()


@pytest.fixture
def bridge(cache: cachee_shm.Cache) -> Iterator[cachee_shm.Cache]:
    """With a source, and something to heal and to evict."""
    assert cache.bridge_acquire()
    cache.source_store(cache.source_open("web-2"), 7, 41)
    cache.set("a", 1)
    yield cache


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_a_bridge_whose_place_was_taken_changes_nothing(bridge: cachee_shm.Cache, verb: str) -> None:
    take_over(bridge)
    before = state(bridge)
    with pytest.raises(BridgeRunning, match="Nothing was changed"):
        getattr(bridge, verb)(*ARGUMENTS[verb])
    assert state(bridge) == before


def test_what_the_simulated_segment_refuses_is_what_the_real_one_does() -> None:
    assert set(REFUSED) == set(ARGUMENTS)


def test_it_may_still_read_and_it_may_still_write_as_a_worker(bridge: cachee_shm.Cache) -> None:
    take_over(bridge)
    assert bridge.pack(0, 10, 1000) is not None
    assert bridge.set("a", 2)
    assert bridge.get("a") == 2


def test_a_child_that_was_forked_from_a_bridge_is_none(bridge: cachee_shm.Cache) -> None:
    def work() -> None:
        with pytest.raises(BridgeRunning):
            bridge.apply(1, bytes((5,)))
        assert not bridge.bridge_acquire()
        assert bridge.get("a") == 1

    in_fork(work)
    assert bridge.apply(1, bytes((5,))) == 1
    assert bridge.get("a") is None


def test_whoever_takes_the_place_in_turn_may_go_on(bridge: cachee_shm.Cache) -> None:
    take_over(bridge)
    assert bridge.bridge_acquire()
    bridge.source_store(1, 7, 42)
    assert bridge.sources() == [(1, "web-2", 7, 42)]
