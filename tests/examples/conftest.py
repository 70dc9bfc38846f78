"""The stories' database is the one of the tests of transactions."""

from tests.cachee_shm.conftest import postgres

__all__ = ["postgres"]
