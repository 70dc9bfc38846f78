"""The text that Prometheus reads: its exposition format 0.0.4, written and nothing else.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SAMPLES_MAX, HISTOGRAMS_MAX = 4096, 256
"""So many samples and histograms are kept as text, but for their values: the next scrape has them again."""
NOT_FINITE = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram(NamedTuple):
    """Of durations. `counts` has one more than `bounds_s`: what was above the last bound."""

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float


class Exposition:
    """Families in the order in which they are begun, each with its samples."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""

    def begin(self, name: str, kind: str, about: str) -> None:
        """`kind`: counter, gauge or histogram. Samples that are added next belong to it."""
        self._name = name
        about = about.replace("\\", r"\\").replace("\n", r"\n")
        self._lines.append(f"# HELP {name} {about}\n# TYPE {name} {kind}")

    def add(self, value: float, **labels: str) -> None:
        self._lines.append(_begun(self._name, tuple(labels.items())) + _number(value))

    def add_histogram(self, histogram: Histogram, **labels: str) -> None:
        """Its buckets are cumulative in the text."""
        *buckets, of_sum, of_count = _begun_histogram(
            self._name, tuple(labels.items()), tuple(histogram.bounds_s)
        )
        so_far = 0
        for bucket, count in zip(buckets, histogram.counts, strict=True):
            so_far += count
            self._lines.append(f"{bucket}{so_far}")
        self._lines += (f"{of_sum}{_number(histogram.sum_s)}", f"{of_count}{so_far}")

    def text(self) -> bytes:
        return "\n".join([*self._lines, ""]).encode()


@lru_cache(SAMPLES_MAX)
def _begun(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """A sample's line but for its value. A label may have any value: a peer's name is what the peer says."""
    braced = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
    return f"{name}{{{braced}}} " if labels else f"{name} "


@lru_cache(HISTOGRAMS_MAX)
def _begun_histogram(
    name: str, labels: tuple[tuple[str, str], ...], bounds_s: tuple[float, ...]
) -> tuple[str, ...]:
    """The lines of a histogram but for their values: its buckets, its sum, its count."""
    buckets = [_begun(f"{name}_bucket", (*labels, ("le", _number(bound)))) for bound in (*bounds_s, math.inf)]
    return (*buckets, _begun(f"{name}_sum", labels), _begun(f"{name}_count", labels))


def _escaped(value: str) -> str:
    return value.translate(ESCAPES).encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    text = repr(float(value))
    return NOT_FINITE.get(text, text)
