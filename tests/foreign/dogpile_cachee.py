"""dogpile.cache's tests of any backend, which its wheel contains, for ours."""

import os

import pytest
from dogpile.cache import register_backend
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)
from private import PICKLING

from cachee_shm.dogpile import CacheeBackend

made = []


class Backend(CacheeBackend):
    """Ours, which is closed after each test."""

    def __init__(self, arguments):
        super().__init__(arguments)
        made.append(self)


register_backend("cachee_shm.closed", __name__, "Backend")
NAMESPACE = {"arguments": {"namespace": "test", "config": PICKLING}}


@pytest.fixture(autouse=True, scope="session")
def removed():
    yield
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{PICKLING['host']['name']}."):
            os.unlink(f"/dev/shm/{name}")


@pytest.fixture(autouse=True)
def closed():
    yield
    while made:
        made.pop()._backing.close()


class TestCacheeBackend(_GenericBackendTestSuite):
    backend = "cachee_shm.closed"
    config_args = NAMESPACE


class TestCacheeSerializer(_GenericSerializerTestSuite, TestCacheeBackend):
    pass


class TestCacheeMutex(_GenericMutexTestSuite):
    backend = "cachee_shm.closed"
    config_args = NAMESPACE
