"""A campaign of many seeds, which goes on where it was interrupted.

Compiled, if that can be done here (compiled.py): then some seeds are run both ways before it begins.

`build/simulation/VERSION` belongs to one version of the sources. It has a line for each seed that was run:
the seed, and how it failed, if it did. Whoever starts the campaign again runs the other seeds.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from tests.simulation import compiled
from tests.simulation.truth import Broken
from tests.simulation.world import fingerprint, run

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "build" / "simulation"
TELL_EVERY_S = 60.0
GARBAGE_MAX = 100_000
"""So many objects more than were freed make Python look for garbage: a seed's worlds are few and large."""
COMPARED = 3
CHUNK, CHUNKS_AHEAD = 20, 4
"""Seeds are given out in chunks, and few of these at a time: what is under way at an interruption is lost."""


def version() -> str:
    """Of all Python sources of this repository that the simulator has imported, compiled or not."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    sources = {compiled.source_of(path) for path in map(Path, filter(None, loaded))}
    digest = hashlib.sha256()
    for path in sorted(path for path in sources if path.is_relative_to(ROOT)):
        if path.suffix == ".py" and ".venv" not in path.parts and path.exists():
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class Record:
    """The file of one version."""

    def __init__(self, directory: Path, version: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._path = directory, directory / version
        self.failures = dict(_lines(self._path))
        """By seed; "" is none. A seed that is not in it was not run."""

    def add(self, results: list[tuple[int, str]]) -> None:
        self.failures.update(results)
        with self._path.open("a") as file:
            file.writelines(f"{seed} {failure}\n" for seed, failure in results)

    def failed(self) -> int:
        return sum(bool(failure) for failure in self.failures.values())

    def of_all_versions(self) -> int:
        return sum(len(dict(_lines(path))) for path in self._directory.iterdir())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """A last line without an end was cut off, and says nothing."""
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        seed, _, failure = line.partition(" ")
        yield int(seed), failure


def _begin() -> None:
    """Of a process that runs seeds: what was imported is never garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_MAX)


def differing(seeds: list[int]) -> list[int]:
    """Those of them that end in another state than interpreted: the compiled simulator is not to be used."""
    command = [sys.executable, "-m", "tests.simulation", "--fingerprints", *map(str, seeds)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [seed for seed, interpreted in zip(seeds, said, strict=True) if fingerprint(seed) != interpreted]


def results(seeds: list[int]) -> list[tuple[int, str]]:
    return [(seed, _failure(seed)) for seed in seeds]


def _failure(seed: int) -> str:
    try:
        run(seed)
    except Broken as broken:
        return str(broken).replace("\n", " ")
    return ""


def go_on(seeds: int, jobs: int, directory: Path = DIRECTORY, say: Callable[[str], None] = print) -> int:
    """Run what is missing of the seeds 0 to `seeds` - 1, in `jobs` processes. 1 if any has failed, else 0."""
    record, started, told_at = Record(directory, version()), time.monotonic(), time.monotonic()
    before = len(record.failures)
    to_run = [seed for seed in range(seeds) if seed not in record.failures]
    if compiled.in_use() and (wrong := differing(to_run[:COMPARED])):
        say(f"compiled, these seeds end in another state: {wrong}; use --interpreted, and find out why")
        return 1
    missing = iter(to_run)

    def progress() -> str:
        now = len(record.failures) - before
        return (
            f"{len(record.failures):,} seeds done on this version of the sources, {now:,} of them in "
            f"{time.monotonic() - started:.0f} s: {record.failed()} failures; "
            f"{record.of_all_versions():,} seeds on all versions"
        )

    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _begin) as pool:
        chunks = iter(lambda: list(islice(missing, CHUNK)), [])
        under_way = [pool.submit(results, chunk) for chunk in islice(chunks, jobs * CHUNKS_AHEAD)]
        while under_way:
            done = under_way.pop(0).result()
            record.add(done)
            under_way += [pool.submit(results, chunk) for chunk in islice(chunks, 1)]
            for _, failure in done:
                if failure:
                    say(failure)
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                say(progress())
    say(progress())
    return 1 if record.failed() else 0
