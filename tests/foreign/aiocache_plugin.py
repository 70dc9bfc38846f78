"""For aiocache's own tests: where they ask for its memory cache, they get ours."""

import aiocache
import aiocache.backends.memory
import aiocache.factory
import pytest
from private import PICKLING

from cachee_shm import attach
from cachee_shm.aiocache import CacheeCache

caches = []
THEIRS = aiocache.SimpleMemoryCache


class SimpleMemoryCache(CacheeCache):
    """Ours, in a segment of this process alone; each has its own."""

    NAME = "memory"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._backing.cache = attach("test", config=PICKLING, private=True)
        self._backing._owns = False
        caches.append(self._backing.cache)


aiocache.SimpleMemoryCache = aiocache.backends.memory.SimpleMemoryCache = SimpleMemoryCache
aiocache.AIOCACHE_CACHES["memory"] = aiocache.factory.Cache.MEMORY = SimpleMemoryCache
aiocache.factory.Cache.__new__.__defaults__ = (SimpleMemoryCache,)
for decorator in (aiocache.decorators.cached, aiocache.decorators.multi_cached):
    decorator.__init__.__defaults__ = tuple(
        SimpleMemoryCache if default is THEIRS else default for default in decorator.__init__.__defaults__
    )


@pytest.fixture(autouse=True)
def closed():
    yield
    while caches:
        caches.pop().close()
