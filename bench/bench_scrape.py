"""What a scrape of /metrics costs a bridge with eight peers and eight namespaces; its memory (target S14).

Nine hosts on this machine, each with eight segments and a real cachee-bridge process, all linked to each
other over loopback. One bridge is scraped on a connection that stays open, and is left alone for as long.
What counts is the difference of its processor time (its schedstat), divided by the number of scrapes.
"""

from __future__ import annotations

import http.client
import statistics
import time
from pathlib import Path
from typing import Any

import mesh
from bench_bridge import MIB, memory_of
from measuring import Target, apart, save, start, table, targets_table

from cachee_shm.ports import free_ports

PEERS, NAMESPACES = 8, 8
APART_S = 0.12
"""Between two scrapes: a text that is younger than 0.1 s is told again (http/metrics.py)."""


def scrape(client: http.client.HTTPConnection) -> int:
    """Bytes of the text."""
    client.request("GET", "/metrics")
    answer = client.getresponse()
    text = answer.read()
    assert answer.status == 200 and b"cachee_commands_total" in text
    return len(text)


def spend_ms(pid: int, scrapes: int, client: http.client.HTTPConnection | None) -> float:
    """Processor time of the bridge, with so many scrapes or none in the same time."""
    before = mesh.cpu_ns(pid)
    for _ in range(scrapes):
        if client is not None:
            scrape(client)
        time.sleep(APART_S)
    return (mesh.cpu_ns(pid) - before) / 1e6


def main() -> None:
    chosen = start(__doc__, repeats=5)
    scrapes = 5 if chosen.quick else 40
    (port,) = free_ports(1)

    def proof(folder: Path, host: str) -> str:
        listens = (
            f'metrics = "127.0.0.1:{port}"\n'
            if host.startswith("bench-scraped-") and "peer" not in host
            else ""
        )
        more = "".join(f'[namespaces.n{number}]\nmemory = "8MiB"\n' for number in range(NAMESPACES - 1))
        return f"{mesh.secret(folder, host).rstrip()}\n{listens}{more}"

    with mesh.mesh("scraped", PEERS, "8MiB", apart(), proof=proof) as joined:
        assert joined.here.bridge is not None
        pid = joined.here.bridge.pid
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        text_bytes = scrape(client)
        costs = []
        for _ in range(chosen.repeats):
            idle, busy = spend_ms(pid, scrapes, None), spend_ms(pid, scrapes, client)
            costs.append((busy - idle) / scrapes)
        memory = memory_of(pid)
    own_mb = (memory["RssAnon"] + memory["RssFile"]) * MIB / 1e6
    cost_ms = statistics.median(costs)
    row = (f"{cost_ms:.2f} ms", f"{min(costs):.2f} to {max(costs):.2f}", f"{text_bytes / 1024:.1f} KiB")
    title = f"A scrape of a bridge with {PEERS} peers and {NAMESPACES} namespaces"
    print(table(title, ("processor time", "of the turns", "text"), [row]))
    targets = [
        Target("S14", "a scrape", cost_ms, 2, " ms"),
        Target("S14", "memory of its own, scraped", own_mb, 60, " MB"),
    ]
    print(targets_table(targets))
    figures = {"ms": costs, "text_bytes": text_bytes, "resident_mib": memory}
    save(chosen.out, "scrape", figures, targets, lambda figure: draw(figure, costs))


def draw(figure: Any, costs: list[float]) -> None:
    axis = figure.subplots()
    axis.plot(costs, "o-")
    axis.set_xlabel("turn")
    axis.set_ylabel("ms of processor time for a scrape")
    axis.set_ylim(bottom=0)


if __name__ == "__main__":
    main()
