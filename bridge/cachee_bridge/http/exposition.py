"""The text that Prometheus reads: its exposition format 0.0.4, written and nothing else.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABELS_MAX = 4096
"""Sets of labels whose text is kept: those of one scrape come again in the next."""
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
        self._lines.append(f"{self._name}{_braced(tuple(labels.items()))} {_number(value)}")

    def add_histogram(self, histogram: Histogram, **labels: str) -> None:
        """Its buckets are cumulative in the text."""
        so_far = 0
        for bound, count in zip((*histogram.bounds_s, math.inf), histogram.counts, strict=True):
            so_far += count
            braced = _braced((*labels.items(), ("le", _number(bound))))
            self._lines.append(f"{self._name}_bucket{braced} {so_far}")
        braced = _braced(tuple(labels.items()))
        self._lines.append(f"{self._name}_sum{braced} {_number(histogram.sum_s)}")
        self._lines.append(f"{self._name}_count{braced} {so_far}")

    def text(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()


@lru_cache(LABELS_MAX)
def _braced(labels: tuple[tuple[str, str], ...]) -> str:
    """A value may hold anything: a peer's name is what the peer says."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.translate(ESCAPES).encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
