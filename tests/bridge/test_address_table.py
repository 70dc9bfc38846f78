"""What is known of each address, by address and by name."""

import pytest

from cachee_bridge.membership.address_table import Address, AddressTable
from cachee_bridge.membership.addresses import AddressBook
from tests.bridge.books import new_book


@pytest.fixture
def book() -> AddressBook:
    return new_book()


def test_the_address_of_a_name_is_known_once_it_answered(book):
    book.configure(["10.0.0.2:1"], 0.0)
    assert book.table.of("web-2") == ""
    book.answered("10.0.0.2:1", "web-2")
    assert book.table.of("web-2") == "10.0.0.2:1"


def test_addresses_of_a_name_are_told_in_the_order_in_which_they_came():
    table = AddressTable()
    for address in ("b:1", "a:1", "c:1"):
        table.put(Address(address, True, 0.0, name="web-2"))
    assert [known.address for known in table.at("web-2")] == ["b:1", "a:1", "c:1"]


def test_what_is_put_in_the_place_of_another_keeps_its_place_and_not_its_name():
    table = AddressTable()
    for address in ("a:1", "b:1"):
        table.put(Address(address, True, 0.0, name="web-2"))
    table.put(Address("a:1", False, 5.0, name="web-3"))
    assert (len(table), table.unanswered_since("a:1"), table.of("web-3")) == (2, 5.0, "a:1")
    assert [known.address for known in table.at("web-2")] == ["b:1"]
    table.name(table.get("a:1"), "web-2")
    assert [known.address for known in table.at("web-2")] == ["a:1", "b:1"]
    assert not table.has_name("web-3")


def test_what_is_dropped_is_known_neither_by_address_nor_by_name():
    table = AddressTable()
    known = table.put(Address("a:1", True, 0.0, name="web-2"))
    table.drop(known)
    assert ("a:1" in table, table.get("a:1"), table.at("web-2")) == (False, None, [])
    assert (table.has_name("web-2"), table.unanswered_since("a:1")) == (False, float("inf"))


def test_a_host_answers_at_addresses_that_are_expected_and_where_it_has_proven_its_name():
    table = AddressTable()
    for address, configured, proven in (("a:1", True, True), ("b:1", True, False), ("c:1", False, True)):
        table.put(Address(address, configured, 0.0, name="web-2", proven=proven))
    assert table.answering("web-2") == ["a:1"]
