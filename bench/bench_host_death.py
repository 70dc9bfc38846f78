"""A host dies for good and the DNS drops it: what do the origins of the others see? (target C11)

Three hosts on this machine that find each other by DNS: a real cachee-bridge process each, at an address of
its own, and a DNS server on loopback. On each of the two that live, keys are read at a steady pace, skewed as
reads are (a few are read often, most seldom); what is missing is loaded, and loads are counted. All is in the
cache and would stay there for an hour. Then:

  dies       the third host is killed, without a farewell. lost_after (1 s) later the others isolate it
  dropped    some seconds later the DNS no longer names it; the others ask the DNS again, and forget the host
  whole      isolated no longer: values have their full lifetimes again, without an operator

Two namespaces of the same bridges go through it, read alike. "cap" is the default: values live isolation_ttl
(2 s) while isolated, and what was capped stays so until nothing of it is served any more. "flush" counts
everything as evicted when isolation begins and again when it ends, as caches without sequences must when they
lose a peer: it is the rival. "In the second after" counts from the instant at which the host is whole: the
origin should see no more loads than while the host was isolated. (Keys that were not read meanwhile are
loaded at their next read.) Full lifetimes are checked: what was loaded since the host is whole must not be
loaded again within twice isolation_ttl.

The rush is at the other end, under both policies, and is shown: as isolation begins, whatever is older than
isolation_ttl is refused, and is loaded when it is read next. The origin sees at most what is read then, and
of one key one load per host.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import Target, save, start, table, targets_table
from mesh import remove, stop_process, wait_for

import cachee_shm
from cachee_shm.ports import free_ports
from tests.bridge.dns_server import DnsServer

CAP, FLUSH = "cap", "flush"
POLICIES = (CAP, FLUSH)
LOST_AFTER_S, ISOLATION_TTL_S, DROPPED_AFTER_S, WATCHED_S = 1.0, 2.0, 3.0, 4.0
JOIN_S = 60.0
SLOT_S = 0.1

CONFIG = """
[host]
name = "{name}"
[defaults]
memory = "32MiB"
default_ttl = "1h"
isolation_ttl = "{isolation_ttl:g}s"
[namespaces.cap]
[namespaces.flush]
on_isolation = "flush"
[bridge]
listen = "{address}:{port}"
discover = "dns:cachee.test:{port}"
nameserver = "{nameserver}"
lost_after = "{lost_after:g}s"
drain = "0s"
"""


@dataclass
class Stream:
    """One namespace of one host, read at a steady pace."""

    cache: cachee_shm.Cache
    loads: list[tuple[float, str]] = field(default_factory=list)
    whole_at: float = 0.0

    def read(self, key: str) -> None:
        self.cache.get_or_load(key, self._load, key)

    def _load(self, key: str) -> bytes:
        self.loads.append((time.monotonic(), key))
        return b"x" * 100

    @property
    def isolated(self) -> bool:
        return self.cache.serve_until < self.cache.now_ms()

    def between(self, start_s: float, end_s: float) -> int:
        return sum(start_s <= at < end_s for at, _ in self.loads)

    def loaded_again(self) -> int:
        """Loads of what was loaded since the host is whole: there are none if lifetimes are full."""
        since = [key for at, key in self.loads if at >= self.whole_at]
        return len(since) - len(set(since))


@dataclass
class Death:
    """One run: when what happened, and each stream's loads."""

    died_at: float
    dropped_at: float
    streams: dict[str, list[Stream]]

    def whole_after_s(self, policy: str) -> float:
        """From the DNS's dropping the dead host."""
        return max(stream.whole_at for stream in self.streams[policy]) - self.dropped_at

    def second_after(self, policy: str) -> float:
        """Loads of one host."""
        found = [each.between(each.whole_at, each.whole_at + 1.0) for each in self.streams[policy]]
        return statistics.mean(found)

    def while_isolated(self, policy: str) -> float:
        """Loads a second of one host, the second in which isolation began left out."""
        begin = self.died_at + LOST_AFTER_S + 1.0
        return statistics.mean(
            each.between(begin, each.whole_at) / (each.whole_at - begin) for each in self.streams[policy]
        )

    def worst_slot(self, policy: str, first_s: float, last_s: float) -> int:
        """The most loads that one host asked for in SLOT_S."""
        slots = [first_s + SLOT_S * number for number in range(int((last_s - first_s) / SLOT_S))]
        return max(each.between(at, at + SLOT_S) for each in self.streams[policy] for at in slots)

    def as_it_begins(self, policy: str) -> int:
        """The most in SLOT_S, from the death until isolation has lasted for a second."""
        return self.worst_slot(policy, self.died_at, self.died_at + LOST_AFTER_S + 1.0)

    def as_it_ends(self, policy: str) -> int:
        """The most in SLOT_S, from what ends isolation until all is watched no more."""
        last_s = max(stream.whole_at for stream in self.streams[policy]) + WATCHED_S
        return self.worst_slot(policy, self.dropped_at, last_s)

    def loaded_again(self) -> int:
        return sum(stream.loaded_again() for stream in self.streams[CAP])

    def line(self, policy: str) -> list[float]:
        """Loads a second of one host, by SLOT_S from its death on: for the plot."""
        end = max(stream.whole_at for stream in self.streams[CAP]) + WATCHED_S
        slots = [self.died_at - 1.0 + SLOT_S * n for n in range(int((end - self.died_at + 1.0) / SLOT_S))]
        counts = [[each.between(at, at + SLOT_S) for each in self.streams[policy]] for at in slots]
        return [statistics.mean(count) / SLOT_S for count in counts]


