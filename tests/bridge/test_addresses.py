"""Where to dial, and when."""

import pytest

from cachee_bridge.membership.addresses import ADDRESSES_MAX, OWN_LOOK_S, AddressBook
from tests.bridge.books import due, everybody, fail_often, named, new_book, nobody, up


@pytest.fixture
def book() -> AddressBook:
    return new_book()


def test_a_configured_address_is_dialled_at_once_and_only_once_at_a_time(book):
    book.configure(["web-2:1"], 10.0)
    assert due(book, 10.0) == ["web-2:1"]
    assert due(book, 99.0) == []


def test_waits_grow_to_a_bound_and_are_spread_from_nothing(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    waits: dict[int, list[float]] = {failure: [] for failure in range(12)}
    for failures in list(waits) * 30:
        if failures == 0:
            book.works("web-2")
        due(book, 1e9)
        book.failed("web-2:1", 0.0)
        waits[failures].append(book.next_due(nobody))
    assert max(waits[0]) <= 0.1
    assert max(waits[2]) <= 0.4
    assert max(map(max, waits.values())) <= 5.0
    assert min(waits[11]) < 2.0 < max(waits[11])


def test_an_address_whose_host_is_up_is_not_dialled(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    assert due(book, 0.0, up=everybody) == []
    assert book.next_due(everybody) == float("inf")


class TestAnOwnAddress:
    """A name, or an IP address, may belong to another host later."""

    @pytest.fixture(autouse=True)
    def dialled(self, book):
        book.configure(["web-1:1"], 0.0)
        assert book.awaited.unanswered(nobody) == ["web-1:1"]
        due(book, 0.0)

    def again(self, book, now, *dialled):
        """The next dial of it comes to nothing."""
        assert due(book, now) == ["web-1:1"]
        book.failed("web-1:1", now, dialled)

    def test_isolates_nobody_and_is_dialled_again_each_ten_seconds(self, book):
        book.found_self("web-1:1", "10.0.0.5", 0.0)
        assert book.failed("web-1:1", 0.0, ["10.0.0.5"]) == 0
        assert book.awaited.unanswered(nobody) == []
        assert due(book, 0.9 * OWN_LOOK_S - 0.1) == []
        assert 0.9 * OWN_LOOK_S <= book.next_due(nobody) <= OWN_LOOK_S
        assert due(book, OWN_LOOK_S) == ["web-1:1"]
        book.found_self("web-1:1", "10.0.0.5", OWN_LOOK_S)
        assert due(book, 2 * OWN_LOOK_S - 0.1) == []
        assert due(book, 2 * OWN_LOOK_S) == ["web-1:1"]

    def test_where_another_host_answers_is_that_hosts(self, book):
        assert book.is_own("web-1:1", 0.0)
        assert due(book, 10.0) == ["web-1:1"]
        book.answered("web-1:1", "web-2")
        assert book.awaited.unanswered(nobody) == ["web-1:1"]
        assert book.table.of("web-2") == "web-1:1"

    def test_by_the_interfaces_is_one_no_more_once_a_dial_has_left_this_host(self, book):
        assert book.is_own("web-1:1", 0.0)
        assert not book.is_own("web-1:1", 1.0)  # no news
        self.again(book, 11.0, "10.0.0.5")
        assert book.awaited.unanswered(nobody) == ["web-1:1"]
        assert due(book, 11.5) == ["web-1:1"]

    def test_that_answered_is_one_until_it_has_another_ip_address_and_is_silent(self, book):
        book.found_self("web-1:1", "10.0.0.5", 0.0)
        self.again(book, 10.0, "10.0.0.5")
        assert book.awaited.unanswered(nobody) == []
        self.again(book, 20.0, "10.0.0.6")
        assert book.awaited.unanswered(nobody) == ["web-1:1"]

    def test_of_which_a_peer_told_is_one_until_it_has_another_ip_address_and_is_silent(self, book):
        assert book.told_self("web-1:1", 0.0)
        self.again(book, 10.0, "10.0.0.5")
        self.again(book, 20.0, "10.0.0.5")
        assert book.awaited.unanswered(nobody) == []
        self.again(book, 30.0, "10.0.0.6")
        assert book.awaited.unanswered(nobody) == ["web-1:1"]
        assert not book.told_self("web-1:1", 30.0)  # the peer may have asked long ago
        assert book.is_own("web-1:1", 30.0)

    def test_stays_one_while_no_name_server_answers(self, book):
        book.is_own("web-1:1", 0.0)
        self.again(book, 10.0)
        self.again(book, 20.0)
        assert book.awaited.unanswered(nobody) == []

    def test_where_another_host_has_answered_is_no_own_one_and_is_dialled_again(self, book):
        book.answered("web-1:1", "web-2")
        assert not book.is_own("web-1:1", 0.0)
        assert due(book, 10.0) == ["web-1:1"]
        assert book.table.of("web-2") == "web-1:1"

    def test_that_only_peers_told_of_is_dialled_when_they_say_so_again(self, book):
        book.learn("web-2", "web-2:1", 0.0)
        assert "web-2:1" in due(book, 1.0)
        book.is_own("web-2:1", 1.0)
        book.learn("web-2", "web-2:1", 2.0)
        assert "web-2:1" not in due(book, 30.0)
        book.learn("web-2", "web-2:1", 30.0)
        assert "web-2:1" in due(book, 31.0)


def test_a_learned_address_is_dialled_and_isolates_nobody(book):
    book.learn("web-3", "web-3:1", 0.0)
    assert due(book, 1.0) == ["web-3:1"]
    assert book.awaited.unanswered(nobody) == []


def test_ones_own_name_is_not_learned(book):
    book.learn("web-1", "web-9:1", 0.0)
    assert list(book.table) == []


def test_what_is_learned_is_bounded(book):
    for number in range(ADDRESSES_MAX + 10):
        book.learn(f"web-{number + 2}", f"web-{number + 2}:1", 0.0)
    assert len(list(book.table)) == ADDRESSES_MAX


def test_a_learned_address_where_nobody_answers_is_dropped(book):
    book.learn("web-3", "web-3:1", 0.0)
    fail_often(book, "web-3:1")
    assert list(book.table) == []


def test_but_not_while_its_host_is_missed(book):
    book.learn("web-3", "web-3:1", 0.0)
    fail_often(book, "web-3:1", missed=everybody)
    assert [known.address for known in book.table] == ["web-3:1"]


def test_a_configured_address_is_never_dropped(book):
    book.configure(["web-2:1"], 0.0)
    fail_often(book, "web-2:1")
    book.answered("web-2:1", "web-2")
    book.left("web-2")
    assert [known.address for known in book.table] == ["web-2:1"]


def test_the_address_of_a_host_that_left_is_dropped_and_may_be_learned_again(book):
    book.learn("web-3", "web-3:1", 0.0)
    book.left("web-3")
    assert list(book.table) == []
    book.learn("web-3", "web-3:1", 5.0)
    assert [known.address for known in book.table] == ["web-3:1"]


def test_a_lost_host_is_dialled_soon_at_its_other_addresses(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    assert due(book, 50.0, up=everybody) == []
    book.lost("web-2", 50.0)
    assert due(book, 50.2) == ["web-2:1"]


def test_a_link_that_works_makes_the_next_failure_the_first_again(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    assert [book.failed("web-2:1", 0.0) for _ in range(3)] == [1, 2, 3]
    book.works("web-2")
    assert book.failed("web-2:1", 0.0) == 1


# Discovery


def test_a_discovered_address_is_dialled_at_once_and_isolates_like_a_configured_one(book):
    assert named(book, "web-2:1", now=5.0) == []
    assert due(book, 5.0) == ["web-2:1"]
    assert book.awaited.unanswered(everybody) == ["web-2:1"]
    book.answered("web-2:1", "web-2")
    assert book.awaited.unanswered(everybody) == []


def test_an_address_is_named_no_more_after_two_answers_in_a_row_without_it(book):
    named(book, "web-2:1", "web-3:1")
    assert named(book, "web-3:1") == []
    assert named(book, "web-2:1", "web-3:1") == []
    assert named(book, "web-3:1") == []
    assert named(book, "web-3:1") == ["web-2:1"]
    assert named(book, "web-3:1") == []
    assert [known.address for known in book.table] == ["web-3:1"]


def test_one_where_somebody_answered_is_kept_like_a_learned_one_and_isolates_nobody(book):
    named(book, "web-2:1", "web-3:1")
    book.answered("web-2:1", "web-2")
    named(book, "web-3:1"), named(book, "web-3:1")
    assert "web-2:1" in due(book, 1.0)
    assert book.awaited.unanswered(nobody) == ["web-3:1"]
    fail_often(book, "web-2:1")
    assert [known.address for known in book.table] == ["web-3:1"]


def test_one_that_is_being_dialled_when_it_is_named_no_more_is_dropped_after_that(book):
    named(book, "web-2:1", "web-3:1")
    due(book, 0.0)
    named(book, "web-3:1"), named(book, "web-3:1")
    assert not book.absent.out_of_reach(99.0, up("web-3"), lost_after_s=1e6)
    book.failed("web-2:1", 1.0)
    due(book, 99.0)
    assert [known.address for known in book.table] == ["web-3:1"]


def test_an_address_that_the_configuration_names_no_more_is_dropped_if_no_host_ever_answered_there(book):
    book.configure(["web-2:1", "web-3:1", "web-4:1"], 0.0)
    book.answered("web-2:1", "web-2")
    named(book, "web-4:1")
    assert book.configure(["web-5:1"], 1.0) == ["web-2:1", "web-3:1", "web-4:1"]
    assert book.awaited.unanswered(nobody) == ["web-4:1", "web-5:1"]  # discovery names the former
    assert "web-3:1" not in book.table
    assert not book.table.get("web-2:1").expected  # its host is a peer, and dialled, until it leaves
    assert book.table.of("web-2") == "web-2:1"
    assert book.configure(["web-5:1"], 2.0) == []


def test_an_address_that_was_given_up_is_awaited_again_when_the_configuration_names_it_again(book):
    book.configure(["web-2:1"], 0.0)
    named(book, "web-2:1")
    book.give_up("web-2:1")
    book.configure(["web-2:1"], 1.0)
    assert book.awaited.unanswered(nobody) == []
    book.configure([], 2.0)
    book.configure(["web-2:1"], 3.0)
    assert book.awaited.unanswered(nobody) == ["web-2:1"]


def test_what_is_said_on_a_link_costs_the_addresses_of_that_host_and_a_tick_none(book, monkeypatch):
    book.configure([f"h{number}:1" for number in range(4000)], 0.0)
    for number in range(4000):
        book.answered(f"h{number}:1", f"h{number}")
    assert due(book, 0.0, up=everybody) == []
    visits = []

    class Counted(dict):
        def values(self):
            visits.append("values")
            return super().values()

        def items(self):
            visits.append("items")
            return super().items()

    book.table._addresses = Counted(book.table._addresses)
    book.works("h7")
    book.absent.out_of_reach(0.0, everybody, lost_after_s=2.0)
    visits.clear()
    for number in range(100):
        book.works("h7")
        assert book.table.of("h9") == "h9:1"
        assert due(book, float(number), up=everybody) == []
        assert book.next_due(everybody) == float("inf")
        assert not book.absent.out_of_reach(float(number), everybody, lost_after_s=2.0)
    assert visits == []


def test_an_address_that_needs_a_dial_again_is_dialled_soon(book):
    book.configure(["web-2:1"], 0.0)
    book.answered("web-2:1", "web-2")
    assert due(book, 0.0, up=everybody) == []
    book.reach_changed()
    assert due(book, 0.0) == ["web-2:1"]
