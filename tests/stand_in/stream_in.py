"""The way in of the bridge's data path. See stream_in.c, which is held to this."""

from __future__ import annotations

from typing import NamedTuple

from cachee_bridge.streams.stream import PACK_BYTES
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, PREFIX, decode
from cachee_bridge.wire.messages import PAYLOAD_ALL, Frame
from cachee_bridge.wire.seal import SEAL_BYTES
from cachee_shm.errors import FrameError

__all__ = ["Whole", "ordinary", "whole_frame"]


class Whole(NamedTuple):
    """A frame, and how many bytes it was."""

    bytes: int
    frame: Frame


def whole_frame(data: bytes, head: bytes, sealed: bool) -> Whole | None:
    """The frame with which `data` begins, if it is one of the stream that has this head."""
    if len(data) < PREFIX.size:
        return None
    length, number = PREFIX.unpack_from(data)
    end = PREFIX.size - 1 + length
    size = end + (SEAL_BYTES if sealed else 0)
    if not 1 <= length <= FRAME_BYTES_MAX or size > len(data):
        return None
    body = data[PREFIX.size : end]
    if not body.startswith(head):
        return None
    try:
        message = decode(number, body)
    except FrameError:
        return None
    return Whole(size, message) if isinstance(message, Frame) else None


def ordinary(frame: Frame, cursor: int) -> bool:
    """In order behind the cursor, and nothing that anybody has to be told of."""
    in_order = frame.first <= cursor + 1 and frame.last > cursor
    return in_order and len(frame.payload) <= PACK_BYTES and frame.payload != PAYLOAD_ALL
