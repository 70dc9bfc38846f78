"""Writes of other hosts among reads: the operations that the simulator of the policy draws."""

import importlib.util
import struct
import sys
import zlib
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def writes():
    spec = importlib.util.spec_from_file_location("writes", BENCH / "writes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["writes"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["writes"]


@pytest.fixture(scope="module")
def reads(writes):
    keys, steps = writes.day_and_night(20_000)
    return writes.numbered(keys), steps


# Of the simulator's own file of operations: how many, and the CRC-32 of key, time and kind of each.
SIMULATED = {
    "uniform": (21053, 0x55765852),
    "popular": (21053, 0xEB837F0B),
    "recent": (21053, 0xF262C988),
    "bursty": (21056, 0xA6BD4E1D),
    "tail": (21141, 0xF528A067),
    "mixed": (21078, 0x3304480A),
}


@pytest.mark.parametrize("mix", SIMULATED)
def test_the_operations_are_those_of_the_simulator(writes, reads, mix):
    keys, steps = reads
    drawn = writes.Mixture(keys, 10_000, mix, 0.05, steps).draw()
    packed = b"".join(map(struct.Struct("<IIB").pack, drawn.keys, drawn.times, drawn.writes))
    assert (len(drawn.keys), zlib.crc32(packed)) == SIMULATED[mix]


def test_every_mix_is_compared(writes):
    assert set(writes.MIXES) == set(SIMULATED)
