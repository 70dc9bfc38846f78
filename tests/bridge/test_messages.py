"""Messages: of which namespaces each speaks, and how many rows it has."""

import pytest

from cachee_bridge.wire.frames import NUMBERS
from cachee_bridge.wire.messages import (
    GIVEN,
    REASON_CHARACTERS,
    Answer,
    Applied,
    Asked,
    Auth,
    Beat,
    Calm,
    Cursor,
    Doubt,
    Fetch,
    Fetched,
    FinalHead,
    Follow,
    Frame,
    Head,
    Hello,
    Holding,
    JournalRow,
    Leave,
    NamespaceState,
    PeerAddress,
    Peers,
    Question,
    Replay,
    State,
    Sync,
    namespaces_of,
    printable,
    rows_of,
)

HEADS = (Head("shop", "a", 1, 0, 0, 0), Head("news", "a", 1, 0, 0, 0))
CURSORS = (Cursor("blog", "b", 1, 0, "a"),)
HOLDING = Holding(1, 0, 0, 0, 0, 0, b"")
ROW = JournalRow(1, 0, "sent", "segment", "a", 1, 5, 7, "python", "shop", "", 0, 0)
MESSAGES = [
    (Hello("cachee", 2, "a", 1, bytes(32), "none", "", ""), [], 0),
    (Auth((bytes(32),)), [], 1),
    (State((NamespaceState("shop", 1, 0, 7), NamespaceState("news", 1, 0, 7))), ["shop", "news"], 2),
    (Beat(1, 0, HEADS, CURSORS), ["shop", "news", "blog"], 3),
    (Doubt(("shop", "news")), ["shop", "news"], 2),
    (Calm(1, 0, HEADS, CURSORS, 5, 6), ["shop", "news", "blog"], 3),
    (Frame("shop", "a", 1, 1, 1, b""), ["shop"], 0),
    (Replay("shop", "b", 1, 1), ["shop"], 0),
    (Sync("a"), [], 0),
    (Peers((PeerAddress("a", "a:1"), PeerAddress("b", "b:1"))), [], 2),
    (Leave("", (FinalHead("news", 1, 0),)), ["news"], 1),
    (Follow(("a", "b")), [], 2),
    (Question(1, 0, "shop", (Asked(1), Asked(2))), ["shop"], 2),
    (Answer(1, "shop", "", 1, 0, 0, (HOLDING,), (ROW, ROW)), ["shop"], 3),
    (Fetch(1, "shop", b"k", 50, (Applied("a", 1, 2), Applied("b", 1, 2))), ["shop"], 2),
    (Fetched(1, "shop", b"k", GIVEN, "", 1, 0, 0, (5, 6, 7), b"v"), ["shop"], 3),
]


def test_every_message_is_in_the_table_below():
    assert {type(message) for message, _, _ in MESSAGES} == set(NUMBERS)


@pytest.mark.parametrize(("message", "namespaces", "rows"), MESSAGES, ids=lambda it: type(it).__name__)
def test_a_message_speaks_of_the_namespaces_of_all_its_rows(message, namespaces, rows):
    assert namespaces_of(message) == namespaces
    assert rows_of(message) == rows


def test_a_reason_is_made_printable_and_short():
    assert printable("bad\x1b[2J") == "bad?[2J"
    assert len(printable("x" * 999)) == REASON_CHARACTERS
