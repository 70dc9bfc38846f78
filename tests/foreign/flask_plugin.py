"""For Flask-Caching's own tests: where they ask for its SimpleCache, they get ours.

Its tests set a clock of cachelib's forward; the segment's is set forward with it.
"""

import sys

import flask_caching
import flask_caching.backends
import flask_caching.backends.simplecache
import pytest
from private import PICKLING

from cachee_shm import attach
from cachee_shm.flask import CacheeCache

caches = []


class SimpleCache(CacheeCache):
    """Ours, with the arguments of theirs, in a segment of this process alone; each has its own."""

    def __init__(self, *args, threshold=500, **kwargs):
        super().__init__(*args, **kwargs)
        self._backing.cache = attach("test", config=PICKLING, private=True)
        caches.append(self)


for module in (flask_caching, flask_caching.backends, flask_caching.backends.simplecache):
    module.SimpleCache = SimpleCache


def pytest_collection_finish():
    clock = sys.modules["conftest"]._Clock
    advance = clock.advance

    def advance_all(self, seconds):
        advance(self, seconds)
        self.ahead = getattr(self, "ahead", 0) + seconds
        for cache in caches:
            cache.shm._freeze(cache.shm.now_ms() + round(1000 * seconds))

    clock.advance = advance_all


@pytest.fixture(autouse=True)
def closed():
    yield
    while caches:
        caches.pop().close()
