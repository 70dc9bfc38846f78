"""A fill by hand: fenced, unannounced, and in a transaction as old as its snapshot."""

import contextvars

import pytest

from cachee_shm.errors import InvalidTTL
from cachee_shm.testing import frozen_clock
from cachee_shm.transactions import transaction


def test_it_stores_what_was_read_after_it_was_made(shm_cache):
    filling = shm_cache.filling()
    assert filling.set("a", 1, ttl=60, tags=["t"])
    assert shm_cache.get("a") == 1
    shm_cache.delete_tags("t")
    assert "a" not in shm_cache


FORGETS = {
    "key": lambda cache: cache.delete("a"),
    "tag": lambda cache: cache.delete_tags("t"),
    "all": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("forget", FORGETS.values(), ids=FORGETS)
def test_it_is_refused_once_what_it_read_was_invalidated(shm_cache, forget):
    filling = shm_cache.filling()
    forget(shm_cache)
    assert not filling.set("a", 1, tags=["t"])
    assert "a" not in shm_cache
    assert shm_cache.filling().set("a", 2, tags=["t"])


def test_it_announces_nothing(shm_cache):
    events = shm_cache.events()
    shm_cache.filling().set("a", 1)
    shm_cache.set("b", 1)
    assert next(events).hash == shm_cache._hash("b")


def test_its_lifetime_is_what_it_says(shm_cache):
    with frozen_clock(shm_cache) as clock:
        filling = shm_cache.filling()
        assert filling.started_ms == shm_cache.now_ms()
        filling.set("a", 1, ttl=10)
        clock.tick(11)
        assert "a" not in shm_cache
        with pytest.raises(InvalidTTL):
            filling.set("a", 1, ttl=-1)


def test_within_a_transaction_it_is_as_old_as_the_snapshot(shm_cache):
    """Under REPEATABLE READ the row that is read now may be the one of then."""
    with transaction() as one:
        one.statement("SELECT 1")
        contextvars.Context().run(shm_cache.delete, "a")  # another connection's write
        assert not shm_cache.filling().set("a", "the older row")
        assert shm_cache.filling().set("b", "not written since")


def test_within_a_transaction_that_wrote_nothing_is_stored(shm_cache):
    with transaction() as one:
        one.statement("UPDATE a SET b = 1")
        assert not shm_cache.filling().set("a", 1)
        filling = shm_cache.filling()
    assert not filling.set("a", 1), "what it read was not committed"