class Host:
    def __init__(self, folder: Path, number: int, port: int, nameserver: str) -> None:
        self.address = f"127.0.0.{number + 2}"
        self.name = f"bench-death{number}-{os.getpid()}"
        self.config = folder / f"{self.name}.toml"
        self.config.write_text(
            CONFIG.format(
                name=self.name,
                address=self.address,
                port=port,
                nameserver=nameserver,
                isolation_ttl=ISOLATION_TTL_S,
                lost_after=LOST_AFTER_S,
            )
        )

    @contextmanager
    def bridged(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "cachee_bridge", "--config", str(self.config)]
        with self.config.with_suffix(".log").open("wb") as log:
            bridge = subprocess.Popen(command, stderr=log, cwd=self.config.parent)
        try:
            yield bridge
        finally:
            stop_process(bridge)
            for path in Path("/dev/shm").glob(f"cachee.{self.name}.*"):
                path.unlink(missing_ok=True)
            remove(self.name)


class Bench:
    def __init__(self, keys: int, reads_per_s: float) -> None:
        self.keys, self.reads_per_s = keys, reads_per_s
        chance = random.Random(1)
        weights = [1 / (rank + 1) for rank in range(keys)]
        self._order = [f"key-{key}" for key in chance.choices(range(keys), weights, k=100_000)]
        self._at = 0

    def run(self) -> Death:
        with ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-"))
            )
            server = stack.enter_context(DnsServer())
            (port,) = free_ports(1)
            hosts = [Host(folder, number, port, server.address) for number in range(3)]
            server.names(*[host.address for host in hosts])
            bridges = [stack.enter_context(host.bridged()) for host in hosts]
            streams = {
                policy: [
                    Stream(stack.enter_context(cachee_shm.attach(policy, config=str(host.config))))
                    for host in hosts[:2]
                ]
                for policy in POLICIES
            }
            return self._kill(server, [host.address for host in hosts[:2]], bridges[2], streams)

    def _kill(
        self,
        server: DnsServer,
        alive: list[str],
        bridge: subprocess.Popen[bytes],
        streams: dict[str, list[Stream]],
    ) -> Death:
        every = [stream for each in streams.values() for stream in each]
        wait_for(lambda: not any(s.isolated or len(s.cache.sources()) < 2 for s in every), JOIN_S, "not met")
        for stream in every:
            for number in range(self.keys):
                stream.read(f"key-{number}")
        self._read(every, ISOLATION_TTL_S + 0.5)
        for stream in every:
            stream.loads.clear()
        self._read(every, 1.0)
        bridge.send_signal(signal.SIGKILL)
        death = Death(time.monotonic(), time.monotonic() + DROPPED_AFTER_S, streams)
        self._read(every, DROPPED_AFTER_S)
        server.names(*alive)
        self._read(every, JOIN_S, until_whole=True)
        self._read(every, WATCHED_S)
        return death

    def _read(self, streams: list[Stream], seconds: float, until_whole: bool = False) -> None:
        """All streams in turn, at the pace, for so long, or until all are whole."""
        start_s = time.monotonic()
        reads = 0
        while (now := time.monotonic()) < start_s + seconds:
            for stream in streams if until_whole else ():
                if not stream.isolated and not stream.whole_at:
                    stream.whole_at = now
            if until_whole and all(stream.whole_at for stream in streams):
                return
            while reads < (now - start_s) * self.reads_per_s:
                reads += 1
                self._at = (self._at + 1) % len(self._order)
                for stream in streams:
                    stream.read(self._order[self._at])
            time.sleep(0.002)
        if until_whole:
            raise SystemExit("the dead host is not forgotten")


