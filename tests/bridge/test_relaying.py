"""Beats of a relay."""

from cachee_bridge.routing import relaying
from cachee_bridge.wire.messages import ROWS_MAX, Beat, Cursor, Head


def test_a_beat_with_more_rows_than_a_message_takes_is_several():
    head = Head("shop", "a", 1, 1, 0, 0)
    cursors = tuple(Cursor("shop", "a", 1, number, "b") for number in range(2 * ROWS_MAX + 1))
    parts = relaying.in_parts(Beat(5, 4, (head,), cursors))
    assert [len(part.cursors) for part in parts] == [ROWS_MAX, ROWS_MAX, 1]
    assert tuple(row for part in parts for row in part.cursors) == cursors
    assert [part.heads for part in parts] == [(head,), (), ()]
    assert all((part.stamp, part.echo) == (5, 4) for part in parts)
