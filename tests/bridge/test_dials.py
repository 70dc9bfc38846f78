"""When each address is dialled. A tick looks only at the addresses that are due, however many there are."""

from __future__ import annotations

import random

import pytest

from cachee_bridge.membership import dials as dials_module
from cachee_bridge.membership.addresses import ADDRESSES_MAX, FAILURES_MAX, AddressBook
from cachee_bridge.membership.dials import TOLD_CALLING_MAX, TOLD_DIALS_MAX, Dials
from tests.bridge.meshes import Cable, FakeStore


def nobody(name: str) -> bool:
    return False


@pytest.fixture
def book() -> AddressBook:
    return AddressBook("web-1", first_s=0.1, max_s=5.0, rng=random.Random(1))


class Counted(dict):
    """A book that says how often all of it was looked at."""

    looks = 0

    def values(self):
        self.looks += 1
        return super().values()

    def items(self):
        self.looks += 1
        return super().items()


@pytest.fixture
def visits(monkeypatch):
    """Entries of the queues that were looked at."""
    seen = []
    trusts = dials_module._is_trusted
    pops, pushes = dials_module.heapq.heappop, dials_module.heapq.heappush

    def popped(queue):
        seen.append("pop")
        return pops(queue)

    def pushed(queue, entry):
        seen.append("push")
        pushes(queue, entry)

    monkeypatch.setattr(dials_module.heapq, "heappop", popped)
    monkeypatch.setattr(dials_module.heapq, "heappush", pushed)
    monkeypatch.setattr(dials_module, "_is_trusted", lambda known: seen.append("trust") or trusts(known))
    return seen


def full(book):
    book.configure([f"h{number}:1" for number in range(ADDRESSES_MAX)], 0.0)
    for address in book.due(0.0, nobody, nobody):
        book.table._addresses[address].failures = 8  # so that they are spread over seconds
        book.failed(address, 0.0)
    book.table._addresses = Counted(book.table._addresses)


def test_a_tick_on_which_one_of_4096_dials_fails_looks_at_that_one(book, visits):
    full(book)
    now = book.next_due(nobody)
    dialled = book.due(now, nobody, nobody)
    for _ in range(50):
        book.table._addresses.looks = 0
        visits.clear()
        book.failed(dialled[0], now)
        now = book.next_due(nobody)
        dialled = book.due(now, nobody, nobody)
        assert dialled
        assert len(visits) <= 8 * (1 + len(dialled))
        assert book.table._addresses.looks == 0


def test_a_name_is_found_without_a_look_at_the_others_though_addresses_change(book):
    full(book)
    for number in range(100):
        book.answered(f"h{number}:1", f"n{number}")
        book.works(f"n{number}")
        assert book.table.of(f"n{number}") == f"h{number}:1"
        assert not book.absent.is_late(f"n{number}", 0.0, lost_after_s=2.0)
        book.linked(f"n{number}")
        book.lost(f"n{number}", 1.0)
    assert book.table._addresses.looks == 0


def test_addresses_are_dialled_in_the_order_of_their_times_and_told_ones_few_at_a_time(book):
    for number in range(100):
        book.learn(f"n{number}", f"h{number}:1", 0.0)
    first = book.due(9.0, nobody, nobody)
    assert len(first) == TOLD_DIALS_MAX
    assert {book.table._addresses[address].due for address in first} == set(
        sorted(known.due for known in book.table)[:TOLD_DIALS_MAX]
    )
    assert first == sorted(first, key=lambda address: int(address[1:-2]))
    under_way = list(first)
    while more := book.due(9.0, nobody, nobody):
        under_way += more
    assert len(under_way) == TOLD_CALLING_MAX
    book.failed(under_way[0], 9.0)
    assert len(book.due(9.0, nobody, nobody)) == 1


def test_a_told_address_that_answers_makes_room_for_another(book):
    for number in range(100):
        book.learn(f"n{number}", f"h{number}:1", 0.0)
    while more := book.due(9.0, nobody, nobody):
        last = more
    book.answered(last[0], "n1")
    assert len(book.due(9.0, nobody, nobody)) == 1


def test_one_whose_host_needs_no_dial_rests_until_it_is_woken_by_its_name(book):
    book.configure([f"h{number}:1" for number in range(3)], 0.0)
    for number in range(3):
        book.answered(f"h{number}:1", f"n{number}")
    assert book.due(1.0, lambda name: True, nobody) == []
    assert book.next_due(nobody) == float("inf")
    book.reach_changed("n1")
    assert book.due(1.0, nobody, nobody) == ["h1:1"]
    book.reach_changed()
    assert book.due(1.0, nobody, nobody) == ["h0:1", "h2:1"]


def test_an_address_that_is_dropped_is_dialled_no_more(book):
    book.learn("n1", "h1:1", 0.0)
    for _ in range(FAILURES_MAX):
        assert book.due(1e9, nobody, lambda name: True) == ["h1:1"]
        book.failed("h1:1", 0.0)
    assert book.due(1e9, nobody, nobody) == []
    assert book.next_due(nobody) == float("inf")
    assert list(book.table) == []


def test_entries_that_no_longer_count_are_skipped():
    class At:
        address, name, place, due = "h1:1", None, 1, 5.0
        dialling = proven = is_self = False
        expected = True

    dials, at = Dials(), At()
    dials.put(at)
    at.due = 2.0
    dials.put(at)
    assert dials.soonest(nobody) == 2.0
    assert dials.take(2.0, nobody) == ["h1:1"]
    at.dialling = False
    assert dials.take(9.0, nobody) == []  # nobody has put it in again


def test_a_tick_of_a_mesh_with_4096_silent_addresses_looks_at_none_that_is_not_due():
    cable = Cable()
    node = cable.node("a", [f"h{number}" for number in range(ADDRESSES_MAX)], {"shop": FakeStore()})
    cable.run(0.1)
    book = node.mesh._book
    for known in book.table:
        known.dialling = True
    book.table._addresses = Counted(book.table._addresses)
    for _ in range(20):
        cable.now += 0.1
        node.mesh.tick(cable.now)
    assert book.table._addresses.looks == 0
    assert node.isolated("shop")
