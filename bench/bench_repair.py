"""What it costs a peer to have been lapped: what it evicts, is sent, and how long it takes (target C6).

Two hosts on this machine, each with a segment and a real cachee-bridge process, over loopback. In each turn
the first host's bridge is stopped (SIGSTOP) while this process deletes as many distinct keys there as the
ring holds records, twice over, so that the ring has lost the first half; then it goes on (SIGCONT).

  a map of buckets     what the peer is sent: it evicts what lies in the buckets that were written in
  one record for all   the same, with a `clear()` among what was written: it evicts everything, as a lapped
                       peer must where nothing tells what it missed

Of what the second host holds, a thousandth was deleted; all else that it evicts are other keys of the same
buckets. The time is from SIGCONT until the second host's cursor is at the first one's tail; the bytes are all
that the first bridge wrote meanwhile (wchar in its /proc/PID/io), beats and seals too; the time of a
processor is that of both bridges together.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mesh
from measuring import Target, apart, save, start, table, targets_table

MAP, ALL = "a map of buckets", "one record for all"
EVICTED_MOST, SENT_MOST_KIB, TOOK_MOST_MS = 7, 130, 50
WRITTEN_OF_HELD = 0.001


@dataclass(frozen=True)
class Repair:
    """One turn."""

    evicted_percent: float
    sent_kib: float
    took_ms: float
    cpu_ms: float


class Lapping:
    """A mesh of two, of which the second falls behind."""

    def __init__(self, joined: mesh.Mesh, held: int) -> None:
        self.host, self.writer = joined.here, joined.cache
        peer, self.reader = joined.peers[0]
        self.pids = [host.bridge.pid for host in (self.host, peer) if host.bridge is not None]
        self.held = [f"held:{number}" for number in range(held)]
        due = self.held[: int(held * WRITTEN_OF_HELD)]
        others = (f"other:{number}" for number in range(self.writer.ring_slots - len(due)))
        self.due, self.written = due, [*due, *others]

    def fill(self) -> None:
        for key in self.held:
            self.reader.get_or_load(key, lambda: b"x" * 100)

    def miss(self, clear: bool) -> None:
        """What the peer will have missed."""
        self.host.signal_bridge(signal.SIGSTOP)
        if clear:
            self.writer.clear()
        for _ in range(2):
            self.writer.delete_many(self.written)

    def turn(self, clear: bool) -> Repair:
        self.fill()
        self.miss(clear)
        before, tail = self.count(), self.writer.tail
        sent, cpu, begun = written_bytes(self.pids[0]), self.cpu_ns(), time.monotonic_ns()
        self.host.signal_bridge(signal.SIGCONT)
        while mesh.cursor_of(self.reader, self.host.name) < tail:
            time.sleep(0.0002)
        took, cpu = time.monotonic_ns() - begun, self.cpu_ns() - cpu
        sent = written_bytes(self.pids[0]) - sent
        if self.reader.get_many(self.due):
            raise SystemExit("the second host holds what was deleted on the first")
        return Repair(100 - 100 * self.count() / before, sent / 1024, took / 1e6, cpu / 1e6)

    def count(self) -> int:
        return len(self.reader.get_many(self.held))

    def cpu_ns(self) -> int:
        return sum(map(mesh.cpu_ns, self.pids))


def written_bytes(pid: int) -> int:
    """By system calls that write, to sockets too."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def main() -> None:
    chosen = start(__doc__, repeats=9)
    memory, held = ("16MiB", 20_000) if chosen.quick else ("256MiB", 500_000)
    found: dict[str, list[Repair]] = {MAP: [], ALL: []}
    with mesh.mesh("repair", 1, memory, apart()) as joined:
        lapping = Lapping(joined, held)
        for number in range(chosen.repeats + 1):
            for name, turns in found.items():
                repair = lapping.turn(clear=name == ALL)
                if number:  # the first warms up
                    turns.append(repair)
        keys = len(lapping.written)
    rows = [
        (
            name,
            f"{middle(turns, 'evicted_percent'):.2f} %",
            f"{middle(turns, 'sent_kib'):.1f} KiB",
            f"{middle(turns, 'took_ms'):.1f} ms",
            f"{max(turn.took_ms for turn in turns):.1f} ms",
            f"{middle(turns, 'cpu_ms'):.1f} ms",
        )
        for name, turns in found.items()
    ]
    title = f"A peer that missed {keys:,} distinct keys and holds {held:,} entries of {memory}"
    print(
        table(
            title, ("it is sent", "evicts", "all that is sent", "takes", "at worst", "of a processor"), rows
        )
    )
    targets = judge(found[MAP])
    print(targets_table(targets))
    save(chosen.out, "repair", {"turns": data(found)}, targets, lambda figure: draw(figure, found))


def middle(turns: Sequence[Repair], what: str) -> float:
    return statistics.median(getattr(turn, what) for turn in turns)


def judge(turns: Sequence[Repair]) -> list[Target]:
    return [
        Target("C6", "evicted, of what the peer holds", middle(turns, "evicted_percent"), EVICTED_MOST, " %"),
        Target("C6", "sent", middle(turns, "sent_kib"), SENT_MOST_KIB, " KiB"),
        Target("C6", "from SIGCONT to the cursor at the tail", middle(turns, "took_ms"), TOOK_MOST_MS, " ms"),
    ]


def data(found: dict[str, list[Repair]]) -> dict[str, Any]:
    return {name: [vars(turn) for turn in turns] for name, turns in found.items()}


def draw(figure: Any, found: dict[str, list[Repair]]) -> None:
    axes = figure.subplots(1, 3)
    shown = (
        ("evicted_percent", "% evicted", EVICTED_MOST),
        ("sent_kib", "KiB sent", SENT_MOST_KIB),
        ("took_ms", "ms", TOOK_MOST_MS),
    )
    for axis, (what, label, limit) in zip(axes, shown, strict=True):
        axis.bar(list(found), [middle(turns, what) for turns in found.values()])
        axis.axhline(limit, color="gray", linestyle="--")
        axis.set_ylabel(label)
    figure.suptitle("A lapped peer; dashed: the target")


if __name__ == "__main__":
    main()
