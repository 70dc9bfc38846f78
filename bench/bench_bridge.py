"""What a bridge with eight peers costs when idle and at 100 writes per second, and its memory (target C9).

Nine hosts on this machine, each with a segment and a real cachee-bridge process, all linked to each other
over loopback. This process writes on the first; what counts is the processor time of that host's bridge (its
schedstat), and of its peers', which apply. In life the peers are machines of their own; here they take the
other core.

Memory is the bridge's private memory and its code (RssAnon + RssFile). The part of the segment that it has
read (RssShmem) is the namespace's memory and not the bridge's; it has a column of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mesh
from measuring import Target, apart, save, start, table, targets_table

PEERS = 8
WRITES_PER_SECOND = 100
IDLE, BUSY = "idle", f"{WRITES_PER_SECOND} writes per second"
MIB = 1 << 20


@dataclass(frozen=True)
class Shares:
    """Of one core, in percent."""

    writer: float
    peer: float
    """The median of the peers'."""


def spend(pids: Sequence[int], seconds: float, joined: mesh.Mesh | None) -> Shares:
    """What the bridges use of a core meanwhile; with a mesh, written to at an even pace."""
    cpu = [mesh.cpu_ns(pid) for pid in pids]
    begun = time.monotonic()
    written = 0
    while (passed := time.monotonic() - begun) < seconds:
        if joined is not None and passed * WRITES_PER_SECOND >= written:
            joined.cache.set(f"user:{written % 1000}", written)
            written += 1
        time.sleep(0.05 if joined is None else max(0.0, written / WRITES_PER_SECOND - passed))
    took = time.monotonic() - begun
    shares = [(mesh.cpu_ns(pid) - was) / 1e7 / took for pid, was in zip(pids, cpu, strict=True)]
    return Shares(shares[0], statistics.median(shares[1:]))


def memory_of(pid: int) -> dict[str, float]:
    """RssAnon, RssFile and RssShmem, in MiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        rows = [line.split() for line in file if line.startswith("Rss")]
    return {name.rstrip(":"): int(kib) / 1024 for name, kib, _ in rows}


def main() -> None:
    chosen = start(__doc__, repeats=5)
    seconds = 0.5 if chosen.quick else 4.0
    found: dict[str, list[Shares]] = {IDLE: [], BUSY: []}
    with mesh.mesh("nine", PEERS, "8MiB", apart()) as joined:
        hosts = [joined.here, *(host for host, _ in joined.peers)]
        pids = [host.bridge.pid for host in hosts if host.bridge is not None]
        for _ in range(chosen.repeats):
            joined.settle()
            found[IDLE].append(spend(pids, seconds, None))
            found[BUSY].append(spend(pids, seconds, joined))
        memory = memory_of(pids[0])
    shares = {name: [middle(turns, side) for side in ("writer", "peer")] for name, turns in found.items()}
    rows = [(name, *(f"{share:.2f} %" for share in both)) for name, both in shares.items()]
    title = f"Of a core, a bridge with {PEERS} peers"
    print(table(title, ("", "on the host that writes", "on one that applies"), rows))
    own = memory["RssAnon"] + memory["RssFile"]
    print(table("Resident, MiB", tuple(memory), [tuple(f"{mib:.1f}" for mib in memory.values())]))
    targets = [
        Target("C9", "idle", shares[IDLE][0], 0.5, " %"),
        Target("C9", f"at {BUSY}", shares[BUSY][0], 3, " %"),
        Target("C9", "memory of its own", own * MIB / 1e6, 60, " MB"),
    ]
    print(targets_table(targets))
    figures = {"percent_of_a_core": {name: [vars(turn) for turn in turns] for name, turns in found.items()}}
    save(
        chosen.out, "bridge", figures | {"resident_mib": memory}, targets, lambda figure: draw(figure, found)
    )


def middle(turns: Sequence[Shares], side: str) -> float:
    return statistics.median(getattr(turn, side) for turn in turns)


def draw(figure: Any, found: dict[str, list[Shares]]) -> None:
    axis = figure.subplots()
    for name, turns in found.items():
        axis.plot([turn.writer for turn in turns], "o-", label=f"{name}: the host that writes")
        axis.plot([turn.peer for turn in turns], "o--", label=f"{name}: one that applies")
    axis.set_xlabel("turn")
    axis.set_ylabel("percent of a core")
    axis.set_ylim(bottom=0)
    axis.legend()


if __name__ == "__main__":
    main()
