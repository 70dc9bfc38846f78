"""What each step of an invalidation's way costs a host, and how long 500 hosts take if each costs that.

    a write      wake                  until the source's bridge looks at its ring
    the source   first, queue, ...     a frame is made for each link, relays first
                 perform               the mesh is done
                 write, write, ...     TLS and one system call for each link, in that order
    on the way   trip                  from the begin of that call until the other end's loop has woken
    a relay      apply                 from there until its segment has evicted: as every receiver does
                 first, queue, ... perform, write, write, ...        as the source, for its own followers

Each is drawn from what was measured, one independently of the other; a host does one thing after the other.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cachee_bridge.routing.fanout import Fanout

Turn = dict[str, Any]
Tree = dict[str, list[str]]
"""By host, to whom it sends what the source has written, in order."""


@dataclass
class Costs:
    """In ns, all that were seen."""

    wake: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    """From the source's look at the ring until its first frame is made."""
    relay_first: list[int] = field(default_factory=list)
    """From a relay's eviction until its first frame is made."""
    queue: list[int] = field(default_factory=list)
    """Each further frame."""
    perform: list[int] = field(default_factory=list)
    write: list[int] = field(default_factory=list)
    """From the begin of one write to the begin of the next."""
    trip: list[int] = field(default_factory=list)
    apply: list[int] = field(default_factory=list)

    def add_source(self, turn: Turn, written_at: int) -> None:
        self.wake.append(turn["begun"] - written_at)
        self.first.append(turn["queued"][0][1] - turn["begun"])
        self._add_sends(turn)

    def add_receiver(self, turn: Turn, sent_at: int) -> None:
        """Also one that relays."""
        self.trip.append(turn["begun"] - sent_at)
        self.apply.append(turn["applied"] - turn["begun"])
        if turn["queued"]:
            self.relay_first.append(turn["queued"][0][1] - turn["applied"])
            self._add_sends(turn)

    def _add_sends(self, turn: Turn) -> None:
        made = [when for _, when in turn["queued"]]
        begun = [when for when, _ in turn["written"]]
        self.queue += [after - before for before, after in pairwise(made)]
        self.perform.append(begun[0] - made[-1])
        self.write += [after - before for before, after in pairwise(begun)]

    @property
    def inputs(self) -> dict[str, list[int]]:
        return vars(self)


def turns_of(trace: Path) -> list[Turn]:
    """What a traced bridge has noted, of the turns that are whole."""
    turns = [json.loads(line) for line in trace.read_text().splitlines()]
    return [turn for turn in turns if len(turn["queued"]) == len(turn["written"])]


def sent_to(turn: Turn, name: str) -> int | None:
    """When the write to `name` began; None if there was none."""
    for (link, _), (begun, _) in zip(turn["queued"], turn["written"], strict=True):
        if link == name:
            return int(begun)
    return None


def costs_of(host: str, traces: Mapping[str, Sequence[Turn]], writes: Sequence[tuple[int, int]]) -> Costs:
    """What `host` has paid for each of `writes`: (from, to) of a span in which nothing else was written."""
    costs = Costs()
    at = dict.fromkeys(traces, 0)
    for first, last in writes:
        seen: dict[str, Turn] = {}
        for name, turns in traces.items():
            while at[name] < len(turns) and turns[at[name]]["begun"] < first:
                at[name] += 1
            if at[name] < len(turns) and turns[at[name]]["begun"] < last:
                seen[name] = turns[at[name]]
        own = seen.get(host)
        if own is None:
            continue
        if not own["applied"]:
            costs.add_source(own, first)
            continue
        sends = [sent_to(turn, host) for name, turn in seen.items() if name != host]
        found = [sent for sent in sends if sent is not None]
        if len(found) == 1:
            costs.add_receiver(own, found[0])
    return costs


def tree(source: str, names: Sequence[str], fanout: int) -> Tree:
    """Fanout's geometry: what each of `names` would ask for, were it here."""
    regions = dict.fromkeys(names, "")
    found: Tree = {}
    for name in names:
        if name != source:
            view = Fanout(name, "", fanout)
            view.settle(regions)
            found.setdefault(view.feeder(source), []).append(name)
    own = Fanout(source, "", fanout)
    own.settle(regions)
    found[source].sort(key=lambda name: not own.relays(name))
    return found


def arrivals(source: str, way: Tree, costs: Costs, chance: random.Random) -> dict[str, int]:
    """After how many ns each host has evicted, once."""

    def draw(samples: list[int]) -> int:
        return samples[int(chance.random() * len(samples))]

    def send(sender: str, now: int) -> None:
        links = way[sender]
        now += sum(draw(costs.queue) for _ in links[1:]) + draw(costs.perform)
        for name in links:
            woken = now + draw(costs.trip)
            evicted[name] = woken + draw(costs.apply)
            if name in way:
                send(name, evicted[name] + draw(costs.relay_first))
            now += draw(costs.write)

    evicted: dict[str, int] = {}
    send(source, draw(costs.wake) + draw(costs.first))
    return evicted


def modelled(costs: Costs, hosts: int, fanout: int, trials: int) -> tuple[list[int], list[int]]:
    """(of each trial the last receiver, all receivers), in ns."""
    chance = random.Random(1)
    names = [f"h{number:04}" for number in range(hosts)]
    sources = chance.sample(names, min(8, hosts))
    ways = {source: tree(source, names, fanout) for source in sources}
    last, every = [], []
    for trial in range(trials):
        source = sources[trial % len(sources)]
        evicted = arrivals(source, ways[source], costs, chance)
        assert len(evicted) == hosts - 1
        last.append(max(evicted.values()))
        every += evicted.values()
    return last, every


def medians(costs: Costs) -> Costs:
    """As if each step always cost its median: what is left is the geometry."""
    return Costs(**{name: [int(statistics.median(samples))] for name, samples in costs.inputs.items()})
