"""Which boot of a peer was met last."""

import pytest

from cachee_bridge.sources import boots
from cachee_bridge.sources.boots import Boots, Earlier, boot_of, instance_of


@pytest.fixture
def known() -> Boots:
    known = Boots()
    known.met("web-1", instance_of(7, 1))
    return known


def test_a_host_that_was_never_met_may_have_had_any_before(known):
    assert known.earlier("web-2", instance_of(7, 1)) is Earlier.UNKNOWN


def test_another_life_of_the_bridge_in_the_same_boot_misses_none(known):
    assert known.earlier("web-1", instance_of(7, 2)) is Earlier.NONE_MISSED


def test_another_boot_was_missed_until_it_is_met(known):
    assert known.earlier("web-1", instance_of(8, 1)) is Earlier.MISSED
    known.met("web-1", instance_of(8, 1))
    assert known.earlier("web-1", instance_of(8, 1)) is Earlier.NONE_MISSED
    assert known.earlier("web-1", instance_of(7, 1)) is Earlier.MISSED


def test_after_a_farewell_none_is_missed_once(known):
    known.left("web-1")
    assert known.earlier("web-1", instance_of(8, 1)) is Earlier.NONE_MISSED
    known.met("web-1", instance_of(8, 1))
    assert known.earlier("web-1", instance_of(9, 1)) is Earlier.MISSED


def test_a_farewell_of_a_host_that_was_never_met_says_nothing_of_its_earlier_boots(known):
    known.left("web-2")
    assert known.earlier("web-2", instance_of(8, 1)) is Earlier.UNKNOWN


def test_once_a_name_was_dropped_any_unknown_host_may_be_it(known, monkeypatch):
    monkeypatch.setattr(boots, "BOOTS_MAX", 2)
    known.met("web-2", 0)
    known.met("web-1", instance_of(7, 1))
    known.met("web-3", 0)
    assert known.earlier("web-1", instance_of(7, 1)) is Earlier.NONE_MISSED
    assert known.earlier("web-2", 0) is Earlier.MISSED
    assert known.earlier("web-4", 0) is Earlier.MISSED


def test_an_instance_is_a_boot_and_a_life():
    instance = instance_of(0xFFFFFFFE, 2**64 - 1)
    assert instance < 2**64
    assert boot_of(instance) == 0xFFFFFFFE
