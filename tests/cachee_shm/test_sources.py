"""The table of sources: how far each host's announcements have been applied, kept in the segment."""

import pytest

import cachee_shm
from cachee_shm.errors import SegmentError


def rows(found):
    return [row[1:] for row in found]


def test_how_far_a_source_was_applied_is_known_to_the_next_bridge(cache, config):
    cache.source_store(cache.source_open("web-2"), 7, 41)
    with cachee_shm.attach(config=config) as other:
        assert rows(other.sources()) == [("web-2", 7, 41)]
        assert other.source_open("web-2") == cache.source_open("web-2")


@pytest.mark.parametrize("name", ["a", "a" * 63, "\u00e4" * 31])
def test_a_source_of_the_shortest_and_of_the_longest_name_is_known_by_it(cache, name):
    cache.source_store(cache.source_open(name), 7, 41)
    assert rows(cache.sources()) == [(name, 7, 41)]


@pytest.mark.parametrize("name", ["", "a" * 64, "\u00e4" * 32])
def test_a_name_that_is_no_hosts_is_refused_and_takes_no_room(cache, name):
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        cache.source_open(name)
    assert cache.sources() == []


def test_a_source_that_was_freed_is_not_known_any_more(cache):
    index = cache.source_open("web-2")
    cache.source_store(index, 7, 41)
    cache.source_forget(index)
    assert cache.sources() == cache.forgotten() == []
    cache.source_open("web-2")
    assert rows(cache.sources()) == [("web-2", 0, 0)]


def test_one_that_was_set_aside_is_no_member_and_is_remembered_for_its_return(cache, config):
    index = cache.source_open("web-2")
    cache.source_store(index, 7, 41)
    cache.source_set_aside(index)
    with cachee_shm.attach(config=config) as other:
        assert (other.sources(), rows(other.forgotten())) == ([], [("web-2", 7, 41)])
        assert other.source_open("web-2") == index
        assert (rows(other.sources()), other.forgotten()) == ([("web-2", 7, 41)], [])


def test_in_a_full_table_a_source_that_was_set_aside_makes_room_and_a_member_does_not(config):
    config["namespaces"]["shop"]["memory"] = "2MiB"
    with cachee_shm.attach(config=config) as cache:
        names = []
        with pytest.raises(SegmentError, match="has no room"):
            while True:
                cache.source_store(cache.source_open(f"web-{len(names)}"), 7, 41)
                names.append(f"web-{len(names)}")
        cache.source_set_aside(cache.source_open("web-3"))
        cache.source_open("new")
        names.remove("web-3")
        assert {name for name, _, _ in rows(cache.sources())} == {*names, "new"}
        assert ("new", 0, 0) in rows(cache.sources())
        assert cache.forgotten() == [(0, "", 0, 0)]  # somebody, whose name is gone
        with pytest.raises(SegmentError, match="has no room"):
            cache.source_open("one more")


def test_a_source_without_a_slot_is_remembered_without_its_name(cache, config):
    cache.source_set_aside(0)
    with cachee_shm.attach(config=config) as other:
        assert (other.sources(), other.forgotten()) == ([], [(0, "", 0, 0)])
        assert other.source_open("web-2") != 0
        with pytest.raises(ValueError, match="no source 0"):
            other.source_forget(0)
        with pytest.raises(ValueError, match="no source 4096"):
            other.source_set_aside(4096)
