"""What a stranger that proves nothing, and a peer that asks too much, cost the others (targets C13 and R12).

Two hosts on this machine, linked, each with a segment and a real cachee-bridge process. This process writes
on the first, one write at a time, and waits until it is applied on the second.

  quiet        no attacker
  a stranger   connects to the second host as fast as it can, says 64 bytes and is turned away, without end
  SYNC flood   a peer asks the second host for its cursors, 125 KiB of questions at once, without end

Both attackers run on the same cores. Quiet turns and attacked ones alternate. The longest wait shows how long
the event loop of the second host was held up: no host may wait 10 ms for the bytes of another.
"""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mesh
from measuring import Target, apart, percentile, save, start, table, targets_table

QUIET, STRANGER, SYNCS = "quiet", "a stranger", "SYNC flood"
SLOWER_MAX, LINES_MAX = 1.5, 1.0
PACE_S = 0.004
WAIT_S = 5.0
CONNECTS = """
import socket, sys
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
            sock.settimeout(1)
            sock.sendall(b"\\xff" * 64)
            while sock.recv(4096):
                pass
    except OSError:
        pass
"""
ASKS = """
import select, socket, sys
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, VERSION_MIN, Decoder, encode
from cachee_bridge.wire.messages import MAGIC, Hello, NamespaceState, State, Sync
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
decoder = Decoder(FRAME_BYTES_MAX)
sock.sendall(encode(Hello(MAGIC, VERSION_MIN, "loud", 1, bytes(range(32)), "none", "", "")))
ready = False
while not ready:
    for message in decoder.feed(sock.recv(1 << 16)):
        if isinstance(message, State):
            rows = [NamespaceState(row.namespace, 1, 0, row.fingerprint) for row in message.namespaces]
            sock.sendall(encode(State(tuple(rows))))
            ready = True
sock.setblocking(False)
flood = encode(Sync()) * ((125 << 10) // len(encode(Sync())))
while True:
    select.select([sock], [sock], [])
    try:
        sock.send(flood)
    except BlockingIOError:
        pass
    try:
        while sock.recv(1 << 18):
            pass
    except BlockingIOError:
        pass
"""


class Trips:
    """From the first host to the second, one write at a time."""

    def __init__(self, joined: mesh.Mesh) -> None:
        self.writer = joined.cache
        peer, self.reader = joined.peers[0]
        assert peer.bridge is not None
        self.source, self.pid, self.log = joined.here.name, peer.bridge.pid, peer.log
        address = Path(peer.config).read_text().partition('listen = "')[2].partition('"')[0]
        self.port = int(address.rpartition(":")[2])

    def take(self, count: int) -> list[float]:
        """Microseconds of each."""
        took = []
        for number in range(count):
            time.sleep(PACE_S)
            begun = time.perf_counter()
            self.writer.set("k", number)
            tail = self.writer.tail
            while mesh.cursor_of(self.reader, self.source) < tail:
                if time.perf_counter() > begun + WAIT_S:
                    raise SystemExit(f"a write was not applied within {WAIT_S:g} s")
            took.append(1e6 * (time.perf_counter() - begun))
        return took


@contextmanager
def beside(script: str, port: int) -> Iterator[None]:
    """A process that does its worst meanwhile."""
    with subprocess.Popen([sys.executable, "-c", script, str(port)]) as process:
        time.sleep(1.0)  # the burst that a gate lets in is over
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    chosen = start(__doc__, repeats=5)
    count = 20 if chosen.quick else 300
    found: dict[str, list[list[float]]] = {QUIET: [], STRANGER: [], SYNCS: []}
    cpu: dict[str, list[float]] = {name: [] for name in found}
    lines: list[float] = []
    for name, script, proof in ((STRANGER, CONNECTS, mesh.secret), (SYNCS, ASKS, mesh.no_proof)):
        with mesh.mesh(f"stranger-{secrets.token_hex(2)}", 1, "8MiB", apart(), proof=proof) as joined:
            trips = Trips(joined)
            trips.take(count)
            for _ in range(chosen.repeats):
                measured(QUIET, trips, count, found, cpu)
                with beside(script, trips.port):
                    before, begun = trips.log.read_text().count("\n"), time.monotonic()
                    measured(name, trips, count, found, cpu)
                    said = trips.log.read_text().count("\n") - before
                    if name == STRANGER:
                        lines.append(said / (time.monotonic() - begun))
    rows = [
        (
            name,
            *(f"{middle(turns, percent):,.0f}" for percent in (50, 90, 99, 100)),
            f"{100 * statistics.median(cpu[name]):.0f} %",
        )
        for name, turns in found.items()
    ]
    header = ("beside", "p50", "p90", "p99", "longest", "of a core")
    print(table("From a write to its arrival, µs, and what the second bridge used", header, rows))
    quiet = middle(found[QUIET], 50)
    targets = [
        Target("C13", "p50 beside a stranger / quiet", middle(found[STRANGER], 50) / quiet, SLOWER_MAX),
        Target("C13", "log lines a second", statistics.median(lines), LINES_MAX),
        Target("R12", "p99 beside a SYNC flood, ms", middle(found[SYNCS], 99) / 1000, 10.0, " ms"),
    ]
    print(targets_table(targets))
    save(chosen.out, "stranger", {"us": found, "cpu": cpu}, targets, lambda figure: draw(figure, found))


def measured(
    name: str, trips: Trips, count: int, found: dict[str, list[list[float]]], cpu: dict[str, list[float]]
) -> None:
    before, begun = mesh.cpu_ns(trips.pid), time.monotonic_ns()
    found[name].append(trips.take(count))
    cpu[name].append((mesh.cpu_ns(trips.pid) - before) / (time.monotonic_ns() - begun))


def middle(turns: list[list[float]], percent: float) -> float:
    """The median of the turns' percentile."""
    return statistics.median(percentile(turn, percent) for turn in turns)


def draw(figure: Any, found: dict[str, list[list[float]]]) -> None:
    axis = figure.subplots()
    for name, turns in found.items():
        took = sorted(each for turn in turns for each in turn)
        axis.plot(took, [100 * at / len(took) for at in range(len(took))], label=name)
    axis.set_xscale("log")
    axis.set_xlabel("µs from a write to its arrival")
    axis.set_ylabel("% of writes")
    axis.legend()


if __name__ == "__main__":
    main()
