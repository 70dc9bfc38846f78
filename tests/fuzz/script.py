"""An input of a fuzzer, read as decisions: a changed byte is another decision, and not a broken length.

A message made of it is mostly right, so that it comes through to what it is meant for, and wrong in a place
or two: a field of another type, a number at an edge, a row too long or too short, rows without end, spoiled
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, PREFIX
from cachee_bridge.wire.messages import MAGIC, ROWS_MAX

EDGES = (0, 1, 2, 3, 20, 21, 63, 4095, 2**31, 2**32, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1)
DEEP = b"\x91" * 3000 + b"\xc0"
WRONG: tuple[Any, ...] = (
    *(None, True, False, -1, -(2**63), 2**64 - 1, 1.5, float("nan"), "", "x" * 10_000, b"", bytes(10_000)),
    *([], [[]], [None] * 2000, {}, {"a": 1}, {1: [2]}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(1)),
    *("\x1b[2J", "\N{GRINNING FACE}", "a" * 64, "v:0", "v:1\n", "[::1]:1"),
)  # fmt: skip
LENGTHS = (0, 1, 2**31, 2**32 - 1, HANDSHAKE_BYTES_MAX, HANDSHAKE_BYTES_MAX + 1, FRAME_BYTES_MAX + 1)
LEN = {1: 9, 2: 17, 3: 9, 4: 1, 5: 1, 7: 9}

ROWS: dict[int, tuple[Any, ...]] = {
    1: ("magic", "version", "name", "number", "nonce", "mode", "address", "region"),
    2: (["mac"],),
    3: ([("namespace", "incarnation", "position", "fingerprint")],),
    4: ("stamp", "echo", [("namespace", "name", "incarnation", "position", "number", "kind")],
        [("namespace", "owner", "incarnation", "position", "name")]),
    5: ("namespace", "name", "incarnation", "position", "position", "payload"),
    6: ("namespace", "owner", "incarnation", "position"),
    7: ("asked", "kind"),
    8: ([("name", "address")],),
    9: ("text", [("namespace", "incarnation", "position")]),
    10: (["owner"],),
    11: ("stamp", "echo", [("namespace", "name", "incarnation", "position", "number", "kind")],
         [("namespace", "owner", "incarnation", "position", "name")], "number", "number"),
    12: ("number", "kind", "namespace", [("hash", "position", "value")]),
    13: ("number", "namespace", "text", "incarnation", "position", "position",
         [("hash", "kind", "number", "position", "number", "number", "value")],
         [("hash", "number", "text", "text", "owner", "incarnation", "position", "kind", "text", "text",
           "text", "number", "kind")]),
}  # fmt: skip
"""By type of message, its fields; a list stands for rows of them."""


class Script:
    """Decisions until the input is used up; then each is the first, and `over` says so."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._named = data, 0, 0
        self.right: dict[str, Callable[[], Any]] = {}
        """What would be right just now, by the field's kind: what only the other end can know."""

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def below(self, n: int) -> int:
        return int.from_bytes(self.raw(1 if n <= 256 else 2), "little") % n

    def seldom(self, n: int) -> bool:
        return self.below(n) == n - 1

    def raw(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def one_of(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def number(self) -> int:
        kind = self.below(20)
        return EDGES[kind] if kind < len(EDGES) else int.from_bytes(self.raw(8 if kind > 17 else 1), "little")

    # Fields

    def field(self, kind: str) -> Any:
        if self.seldom(60):
            return WRONG[self.below(len(WRONG))]
        if kind in self.right and not self.seldom(8):
            return self.right[kind]()
        return self._plain(kind)

    def _plain(self, kind: str) -> Any:
        choices: dict[str, tuple[Any, ...]] = {
            "magic": (MAGIC,),
            "version": (2, 2, 2, 3, 1),
            "name": ("evil", "other", "v", "g"),
            "owner": ("v", "v", "g", "evil"),
            "mode": ("none", "secret"),
            "address": ("evil:1", ":7", "", "g:1", "v:1", "g:01", "[::1]:9", "x:1", "y:2", "z:3"),
            "namespace": ("shop", "shop", "news", "none-such"),
            "incarnation": (1, 4, 4, 5),
            "fingerprint": (7, 7, 7, 8),
            "text": ("bye", ""),
            "asked": ("", "", "g", "evil"),
            "region": ("", "", "eu"),
            "kind": (0, 0, 1, 2, 3, 4),
            "hash": (1 << 54, 1 << 54, 2**32, 1, 0),
        }
        if kind in choices:
            return self.one_of(*choices[kind])
        if kind == "nonce":
            return (
                self.raw(4).ljust(RANDOM_BYTES, b".")
                + self.one_of(OFFER, OFFER, bytes(7))
                + self.one_of(b"\3", b"\2", b"\4")
            )
        if kind == "mac":
            return self.raw(4).ljust(32, b".")
        if kind == "value":
            return self.raw(self.below(100))
        return self.payload() if kind == "payload" else self._count(kind)

    def _count(self, kind: str) -> int:
        near = kind == "position" and not self.seldom(6)
        return self.below(64) if near else self.number()

    def payload(self) -> bytes:
        """Records as the segment takes them; now and then something else, or a great many."""
        kinds = [self.one_of(*LEN) for _ in range(self.below(4))]
        packed = b"".join(
            bytes([kind]) + self.raw(2).ljust(LEN[kind] - 1, b"e")[: LEN[kind] - 1] for kind in kinds
        )
        fate = self.below(16)
        return {13: packed * 200, 14: packed[:-1], 15: packed + self.raw(3)}.get(fate, packed)

    # Messages

    def message(self) -> bytes:
        """With its prefix, without a seal."""
        number = self.one_of(3, 4, 4, 5, 5, 5, 6, 6, 7, 8, 9, 1, 2, 10, 4, 10, 11, 11, 12, 12, 13)
        body = msgpack.packb(self._fields(ROWS[number]), use_bin_type=True)
        if self.seldom(12):
            body = self._spoiled(body)
        length = LENGTHS[self.below(len(LENGTHS))] if self.seldom(40) else len(body) + 1
        return PREFIX.pack(length, self.below(256) if self.seldom(40) else number) + body

    def _fields(self, shape: tuple[Any, ...]) -> list[Any]:
        fields = [self._list(kind[0]) if type(kind) is list else self.field(kind) for kind in shape]
        if self.seldom(40):
            return fields[:-1] if self.below(2) else [*fields, 0]
        return fields

    def _list(self, row: str | tuple[str, ...]) -> Any:
        if self.seldom(40):
            return WRONG[self.below(len(WRONG))]
        rows = [self._row(row) for _ in range(self.one_of(1, 1, 1, 2, 3, 0))]
        return self._many(rows) if self.seldom(40) else rows

    def _many(self, rows: list[Any]) -> list[Any]:
        """The same over and over, or each with a name of its own, and others the next time."""
        count = self.one_of(ROWS_MAX // 2, ROWS_MAX // 2, ROWS_MAX, ROWS_MAX + 1)
        if not rows or self.below(2) or type(rows[0]) is not list:
            return rows * count
        self._named += count
        return [[f"n{self._named + number}", *rows[0][1:]] for number in range(count)]

    def _row(self, row: str | tuple[str, ...]) -> Any:
        return self.field(row) if isinstance(row, str) else self._fields(row)

    def _spoiled(self, body: bytes) -> bytes:
        at = self.below(len(body)) if body else 0
        return (body[:at], body[:at] + self.raw(2) + body[at + 1 :], body + self.raw(2), DEEP)[self.below(4)]
