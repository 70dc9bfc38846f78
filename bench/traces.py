"""Request streams: published traces in the formats that their authors keep them in, and a seeded Zipf stream.

  lirs-NAME.trace.gz       text, a key a line, `*` skipped               the LIRS paper
  arc-NAME.gz              text, `start count ...`: start ... + count-1  the ARC paper
  NAME.oracleGeneral.bin   records of 24 bytes, the key a u64 at 4       libCacheSim
  *.trace.xz, *.gz         keys of 4 bytes, of 8 where EIGHT_BYTES says  cache2k, Caffeine

The published ones are not shipped here. They are in public repositories of cache simulators on GitHub: lirs
and w106 in ben-manes/caffeine (simulator/src/main/resources), orm-busy in cache2k/cache2k-benchmark, oltp in
maypok86/otter (benchmarks), cloudPhysicsIO in 1a1a11a/libCacheSim (data). Put them into one directory, under
their own names, for --traces.

Only which requests are for the same key matters to a cache: a key's bytes are never looked into, and a trace
is kept as numbers from 0, in the order of each key's first request.
"""

from __future__ import annotations

import gzip
import lzma
import random
from array import array
from bisect import bisect
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

SIZES = {  # the cache sizes, in objects, for which results are published or agreed upon
    "cache2k-orm-busy": (763, 7634, 25000),
    "w106": (3000, 10000, 30000),
    "arc-oltp": (1000, 5000, 15000),
    "lirs-loop": (500, 750),
    "cloudPhysicsIO": (2500, 10000),
}
SHARES = (0.01, 0.1, 0.33)  # of a trace's distinct keys: the sizes for any other
OBJECTS_MIN = 100
EIGHT_BYTES = {"corda_vaultservice", "scarab-recs"}
ORACLE_RECORD_BYTES = 24
ZIPF_EXPONENT = 0.9


@dataclass(frozen=True)
class Trace:
    """Requests by key number, below `distinct`; `sizes` are the capacities to replay it with, in objects."""

    name: str
    requests: array[int]
    distinct: int
    sizes: tuple[int, ...]


def traces(folder: Path) -> Iterator[Trace]:
    """Every trace of the folder, by name; files of another form are skipped."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name.lower()):
        if path.name.endswith((".gz", ".xz", ".oracleGeneral.bin")):
            name = path.name.partition(".")[0]
            yield _numbered(name, _keys(path, name))


def zipf(requests: int, keys: int) -> Trace:
    """The built-in stream: independent requests, the same at every run."""
    weights = list(accumulate(rank**-ZIPF_EXPONENT for rank in range(1, keys + 1)))
    drawn = random.Random(1)
    return _numbered("zipf", (bisect(weights, drawn.random() * weights[-1]) for _ in range(requests)))


def _numbered(name: str, keys: Iterable[Hashable]) -> Trace:
    numbers: dict[Hashable, int] = {}
    requests = array("I", (numbers.setdefault(key, len(numbers)) for key in keys))
    shares = tuple(max(OBJECTS_MIN, round(len(numbers) * share)) for share in SHARES)
    return Trace(name, requests, len(numbers), SIZES.get(name, tuple(dict.fromkeys(shares))))


def _keys(path: Path, name: str) -> Iterable[Hashable]:
    if path.name.endswith(".oracleGeneral.bin"):
        return _oracle_keys(path.read_bytes())
    data = (lzma.open if path.name.endswith(".xz") else gzip.open)(path).read()
    if name.startswith("lirs-"):
        return (key for line in data.splitlines() if (key := line.strip()) not in (b"", b"*"))
    if name.startswith("arc-"):
        return _extent_keys(data)
    return array("Q" if name in EIGHT_BYTES else "I", data)


def _oracle_keys(data: bytes) -> Iterator[bytes]:
    return (data[at + 4 : at + 12] for at in range(0, len(data), ORACLE_RECORD_BYTES))


def _extent_keys(data: bytes) -> Iterator[int]:
    for line in data.splitlines():
        fields = line.split()
        if len(fields) >= 2:
            yield from range(int(fields[0]), int(fields[0]) + int(fields[1]))