def main() -> None:
    options = start(__doc__ or "", repeats=3)
    bench = Bench(500, 500.0) if options.quick else Bench(5_000, 2_000.0)
    deaths = [bench.run() for _ in range(1 if options.quick else options.repeats)]
    targets = targets_of(deaths)
    header = (
        "one host, median of the runs",
        "whole after",
        "isolated, loads/s",
        "in the second after",
        "worst 100 ms: as it begins",
        "as it ends",
    )
    rows = [row_of(deaths, policy) for policy in POLICIES]
    print(table(f"{bench.keys} keys, {bench.reads_per_s:g} reads a second in each namespace", header, rows))
    print(targets_table(targets))
    data: dict[str, Any] = {policy: [death.line(policy) for death in deaths] for policy in POLICIES}
    data["whole_after_s"] = {policy: [death.whole_after_s(policy) for death in deaths] for policy in POLICIES}
    data["loaded_again"] = [death.loaded_again() for death in deaths]
    save(options.out, "host_death", data, targets, lambda figure: draw(figure, deaths[-1]))


def row_of(deaths: list[Death], policy: str) -> tuple[str, ...]:
    return (
        policy,
        f"{statistics.median(death.whole_after_s(policy) for death in deaths):.1f} s",
        f"{statistics.median(death.while_isolated(policy) for death in deaths):.0f}",
        f"{statistics.median(death.second_after(policy) for death in deaths):.0f}",
        f"{statistics.median(death.as_it_begins(policy) for death in deaths):.0f}",
        f"{statistics.median(death.as_it_ends(policy) for death in deaths):.0f}",
    )


def targets_of(deaths: list[Death]) -> list[Target]:
    herd = statistics.median(
        death.second_after(CAP) / max(1.0, death.while_isolated(CAP)) for death in deaths
    )
    whole = statistics.median(death.whole_after_s(CAP) for death in deaths)
    return [
        Target("C11", "whole again after the DNS dropped the dead host, no person needed", whole, 10.0, " s"),
        Target("C11", "loads in the second after / loads a second before", herd, 1.0),
        Target("C11", "loaded again, of what was loaded since", max(d.loaded_again() for d in deaths), 0),
    ]


def draw(figure: Any, death: Death) -> None:
    axes = figure.subplots()
    for policy in POLICIES:
        line = death.line(policy)
        axes.plot([SLOT_S * number - 1.0 for number in range(len(line))], line, label=policy)
    for at, text in ((0.0, "dies"), (DROPPED_AFTER_S, "the DNS drops it")):
        axes.axvline(at, color="grey", linestyle=":")
        axes.text(at, 0, text, rotation=90, va="bottom", ha="right")
    whole = max(stream.whole_at for stream in death.streams[CAP]) - death.died_at
    axes.axvline(whole, color="grey", linestyle=":")
    axes.text(whole, 0, "whole again (cap)", rotation=90, va="bottom", ha="right")
    axes.set(xlabel="seconds since its death", ylabel="loads a second of each living host")
    axes.legend()


if __name__ == "__main__":
    main()
