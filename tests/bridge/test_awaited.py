"""Addresses at which an answer is awaited, and what ends the wait."""

import pytest

from cachee_bridge.membership.addresses import AddressBook
from tests.bridge.books import due, everybody, named, new_book, nobody, up


@pytest.fixture
def book() -> AddressBook:
    return new_book()


def test_a_configured_address_isolates_until_a_host_that_was_met_has_answered_there(book):
    book.configure(["web-2:1"], 0.0)
    assert book.awaited.unanswered(everybody) == ["web-2:1"]
    book.answered("web-2:1", "web-2")
    assert book.awaited.unanswered(nobody) == ["web-2:1"]
    assert book.awaited.unanswered(everybody) == []


def test_two_addresses_of_one_host_are_both_answered_by_it(book):
    addresses = ("web-2:1", "10.0.0.2:1")
    book.configure(addresses, 0.0)
    for address in addresses:
        book.answered(address, "web-2")
    assert book.awaited.unanswered(everybody) == []


def test_an_address_that_a_peer_tells_of_is_waited_for_for_two_dials_and_only_early(book):
    book.learn("web-3", "web-3:1", 1.0)
    book.learn("web-4", "web-4:1", 9.0)
    assert book.awaited.unmet(nobody, 5.0) == ["web-3:1"]
    book.failed("web-3:1", 2.0)
    assert book.awaited.unmet(nobody, 5.0) == ["web-3:1"]
    book.failed("web-3:1", 3.0)
    assert book.awaited.unmet(nobody, 5.0) == []
    book.configure(["web-4:1"], 9.0)
    assert book.awaited.unmet(nobody, 5.0) == ["web-4:1"]


def test_a_host_is_expected_at_its_own_address_and_where_nobody_else_is_linked(book):
    named(book, "web-1:1", "web-2:1", "web-3:1")
    book.is_own("web-1:1", 0.0)
    book.answered("web-2:1", "web-2")
    assert book.awaited.expects("web-9", up("web-2"))
    book.answered("web-3:1", "web-3")
    assert not book.awaited.expects("web-9", up("web-2", "web-3"))
    assert book.awaited.expects("web-3", up("web-2"))
    assert book.awaited.expects("web-9", up("web-2"))  # it may have come to web-3's address


def test_where_nothing_is_expected_nobody_is(book):
    book.learn("web-3", "web-3:1", 0.0)
    assert not book.awaited.expects("web-3", nobody)


def test_a_given_up_address_isolates_nobody_until_somebody_has_answered_there(book):
    book.configure(["web-2:1"], 0.0)
    book.give_up("web-2:1")
    assert book.awaited.unanswered(everybody) == []
    assert due(book, 0.0) == ["web-2:1"]
    book.answered("web-2:1", "web-2")
    assert book.awaited.unanswered(nobody) == ["web-2:1"]


def test_a_configured_address_is_expected_whatever_discovery_names(book):
    book.configure(["web-2:1"], 0.0)
    named(book, "web-2:1", "web-3:1")
    named(book, "web-3:1"), named(book, "web-3:1")
    assert "web-2:1" in book.awaited.unanswered(everybody)
