"""The checker against constructed histories: what must be flagged is, and what may happen is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.cli.demo import journal
from cachee_shm.cli.demo.checker import Applied, Evidence, Known, Verdict, check, gather
from cachee_shm.cli.demo.journal import UNANSWERED, Journal, Position, Probe, Read, Write

A, B = "a", "b"
KEY = "price:1"
BOUND_NS = 1000


def read(host: str, version: int, start_ns: int, end_ns: int | None = None, body: int | None = None) -> Read:
    return Read(host, KEY, version, version if body is None else body, start_ns, end_ns or start_ns + 1)


def write(host: str, version: int, start_ns: int, end_ns: int) -> Write:
    return Write(host, KEY, version, version, start_ns, end_ns)


def position(time_ns: int, *, tail: int, cursor: int) -> Position:
    """A look of two nanoseconds at how far B has applied A's ring."""
    return Position(A, B, time_ns, tail, cursor, time_ns + 2)


def judge(
    reads: Sequence[Read], writes: Sequence[Write], positions: Sequence[Position] = (), **changed: object
) -> Verdict:
    """The verdict where the history is what the writes say, unless `history` is given."""
    history: dict[str, dict[int, int]] = {}
    for one in writes:
        history.setdefault(one.key, {})[one.version] = (one.start_ns + one.end_ns) // 2
    evidence = Evidence(list(reads), list(writes), list(positions), [], history)
    for name, value in changed.items():
        setattr(evidence, name, value)
    return check(evidence, BOUND_NS)


# What a host took itself


def test_an_old_row_at_the_writing_host_after_the_write_returned_breaks_a_promise() -> None:
    verdict = judge([read(A, 1, start_ns=31)], [write(A, 2, 10, 30)])
    (found,) = verdict.stale
    assert found.broken and found.needed == 2 and found.behind_ns == 1


def test_an_old_row_while_the_write_is_under_way_is_allowed() -> None:
    assert not judge([read(A, 1, start_ns=20), read(A, 1, start_ns=30)], [write(A, 2, 10, 30)]).stale


def test_a_read_that_began_before_the_write_returned_may_end_after_it() -> None:
    assert not judge([read(A, 1, start_ns=25, end_ns=90)], [write(A, 2, 10, 30)]).stale


def test_the_new_row_before_its_write_returned_is_allowed() -> None:
    verdict = judge([read(A, 2, start_ns=15, end_ns=29)], [write(A, 2, 10, 30)])
    assert not verdict.stale and not verdict.wrong


def test_a_newer_row_than_needed_is_allowed() -> None:
    writes = [write(A, 2, 10, 30), write(A, 3, 40, 60)]
    assert not judge([read(A, 3, start_ns=55)], writes).stale


def test_the_newest_of_several_writes_counts_whatever_order_they_returned_in() -> None:
    writes = [write(A, 2, 10, 90), write(A, 3, 20, 40)]
    (found,) = judge([read(A, 2, start_ns=95)], writes).stale
    assert found.needed == 3 and found.behind_ns == 55


def test_a_write_without_an_answer_asks_nothing_of_readers() -> None:
    unanswered = Write(A, KEY, UNANSWERED, 0, 10, 30)
    assert not judge([read(A, 1, start_ns=5000)], [unanswered], history={}).stale


# What another host took


def test_an_old_row_after_the_announcement_was_applied_breaks_a_promise() -> None:
    looks = [position(35, tail=7, cursor=6), position(45, tail=7, cursor=7)]
    (found,) = judge([read(B, 1, start_ns=50)], [write(A, 2, 10, 30)], looks).stale
    assert found.broken and found.behind_ns == 20


def test_an_old_row_before_the_announcement_was_applied_is_allowed() -> None:
    looks = [position(35, tail=7, cursor=6), position(45, tail=7, cursor=7)]
    assert not judge([read(B, 1, start_ns=46)], [write(A, 2, 10, 30)], looks).stale


def test_a_look_that_began_before_the_write_returned_says_nothing_about_it() -> None:
    looks = [position(25, tail=6, cursor=6), position(35, tail=7, cursor=6)]
    assert not judge([read(B, 1, start_ns=50)], [write(A, 2, 10, 30)], looks).stale


def test_an_old_row_long_after_a_write_is_late_when_nothing_was_applied() -> None:
    looks = [position(35, tail=7, cursor=6)]
    (found,) = judge([read(B, 1, start_ns=1031)], [write(A, 2, 10, 30)], looks).stale
    assert not found.broken and found.behind_ns == 1001


def test_an_old_row_within_the_bound_is_allowed_when_nothing_was_applied() -> None:
    assert not judge([read(B, 1, start_ns=1030)], [write(A, 2, 10, 30)]).stale


