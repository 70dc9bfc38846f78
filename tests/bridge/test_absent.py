"""Hosts that are not linked: who has left, who is out of reach, and whose return is late."""

import pytest

from cachee_bridge.membership import absent as absent_module
from cachee_bridge.membership.addresses import AddressBook
from tests.bridge.books import due, everybody, fail_often, new_book, nobody


@pytest.fixture
def book() -> AddressBook:
    return new_book()


def test_a_host_is_out_of_reach_when_it_is_somewhere_and_not_linked_for_long(book):
    book.learn("web-3", "web-3:1", 10.0)
    book.answered("web-3:1", "web-3")
    assert not book.absent.out_of_reach(11.0, nobody, lost_after_s=2.0)
    assert book.absent.out_of_reach(13.0, nobody, lost_after_s=2.0)
    book.reach_changed()
    assert not book.absent.out_of_reach(13.0, everybody, lost_after_s=2.0)


def test_a_host_that_is_only_known_from_peers_makes_no_other_host_suspect(book):
    book.learn("made-up", "10.0.0.9:1", 10.0)
    assert not book.absent.out_of_reach(99.0, nobody, lost_after_s=2.0)
    assert not book.absent.is_late("made-up", 11.0, lost_after_s=2.0)
    assert book.absent.is_late("made-up", 13.0, lost_after_s=2.0)
    assert not book.absent.is_late("web-4", 13.0, lost_after_s=2.0)


def test_a_host_that_could_not_be_reached_is_late_although_its_address_was_dropped(book):
    book.learn("web-3", "web-3:1", 0.0)
    fail_often(book, "web-3:1")
    due(book, 1.0)
    assert not list(book.table)
    assert book.absent.is_late("web-3", 1.0, lost_after_s=1e6)
    assert not book.absent.is_late("web-4", 1.0, lost_after_s=1e6)


def test_after_too_many_unreachable_hosts_any_unknown_host_counts_as_one_of_them(book, monkeypatch):
    monkeypatch.setattr(absent_module, "UNREACHED_MAX", 3)
    for number in range(5):
        book.absent.give_up(f"made-up-{number}")
    assert book.absent.is_late("web-4", 1.0, lost_after_s=1e6)
    assert len(book.absent._unreached) <= 4


def test_a_host_that_has_left_is_not_out_of_reach_until_somebody_has_seen_it_again(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    book.left("web-2")
    assert not book.absent.out_of_reach(99.0, nobody, lost_after_s=2.0)
    book.learn("web-2", "web-2:1", 99.0)
    assert not book.absent.out_of_reach(100.0, nobody, lost_after_s=2.0)
    assert book.absent.out_of_reach(102.0, nobody, lost_after_s=2.0)


def test_of_hosts_that_left_only_those_with_an_address_here_are_remembered(book):
    book.configure(["web-2:1"], 10.0)
    book.answered("web-2:1", "web-2")
    for name in ("web-2", *(f"n{number}" for number in range(100))):
        book.left(name)
    assert book.absent._left == {"web-2"}


def test_a_given_up_address_may_be_that_of_a_writer_that_no_host_has_met(book):
    book.configure(["web-2:1"], 0.0)
    book.give_up("web-2:1")
    assert book.absent.out_of_reach(3.0, nobody, lost_after_s=2.0)
