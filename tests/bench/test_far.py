"""The proxy that makes a region far."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from far import Copies, Reader

from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import Beat, Frame


def passed(*pieces):
    copies = Copies()
    reader = Reader(copies, "into west")
    for piece in pieces:
        reader.passes(piece)
    return copies


def frame(source, payload=b"\x01" + bytes(8)):
    return encode(Frame("shop", source, 1, 1, 1, payload))


def test_frames_with_records_are_counted_by_their_source():
    beat = encode(Beat(1, 0, (), ()))
    found = passed(frame("a") + beat, frame("b"), frame("a"), frame("a", b""))
    assert found == {("a", "into west"): 2, ("b", "into west"): 1}


def test_a_frame_in_two_pieces_is_one():
    whole = frame("a")
    assert passed(whole[:9], whole[9:]) == {("a", "into west"): 1}


def test_what_is_not_the_meshs_is_carried_and_not_counted():
    assert passed(b"x" * 64, b"x" * 64, frame("a")) == {}
