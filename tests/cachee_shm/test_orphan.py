"""What each verb answers that begins in a segment that has been left for its successor."""

import os

import pytest

import cachee_shm
from tests.cachee_shm.test_successor import file_of


def begin(verb):
    """Its answer; of an exception, the class's name."""
    try:
        return verb()
    except Exception as error:
        return type(error).__name__


def written_in_a_block(cache):
    with cache.writing("k") as block:
        block.set("mine")
    return block.stored


ORPHAN = {  # verb: (itself, its answer where the successor has nothing, where it has a value and a count)
    "set": (lambda c: c.set("k", "mine"), True, True),
    "add": (lambda c: c.add("k", "mine"), True, False),
    "delete": (lambda c: c.delete("k"), False, True),
    "touch": (lambda c: c.touch("k", ttl=60), False, True),
    "touch, of what the orphan has not": (lambda c: c.touch("other", ttl=60), False, True),
    "set_many": (lambda c: c.set_many({"k": "mine"}), [], []),
    "delete_many": (lambda c: c.delete_many(["k"]), None, None),
    "delete_tags": (lambda c: c.delete_tags("t"), None, None),
    "clear": (lambda c: c.clear(), None, None),
    "del": (lambda c: c.__delitem__("k"), "KeyError", None),
    "host.incr": (lambda c: c.host.incr("hits"), "KeyError", 8),
    "host.incr, initial": (lambda c: c.host.incr("hits", initial=0), 1, 8),
    "host.incr, of what the orphan has not": (lambda c: c.host.incr("other hits"), "KeyError", 8),
    "writing": (written_in_a_block, False, False),  # begun in the orphan: announced, and not stored
    # What a read finds in the orphan it may serve for a second, unless it expires: then at once no longer.
    "get, what expires": (lambda c: c.get("expires"), None, "new"),
    "get, what does not": (lambda c: c.get("k"), "old", "old"),
    "lookup, what expires": (lambda c: c.lookup("expires"), (None, False), ("new", True)),
    "get_many, what expires": (lambda c: c.get_many(["expires"]), {}, {"expires": "new"}),
    "in, what expires": (lambda c: "expires" in c, False, True),
    "[], what expires": (lambda c: c["expires"], "KeyError", "new"),
    "get_or_load, what expires": (lambda c: c.get_or_load("expires", lambda: "loaded"), "loaded", "new"),
    "events": (lambda c: c.events().poll(), [], []),
}


@pytest.mark.parametrize("verb", ORPHAN)
@pytest.mark.parametrize("has", [False, True], ids=["of nothing", "of values"])
def test_a_verb_that_begins_in_an_orphan_answers_for_the_successor(cache, config, verb, has):
    run, of_nothing, of_values = ORPHAN[verb]
    with cachee_shm.attach(config=config) as writer:  # a process that has written clears the successor
        writer.set("k", "old", tags=["t"])
        writer.set("expires", "old", ttl=60)
        writer.host.incr("hits", 3, initial=0)
    cache.get("k")  # the look of this second
    os.unlink(file_of(config))
    with cachee_shm.attach(config=config) as new:
        if has:
            new.set_many({"k": "new", "other": "new"}, tags=["t"])
            new.set("expires", "new", ttl=60)
            new.host.incr("hits", 7, initial=0)
            new.host.incr("other hits", 7, initial=0)
        answer = begin(lambda: run(cache))
        late = verb == "get, what does not" and answer != "old"  # a second began meanwhile: it has looked
        assert late or answer == (of_values if has else of_nothing)
        if "mine" in (new.get("k"), cache.get("k")):
            assert new.get("k") == cache.get("k")
