"""Attaching for those who must not fail: a segment that cannot be had is a cache that misses.

A framework's pages are served whatever becomes of their cache. ``attach_late`` raises nothing about the
segment. Where it cannot be attached, reads miss, what is written is remembered, and each second it is tried
again: as with a segment that was removed under a worker. What was written meanwhile is announced before
anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cachee_shm.attaching import kind_of_cache, spec_for
from cachee_shm.errors import SegmentError
from cachee_shm.segment import private as private_spec
from cachee_shm.service import service_name

if TYPE_CHECKING:
    from cachee_shm.cache import Cache
    from cachee_shm.config import Config

__all__ = ["attach_late"]

STAND_IN_BYTES = 2 << 20  # of a private segment that is given up at once


def attach_late(
    namespace: str | None = None,
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    private: bool = False,
    service: str | None = None,
) -> Cache:
    """``attach``, for a cache that works without its segment until that can be had.

    Raises ``ConfigError`` alone, or what a private segment raises on a machine that can make none. The log
    says once why there is no segment; ``health()`` says it as long as it is so.
    """
    kind, spec = kind_of_cache(), spec_for(namespace, config, private)
    spec = spec._replace(service=service_name(service))
    try:
        return kind(spec)
    except SegmentError:
        cache = kind(private_spec(spec)._replace(memory_bytes=STAND_IN_BYTES))
    cache.spec = spec
    cache.retire()  # its first verb looks for the segment of `spec`, and says so if there is none
    return cache
