"""How those who proved nothing are summed up."""

from __future__ import annotations

from cachee_bridge.ports.views import Refusal
from cachee_bridge.shell.strangers import FIRSTS_MAX, KINDS_MAX, PERIOD_S, RECENT_S, Strangers


def test_the_first_of_a_reason_is_told_at_once_and_the_others_are_counted() -> None:
    strangers = Strangers()
    assert strangers.turned_away("10.0.0.9", "10.0.0.9:1", "no TLS", 0.0) == [
        "turned away a link from 10.0.0.9:1: no TLS"
    ]
    for port in range(1000):
        assert strangers.turned_away("10.0.0.9", f"10.0.0.9:{port}", "no TLS", 1.0) == []
    assert len(strangers.turned_away("10.0.0.8", "10.0.0.8:1", "unknown ca", 2.0)) == 1
    assert strangers.due(PERIOD_S - 1) == []
    (line,) = strangers.due(PERIOD_S)
    assert "1002 links" in line
    assert "no TLS (1001), unknown ca (1); from 10.0.0.9 (1001), 10.0.0.8 (1)" in line


def test_a_quiet_minute_says_nothing() -> None:
    strangers = Strangers()
    strangers.turned_away("10.0.0.9", "10.0.0.9:1", "no TLS", 0.0)
    assert strangers.due(PERIOD_S) == []
    assert strangers.due(2 * PERIOD_S) == []
    assert len(strangers.turned_away("10.0.0.9", "10.0.0.9:2", "no TLS", 3 * PERIOD_S)) == 1


def test_reasons_that_differ_in_a_number_are_one() -> None:
    strangers = Strangers()
    said = [strangers.turned_away("a", "a:1", f"a message of {length} bytes", 0.0) for length in range(1000)]
    assert sum(map(len, said)) == 1


def test_made_up_reasons_and_addresses_are_bounded_in_memory_and_in_lines() -> None:
    strangers = Strangers()
    said = sum(
        len(strangers.turned_away(f"2001:db8::{n:x}", "x:1", f"it calls itself {chr(0x4E00 + n)}", 1.0))
        for n in range(5000)
    )
    assert said == FIRSTS_MAX
    assert len(strangers._hosts) <= KINDS_MAX + 1
    assert len(strangers._reasons) <= KINDS_MAX + 1
    (line,) = strangers.due(1.0 + PERIOD_S)
    assert "5000 links" in line
    assert len(line) < 2000


def test_the_last_refusal_of_each_reason_is_kept_for_two_minutes() -> None:
    strangers = Strangers()
    for port in range(3):
        strangers.turned_away("10.0.0.9", f"10.0.0.9:{port}", f"no TLS in byte {port}", float(port))
    assert strangers.recent(3.0) == [Refusal("10.0.0.9:2", "no TLS in byte 2", 3, 2.0)]
    assert strangers.recent(2.0 + RECENT_S + 0.1) == []
    strangers.turned_away("10.0.0.9", "10.0.0.9:9", "no TLS in byte 9", 3.0 + RECENT_S)
    assert [each.times for each in strangers.recent(3.0 + RECENT_S)] == [1]
    for number in range(5000):
        strangers.turned_away("a", "a:1", f"it calls itself {chr(0x4E00 + number)}", 200.0)
    assert len(strangers.recent(200.0)) == KINDS_MAX
