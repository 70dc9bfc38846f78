"""What is shown while the demo runs: one table in place on a terminal, a line a second elsewhere."""

import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from cachee_shm.cli.demo.processes import Message

LINE_EVERY_S = 1.0


class Counters:
    """The newest numbers of every helper, and what the demo wants to know of them while it runs."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        self._links = {(one, other) for one in hosts for other in hosts if one != other}
        self._came_through: set[tuple[str, str]] = set()
        self._requests: dict[str, int] = {}
        self._stats: dict[str, dict[str, int]] = {host: {} for host in hosts}
        self._at_begin: dict[str, dict[str, int]] = {host: {} for host in hosts}
        self._probers: dict[str, dict[str, int]] = {}
        self.failures: list[str] = []
        self.took_ns: list[int] = []
        self.done: set[str] = set()
        self.agreed_ns = 0

    def take(self, name: str, message: Message) -> None:
        """A message of the helper of this name."""
        if "requests" in message:
            self._requests[name] = message["requests"]
        if "failed" in message:
            self.failures.append(message["failed"])
        if "done" in message:
            self.done.add(name)
        if "stats" in message:
            self._stats = message["stats"]
            self.agreed_ns = message["agreed_ns"]
        if "took_ns" in message:
            self._take_probe(message)

    def _take_probe(self, message: Message) -> None:
        self._probers = {"loads": message["loads"], "applied": message["applied"]}
        if message["took_ns"] >= 0:
            self._came_through.add((message["source"], message["target"]))
            self.took_ns.append(message["took_ns"])

    @property
    def have_met(self) -> bool:
        """True once a probe has come through on every link."""
        return self._came_through >= self._links

    def begin(self) -> None:
        """From now on count: what came before was the start."""
        self.took_ns.clear()
        self._at_begin = {host: self._counted(host) for host in self._hosts}

    @property
    def requests(self) -> int:
        return sum(self._requests.values())

    def since_begin(self, host: str, counter: str) -> int:
        """How much a counter of one host's segment has grown, without what the prober added."""
        grown = self._counted(host).get(counter, 0) - self._at_begin[host].get(counter, 0)
        return max(0, grown)  # the prober's own numbers are newer than the counters by a moment

    def _counted(self, host: str) -> dict[str, int]:
        stats = dict(self._stats[host])
        for counter, of_prober in self._probers.items():
            stats[counter] = stats.get(counter, 0) - of_prober[host]
        return stats

    def total(self, counter: str) -> int:
        return sum(self.since_begin(host, counter) for host in self._hosts)


def percentile(values: Sequence[int], percent: float) -> int:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0


def milliseconds(ns: float) -> str:
    return f"{ns / 1e6:.3f} ms" if ns < 10e6 else f"{ns / 1e6:,.0f} ms"


class Screen:
    """Where the demo shows itself: rich's live display on a terminal, plain lines where there is none."""

    def __init__(self) -> None:
        self._live: Any = None
        self._begin = self._shown = time.monotonic()
        if sys.stdout.isatty() and find_spec("rich") is not None:
            from rich.live import Live

            # No thread of its own: the demo draws when it has something new.
            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, text: str) -> None:
        """What the demo does now."""
        line = f"{time.monotonic() - self._begin:5.1f} s  {text}"
        if self._live is None:
            print(line, flush=True)
        else:
            self._live.console.print(line, highlight=False)

    def show(self, counters: Counters, passed_s: float) -> None:
        facts = live_facts(counters, passed_s)
        if self._live is not None:
            self._live.update(table(facts), refresh=True)
        elif time.monotonic() - self._shown >= LINE_EVERY_S:
            self._shown = time.monotonic()
            print("         " + "   ".join(f"{name} {value}" for name, value in facts), flush=True)


def live_facts(counters: Counters, passed_s: float) -> list[tuple[str, str]]:
    recent = counters.took_ns[-200:]
    return [
        ("requests", f"{counters.requests:,}"),
        ("per second", f"{counters.requests / max(passed_s, 1.0):,.0f}"),
        ("loads", f"{counters.total('loads'):,}"),
        ("invalidations applied", f"{counters.total('applied'):,}"),
        ("propagation p50", milliseconds(percentile(recent, 50))),
    ]


def table(facts: Sequence[tuple[str, str]]) -> Any:
    from rich.table import Table

    found = Table(show_header=False)
    found.add_column()
    found.add_column(justify="right", min_width=14)
    for name, value in facts:
        found.add_row(name, value)
    return found
