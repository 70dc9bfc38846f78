"""What every bench shares: interleaved repeats, medians, targets, a plain table, a JSON file and a plot.

Machines are noisy, so figures of different runs are never compared. In each repeat every subject has its
turn, another subject begins each time, and a ratio is the median of the ratios within each repeat.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "cachee-shm",
    "cachebox",
    "warp-cache",
    "theine",
    "lmdb",
    "diskcache",
    "pylibmc",
    "redis",
    "libcachesim",
    "msgpack",
    "uvloop",
    "nats-py",
    "eclipse-zenoh",
)


def start(
    doc: str, repeats: int, options: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line of a bench, whose docstring is its --help: quick, repeats, out, and its own options.

    SIGTERM ends it as Ctrl-C does from here on: what it made on the machine is removed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few operations: does it run? The figures mean little"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help=f"turns of each subject (default {repeats})")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="where the JSON and the plot go (default bench/results)",
    )
    if options is not None:
        options(parser)
    chosen = parser.parse_args()
    chosen.repeats = chosen.repeats or (2 if chosen.quick else repeats)
    return chosen


def interleaved(subjects: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each subject returned in each repeat; one turn of each goes before, to warm up."""
    names = list(subjects)
    found: dict[str, list[T]] = {name: [] for name in names}
    for name in names:
        subjects[name]()
    gc.collect()
    gc.disable()
    try:
        for turn in range(repeats):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(subjects[name]())
    finally:
        gc.enable()
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median, over the repeats, of ours / theirs."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample below which `percent` of them lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass(frozen=True)
class Apart:
    """The core of this process, and those of what runs beside it: the same where there is only one."""

    measured: frozenset[int]
    others: frozenset[int]

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Processes that are started in here inherit the other cores."""
        with self.on(self.others):
            yield

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Processes that are started in here may run on all cores: a server is fastest on its client's."""
        with self.on(self.measured | self.others):
            yield

    @contextmanager
    def on(self, cores: frozenset[int]) -> Iterator[None]:
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.measured)


def apart() -> Apart:
    """Binds this process to one core and keeps the others for bridges and servers."""
    cores = sorted(os.sched_getaffinity(0))
    found = Apart(frozenset(cores[:1]), frozenset(cores[1:] or cores))
    os.sched_setaffinity(0, found.measured)
    return found


def two_cores() -> list[frozenset[int]]:
    """A core for each of two processes; where there is only one, both get that, and no ratio will be 2."""
    cores = sorted(os.sched_getaffinity(0))
    return [frozenset(cores[:1]), frozenset(cores[1:2] or cores)]


@dataclass(frozen=True)
class Target:
    """A promise in figures: at most `limit` (at least, where `is_floor`), in whatever `figure` is.

    None when a rival is not installed.
    """

    name: str
    what: str
    figure: float | None
    limit: float
    unit: str = ""
    is_floor: bool = False

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        is_met = self.figure >= self.limit if self.is_floor else self.figure <= self.limit
        return "met" if is_met else "missed"

    @property
    def row(self) -> tuple[str, ...]:
        figure = "-" if self.figure is None else f"{self.figure:.2f}{self.unit}"
        sign = ">=" if self.is_floor else "<="
        return self.name, self.what, figure, f"{sign} {self.limit:g}{self.unit}", self.verdict


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(["", title, *(line.rstrip() for line in lines)])


def targets_table(targets: Sequence[Target]) -> str:
    """The targets, each with what was found and its verdict."""
    return table("Targets", ("", "what", "found", "target", "verdict"), [target.row for target in targets])


def machine() -> dict[str, Any]:
    """What a reader of the figures must know of where they were taken."""
    versions = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": versions,
    }


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def save(
    out: Path, name: str, data: Mapping[str, Any], targets: Sequence[Target], draw: Callable[[Any], None]
) -> None:
    """`name`.json and `name`.svg in `out`; `draw` is given a figure. Without matplotlib, no plot."""
    out.mkdir(parents=True, exist_ok=True)
    verdicts = [
        {"target": t.name, "what": t.what, "found": t.figure, "limit": t.limit, "verdict": t.verdict}
        for t in targets
    ]
    result = {"bench": name, "machine": machine(), **data, "targets": verdicts}
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is missing (pip install 'cachee-shm[bench]')", file=sys.stderr)
        return
    figure = Figure(figsize=(10, 6), layout="constrained")
    draw(figure)
    figure.savefig(path.with_suffix(".svg"))
    print(path.with_suffix(".svg"))