def test_how_far_behind_counts_from_the_first_write_that_replaced_the_row() -> None:
    writes = [write(A, 2, 10, 30), write(A, 3, 500, 600)]
    (found,) = judge([read(B, 1, start_ns=1700)], writes).stale
    assert found.needed == 3 and found.behind_ns == 1670


def test_positions_of_the_other_direction_are_not_mixed_up() -> None:
    looks = [Position(B, A, 35, 7, 7, 37)]
    assert not judge([read(B, 1, start_ns=50)], [write(A, 2, 10, 30)], looks).stale


def test_an_old_value_written_back_is_a_new_version() -> None:
    """The rows' contents are equal, the versions are not: the checker goes by versions alone."""
    writes = [write(A, 2, 10, 30), Write(A, KEY, 3, 1, 40, 60)]
    (found,) = judge([read(A, 1, start_ns=70, body=1)], writes).stale
    assert found.needed == 3


# Evidence that contradicts itself


def test_a_row_that_nobody_wrote_is_named() -> None:
    (wrong,) = judge([read(A, 9, start_ns=50)], [write(A, 2, 10, 30)]).wrong
    assert "showed version 9, which nobody wrote" in wrong


def test_a_row_seen_before_it_was_written_is_named() -> None:
    (wrong,) = judge([read(A, 2, start_ns=2, end_ns=5)], [write(A, 2, 10, 30)]).wrong
    assert "before it was written" in wrong


def test_a_row_with_contents_of_another_version_is_named() -> None:
    (wrong,) = judge([read(A, 2, start_ns=50, body=77)], [write(A, 2, 10, 30)]).wrong
    assert "contents of another" in wrong


def test_an_acknowledged_write_that_the_database_does_not_know_is_named() -> None:
    (wrong,) = judge([], [write(A, 2, 10, 30)], history={}).wrong
    assert "acknowledged and is not in the history" in wrong


def test_two_writes_that_were_given_one_version_are_named() -> None:
    verdict = judge([], [write(A, 2, 10, 30), write(B, 2, 10, 30)])
    assert any("acknowledged twice" in wrong for wrong in verdict.wrong)


def test_a_gap_in_the_history_is_named() -> None:
    (wrong,) = judge([], [], history={KEY: {2: 20, 4: 40}}).wrong
    assert "gap" in wrong


def test_a_write_stamped_outside_of_its_request_is_named() -> None:
    (wrong,) = judge([], [write(A, 2, 10, 30)], history={KEY: {2: 31}}).wrong
    assert "under way" in wrong


def test_the_first_version_needs_no_history() -> None:
    verdict = judge([read(A, 1, start_ns=5)], [])
    assert not verdict.stale and not verdict.wrong


# The parts


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30))), st.integers(0, 31))
def test_known_is_the_newest_version_of_all_facts_before_a_time(
    facts: list[tuple[int, int]], time_ns: int
) -> None:
    expected = max((version for known_ns, version in facts if known_ns < time_ns), default=0)
    assert Known(facts).at(time_ns) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))), st.integers(0, 60))
def test_applied_is_never_earlier_than_a_look_at_which_the_cursor_had_reached_the_tail(
    steps: list[tuple[int, int, int]], announced_ns: int
) -> None:
    """Against the definition, on rings that grow and cursors that follow them."""
    time_ns, tail, cursor, looks = 0, 0, 0, []
    for pause, more, applied in steps:
        time_ns, tail, cursor = time_ns + 3 + pause, tail + more, min(tail + more, cursor + applied)
        looks.append(position(time_ns, tail=tail, cursor=cursor))
    first = next((look for look in looks if look.before_ns >= announced_ns), None)
    expected = next((look.after_ns for look in looks if first and look.cursor >= first.tail), None)
    assert Applied(looks).by(announced_ns) == expected


def test_a_journal_gives_back_what_was_written_and_passes_over_a_torn_last_line(tmp_path: Path) -> None:
    records = [read(A, 1, 5), write(B, 2, 10, 30), position(35, tail=7, cursor=6), Probe(A, B, 40, -1)]
    path = tmp_path / "one.journal"
    with Journal(path) as writing:
        for record in records:
            writing.add(record)
    with path.open("a") as file:
        file.write("Read\ta\tprice:1\t1")
    assert list(journal.read([path])) == records


def test_records_are_gathered_by_their_kind() -> None:
    records = [read(A, 1, 5), write(B, 2, 10, 30), position(35, tail=7, cursor=6), Probe(A, B, 40, 9)]
    evidence = gather(records, {})
    assert (evidence.reads, evidence.writes) == ([records[0]], [records[1]])
    assert (evidence.positions, evidence.probes) == ([records[2]], [records[3]])


def test_a_line_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        journal.parse("Gossip\ta\tb\n")
