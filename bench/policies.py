"""The published eviction policies, as libCacheSim's Python package has them, on objects of size 1.

Two of its rows are choices. S3-FIFO is the paper's: the package's own class of that name is a later variant,
which fills the main queue first, until something is evicted. W-TinyLFU has the paper's static window of 1 %.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from traces import Trace

try:
    import libcachesim
    import numpy  # libcachesim needs it itself
except ImportError:
    libcachesim = None

OPTIMUM = "MIN"  # Belady's: no policy that does not know the future is better
POLICIES = ("LRU", "S3-FIFO", "ARC", "SIEVE", "W-TinyLFU", OPTIMUM)
S3_FIFO = "small-size-ratio=0.1,ghost-size-ratio=0.9,move-to-main-threshold=2"

Replay = Callable[[str, int], float]


def installed() -> bool:
    return libcachesim is not None


@contextmanager
def replaying(trace: Trace) -> Iterator[Replay]:
    """How to replay one trace: miss(policy, capacity in objects). The package reads it from a file."""
    descriptor, path = tempfile.mkstemp(prefix="bench-trace-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _records(trace).tofile(file)
        yield lambda policy, capacity: _miss_ratio(path, _cache(policy, capacity))
    finally:
        os.unlink(path)


def _miss_ratio(path: str, cache: Any) -> float:
    kind = libcachesim.TraceType.ORACLE_GENERAL_TRACE
    reader = libcachesim.TraceReader(path, kind, libcachesim.ReaderInitParam(ignore_obj_size=True))
    return float(cache.process_trace(reader)[0])


def _cache(policy: str, capacity: int) -> Any:
    if policy == "S3-FIFO":
        common = libcachesim.CommonCacheParams(cache_size=capacity)
        return libcachesim.cache.CacheBase(libcachesim.libcachesim_python.S3FIFOv0_init(common, S3_FIFO))
    kinds = {
        "LRU": libcachesim.LRU,
        "ARC": libcachesim.ARC,
        "SIEVE": libcachesim.Sieve,
        "W-TinyLFU": libcachesim.WTinyLFU,
        OPTIMUM: libcachesim.Belady,
    }
    return kinds[policy](capacity)


def _records(trace: Trace) -> Any:
    """libCacheSim's own format; `next` is the number, from 1, of the next request for the same key, or -1."""
    keys = numpy.frombuffer(trace.requests, dtype=numpy.uint32)
    records = numpy.zeros(
        len(keys), dtype=[("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")]
    )
    records["key"] = keys + 1  # 0 is no key there
    records["size"] = 1
    records["next"] = -1
    order = numpy.argsort(keys, kind="stable")
    again = keys[order[1:]] == keys[order[:-1]]
    records["next"][order[:-1][again]] = order[1:][again] + 1
    return records
