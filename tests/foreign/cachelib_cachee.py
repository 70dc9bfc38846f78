"""Cachelib's tests of any cache, for ours; run among cachelib's tests, as its own caches have a file each
there."""

import pytest
from clear import ClearTests
from common import CommonTests
from delete_many_with_prefix import DeleteManyWithPrefixTests
from has import HasTests
from private import PICKLING
from serializer import SerializerTests

from cachee_shm import attach
from cachee_shm.cachelib import CacheeCache


@pytest.fixture(autouse=True)
def cache_factory(request):
    caches = []

    def factory(self, *args, **kwargs):
        cache = CacheeCache(*args, **kwargs)
        cache._backing.cache = attach("test", config=PICKLING, private=True)
        caches.append(cache)
        return cache

    request.cls.cache_factory = factory
    yield
    for cache in caches:
        cache.close()


class TestCacheeCache(CommonTests, HasTests, ClearTests, SerializerTests, DeleteManyWithPrefixTests):
    pass


@pytest.fixture
def key_prefix():
    return None
