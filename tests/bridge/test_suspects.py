"""One write that a peer may not have seen: when it is asked again, and what is said to be wrong."""

from __future__ import annotations

import pytest

from cachee_bridge.checker.suspects import LOOKS_S, TRACE_MAX, Watch, Wrong
from cachee_bridge.wire.messages import SHARED, Answer, Holding

POSITION, INCARNATION, WRITTEN_AT = 100, 7, 50.0


def watch() -> Watch:
    return Watch("b", "shop", 5, "canary", POSITION, INCARNATION, WRITTEN_AT, number=3)


def holding(version: int = 20 << 1, fence: int = 20) -> Holding:
    return Holding(5, SHARED, version, fence, 400, 99, b"")


def answer(cursor: int, incarnation: int = INCARNATION) -> Answer:
    return Answer(1, "shop", "", incarnation, cursor, 30, (holding(),), ())


def wrong(one: Watch, cursor: int, told: int, incarnation: int = INCARNATION) -> Wrong | None:
    one.judge(answer(cursor, incarnation), holding(), told, WRITTEN_AT + 0.01)
    return one.wrong


def test_looks_come_at_their_times_after_the_write_and_end():
    one, now, came = watch(), WRITTEN_AT, []
    while one.next_look(now):
        now = one.due_at
        came.append(round(now - WRITTEN_AT, 6))
    assert came == list(LOOKS_S)


def test_an_answer_that_comes_late_skips_the_looks_that_would_have_been_before_it():
    one = watch()
    assert one.next_look(WRITTEN_AT + 0.05)
    assert one.due_at == WRITTEN_AT + 0.1
    assert not one.next_look(WRITTEN_AT + 60)


@pytest.mark.parametrize(
    ("cursor", "told", "incarnation", "expected"),
    [
        (99, 99, INCARNATION, Wrong.NOT_APPLIED),
        (99, 100, INCARNATION, Wrong.AHEAD),
        (100, 100, INCARNATION, Wrong.LOST),
        (100, 0, INCARNATION, Wrong.LOST),
        (500, 0, INCARNATION - 1, Wrong.NOT_APPLIED),
        (500, 100, INCARNATION - 1, Wrong.AHEAD),
    ],
)
def test_what_is_wrong_follows_from_what_the_segment_and_the_bridge_say(cursor, told, incarnation, expected):
    one = watch()
    assert wrong(one, cursor, told, incarnation) is expected
    assert str(POSITION) in one.why


def test_a_fill_that_was_stored_after_the_write_was_applied_is_named_before_a_loss():
    one = watch()
    one.refilled = True
    assert wrong(one, 100, 100) is Wrong.REFILLED
    assert wrong(one, 99, 99) is Wrong.NOT_APPLIED


def test_the_trace_says_what_was_held_and_is_bounded():
    one = watch()
    for _ in range(TRACE_MAX + 9):
        wrong(one, 100, 100)
    assert len(one.trace) == TRACE_MAX
    assert one.trace[0] == (
        "10.0 ms after the write: invalidation lost: holds version 20, 0.4 s old; fence 20; applied 100; "
        "told 100"
    )


def test_the_view_is_ready_for_json():
    one = watch()
    wrong(one, 100, 100)
    view = one.view(WRITTEN_AT + 2.5, over=True)
    assert (view["peer"], view["hash"], view["since_s"], view["over"]) == ("b", f"{5:016x}", 2.5, True)
    assert view["name"] == "invalidation lost" and view["trace"] == one.trace
