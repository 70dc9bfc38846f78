"""Measures propagation: from a write on one host until the other host's segment has evicted.

One process is attached to both segments and reads one clock. A probe is:

    1. the target host holds a key: stored there by a fill, which announces nothing; checked
    2. t0 = now; the source host deletes the key, or sets it anew (in turn)
    3. the target's segment is asked again and again until the key is a miss; t1 = now

and its result is t1 - t0. So it covers the write itself, the ring, the doorbell or the poll, the source's
bridge, TCP over loopback, the target's bridge, and the eviction; no HTTP. It says nothing about a network:
both hosts are one machine. The load goes on meanwhile, on the same cores.

Between two looks it sleeps for 20 µs (the kernel makes some 70 µs of it), which the result includes. Looking
without a pause would be finer, but it would take a core from the bridges that it waits for, and delay them.
Source and target change places with each probe. The pauses between probes are random, so that a probe does
not always meet the bridges in the same phase of their work.
"""

import argparse
import ctypes
import itertools
import random
import time
from pathlib import Path

import cachee_shm
from cachee_shm.cli.demo.helper import asked_to_end, pairs, report
from cachee_shm.cli.demo.journal import Journal, Probe

PAUSE_S = (0.01, 0.05)
ASK_EVERY_S = 20e-6
TIMER_SLACK_NS = 1  # the kernel's default would add 50 µs to every sleep
PR_SET_TIMERSLACK = 29
LOST_NS = 1_000_000_000
REFILLS_MAX = 100  # a fill is refused while its bucket's fence moves; under the demo's load that is rare
KEY = "probe"


class Side:
    """One host's segment, and what of its counters is the prober's, not the shop's."""

    def __init__(self, name: str, config: str) -> None:
        self.name = name
        self.cache = cachee_shm.attach("shop", config=config)
        self.loads = self.applied = 0

    def hold(self, value: int) -> bool:
        """Makes the segment hold the key, as a reader's fill would; False where the fills were refused."""
        for _ in range(REFILLS_MAX):
            self.cache.get_or_load(KEY, self._load, value, ttl=60)
            if KEY in self.cache:
                return True
        return False

    def _load(self, value: int) -> int:
        self.loads += 1
        return value


def evicted_after_ns(target: cachee_shm.Cache, start_ns: int) -> int:
    """Nanoseconds from `start_ns` until the key is a miss; -1 when it was not within `LOST_NS`."""
    while True:
        missed = KEY not in target
        passed_ns = time.monotonic_ns() - start_ns
        if missed:
            return passed_ns
        if passed_ns > LOST_NS:
            return -1
        time.sleep(ASK_EVERY_S)


def probe(source: Side, target: Side, number: int) -> Probe | None:
    if not target.hold(number):
        return None
    start_ns = time.monotonic_ns()
    if number % 4 < 2:
        source.cache.delete(KEY)
    else:
        source.cache.set(KEY, -number, ttl=60)
    return Probe(source.name, target.name, start_ns, evicted_after_ns(target.cache, start_ns))


def measure(sides: list[Side], journal: Journal) -> None:
    for number, (source, target) in enumerate(itertools.cycle(itertools.permutations(sides, 2))):
        if asked_to_end():
            return
        done = probe(source, target, number)
        if done is not None:
            journal.add(done)
            target.applied += done.took_ns >= 0
            report(
                **done._asdict(),
                loads={side.name: side.loads for side in sides},
                applied={side.name: side.applied for side in sides},
            )
        time.sleep(random.uniform(*PAUSE_S))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("hosts", nargs=2, metavar="NAME=CONFIG")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
    sides = [Side(name, config) for name, config in pairs(arguments.hosts).items()]
    with Journal(arguments.journal) as journal:
        measure(sides, journal)


if __name__ == "__main__":
    main()
