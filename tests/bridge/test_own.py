"""Which addresses lead to this host."""

import pytest

from cachee_bridge.carriers.own import Own, interfaces


@pytest.fixture
def own():
    return Own(lambda: {"127.0.0.1", "::1", "10.0.0.5", "fe80::1"})


def test_where_all_addresses_are_listened_on_each_interface_leads_here_at_that_port(own):
    own.listens([("::", 7946)])
    assert own.others(["10.0.0.5"], 7946) == []
    assert own.others(["fe80::1%eth0", "10.0.0.5"], 7946) == []
    assert own.others(["10.0.0.5"], 7947) == ["10.0.0.5"]
    assert own.others(["10.0.0.6"], 7946) == ["10.0.0.6"]


def test_of_a_name_that_leads_elsewhere_as_well_only_the_other_addresses_are_dialled(own):
    own.listens([("0.0.0.0", 7946)])
    assert own.others(["10.0.0.5", "10.0.0.6"], 7946) == ["10.0.0.6"]


def test_where_one_address_is_listened_on_another_of_the_machine_may_be_another_hosts(own):
    own.listens([("10.0.0.5", 7946)])
    assert own.others(["10.0.0.5"], 7946) == []
    assert own.others(["127.0.0.1"], 7946) == ["127.0.0.1"]


def test_a_name_that_only_loops_back_is_this_host_where_nobody_answers(own):
    own.listens([("10.0.0.5", 7946)])
    assert own.if_nobody_answers(["127.0.1.1"], 7946)
    assert not own.if_nobody_answers(["127.0.1.1"], 7947)
    assert not own.if_nobody_answers(["127.0.1.1", "10.0.0.6"], 7946)
    loops = Own(interfaces)
    loops.listens([("127.0.0.1", 7946)])
    assert not loops.if_nobody_answers(["127.0.0.2"], 7946)


def test_before_it_listens_nothing_leads_here():
    assert Own().others(["127.0.0.1"], 7946) == ["127.0.0.1"]
    assert not Own().if_nobody_answers(["127.0.0.1"], 7946)


def test_the_interfaces_of_this_machine_are_known():
    assert "127.0.0.1" in interfaces()
