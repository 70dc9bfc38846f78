"""The databases are started once for all tests that need them."""

from collections.abc import Iterator

import pytest

from tests.cachee_shm import databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict]:
    with databases.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[dict]:
    with databases.mariadb() as server:
        yield server
