"""For cashews' own tests, whose fixtures are not in its sdist: the cache is ours."""

import cashews
import pytest
from private import PICKLING

import cachee_shm.cashews
from cachee_shm import attach


@pytest.fixture
async def cache():
    made = cashews.Cache()
    backend = made.setup("cachee://")
    backend._backing.cache = attach("test", config=PICKLING, private=True)
    await made.init()
    yield made
    await made.close()
    assert cachee_shm.cashews


@pytest.fixture
async def backend(cache):
    return cache._backends[""]
