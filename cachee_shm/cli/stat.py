"""``cachee stat``: what a namespace holds and does, in words and rates for people, as JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import time

from cachee_shm.attaching import host_of, spec_for
from cachee_shm.cli.existing import NoSegment, existing
from cachee_shm.cli.looks import READS, WRITES, Between, Look, bridge_line, look, look_at_all
from cachee_shm.cli.processes import COLUMNS, NUMBERS, Attached
from cachee_shm.cli.terminal import columns, count, cut, paint, rate, share, size, table, width

ALWAYS = (
    ("hits", "reads that found a value"),
    ("misses", "reads that found none"),
    ("sets", "values written by this host"),
    ("deletes", "keys deleted by this host"),
    ("loads", "values loaded from the origin"),
    ("fills_refused", "loads not stored: written meanwhile"),
    ("evicted", "entries that gave way to others"),
    ("applied", "announcements of other hosts"),
)
IF_ANY = (
    ("isolated", "reads that the isolation policy decided"),
    ("sets_guarded", "sets only announced: a peer was faster"),
    ("lease_waits", "loads that waited for another process's"),
    ("no_room", "values that found no room"),
    ("undecodable", "values that could not be decoded"),
    ("corrupt", "damaged entries met"),
    ("swept", "dead processes cleared up after"),
)
"""Shown when they are not 0."""


def stat(options: argparse.Namespace) -> int:
    """Read the counters twice and print; 1 if there is no segment."""
    namespace = options.namespace or _only(options.config)
    if options.json:
        return _as_json(
            {namespace: look(namespace, options.config)} if namespace else look_at_all(options.config)
        )
    if namespace:
        before = look(namespace, options.config)
        time.sleep(options.interval)
        print(*_told(Between(before, look(namespace, options.config))), sep="\n")
        others = [name for name in existing(host_of(options.config)) if name != before.namespace]
        if others and not options.namespace:
            print(f"\nOther namespaces of this host: {', '.join(others)} (cachee stat -n NAME)")
        return 0
    befores = look_at_all(options.config)
    time.sleep(options.interval)
    print(*overview(between(befores, look_at_all(options.config))), sep="\n")
    print("\nOne of them in detail: cachee stat -n NAME")
    return 0


def _only(config: str | None) -> str | None:
    """The namespace to show if none is named: the default one, or the only one that has a segment. None:
    there are several. ``NoSegment``: there is none."""
    spec = spec_for(None, config, False)
    if os.path.exists(f"/dev/shm{spec.path}"):
        return spec.namespace
    found = existing(spec.host)
    if not found:
        raise NoSegment(f"no segment {spec.path}, nor any other of host {spec.host}: no process has attached")
    return found[0] if len(found) == 1 else None


def _as_json(looks: dict[str, Look]) -> int:
    told = {
        namespace: {
            **each.numbers,
            "used_bytes": each.used_bytes,
            "state": each.state,
            "segment": each.segment,
        }
        for namespace, each in looks.items()
    }
    print(json.dumps({"namespaces": told}))
    return 0


def between(befores: dict[str, Look], afters: dict[str, Look]) -> list[Between]:
    """The pairs of looks, by namespace. A namespace that is new in `afters` has no rates yet."""
    return [Between(befores.get(name, after), after) for name, after in sorted(afters.items())]


# Several namespaces, a line each

OVERVIEW = ("NAMESPACE", "READ/S", "HIT", "WRITE/S", "LOAD/S", "ENTRIES", "MEMORY", "FULL", "STATE")
OVERVIEW_NUMBERS = range(1, 8)


def overview(namespaces: list[Between]) -> list[str]:
    """A table, the busiest namespaces first. They are ordered by the number of digits of their rate, so that
    similar ones do not change places at each frame."""
    busiest = sorted(namespaces, key=lambda each: (-_digits(each), each.after.namespace))
    header, *lines = _fitting([OVERVIEW, *map(_row, busiest)])
    painted = [_alarmed(line, each.after.state) for line, each in zip(lines, busiest, strict=True)]
    return [paint(header, "bold"), *painted]


def _digits(each: Between) -> int:
    return len(str(int(each.per_second(*READS, *WRITES))))


def _fitting(rows: list[tuple[str, ...]]) -> list[str]:
    """A table whose first column is shortened if lines would be too long."""
    lines = table(rows, OVERVIEW_NUMBERS)
    too_long = max(map(width, lines)) - columns()
    if too_long <= 0:
        return lines
    longest = max(len(OVERVIEW[0]), max(width(row[0]) for row in rows) - too_long)
    return table([(cut(name, longest), *others) for name, *others in rows], OVERVIEW_NUMBERS)


def _row(each: Between) -> tuple[str, ...]:
    numbers = each.after.numbers
    return (
        each.after.namespace,
        rate(each.per_second(*READS)),
        share(each.per_second("hits"), each.per_second(*READS)),
        rate(each.per_second(*WRITES)),
        rate(each.per_second("loads")),
        rate(numbers["entries"]),
        size(numbers["memory_bytes"]),
        share(each.after.used_bytes, numbers["value_bytes"]),
        each.after.state,
    )


def _alarmed(line: str, state: str) -> str:
    return line if state == "ok" else line.removesuffix(state) + paint(state, "red")


# One namespace


def _told(both: Between) -> list[str]:
    after = both.after
    numbers, state = after.numbers, after.state
    facts = [
        ("segment", f"{after.segment}, {size(numbers['memory_bytes'])}"),
        ("bridge", paint(bridge_line(after.health), "" if state == "ok" else "red")),
        ("values", f"{size(after.used_bytes)} of {size(numbers['value_bytes'])}"),
        ("entries", count(numbers["entries"])),
        ("hit ratio", _hit_ratio(both)),
    ]
    return [
        paint(f"namespace {after.namespace}", "bold"),
        *(f"  {name:<9}  {text}" for name, text in facts),
        "",
        *_counters(both),
        "",
        *_people(after.people),
    ]


def _hit_ratio(both: Between) -> str:
    numbers = both.after.numbers
    now = share(both.per_second("hits"), both.per_second(*READS))
    ever = share(numbers["hits"], numbers["hits"] + numbers["misses"])
    return f"{now} now, {ever} since the segment was made"


def _counters(both: Between) -> list[str]:
    numbers = both.after.numbers
    chosen = [*ALWAYS, *(each for each in IF_ANY if numbers[each[0]])]
    rows = [("", "A SECOND", "IN ALL", "")]
    rows += [(name, rate(both.per_second(name)), count(numbers[name]), what) for name, what in chosen]
    return [cut(f"  {line}", columns()) for line in table(rows, (1, 2))]


def _people(people: list[Attached]) -> list[str]:
    if not people:
        return ["  nobody is attached"]
    return [cut(f"  {line}", columns()) for line in table([COLUMNS, *people], NUMBERS)]
