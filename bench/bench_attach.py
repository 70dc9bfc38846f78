"""What a process pays before its first get: importing, and attaching to a segment that exists (target S10).

Importing is measured on whole interpreters: from starting one until it has ended, in turns (see
measuring.py), less one that does nothing. (-X importtime leaves out reading the files of a first import
elsewhere, shared libraries and the interpreter's end.) Attaching is timed inside such an interpreter, once in
each, after the import, on a segment that this bench holds attached:

  nothing                  python -c pass
  json, ssl                what any web service imports anyway
  cachee_shm               the package
  + attach()               and attach to a segment of 32 MiB by the embedded default
  cachee_shm.config        the package, and what reads a configuration: pydantic is part of it
  + attach(config=...)     and attach as a configuration's file says

"pydantic" says whether the interpreter had imported it when it ended: only one that reads a configuration is
to pay for it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mesh
import posix_ipc
from measuring import Target, interleaved, ratio, save, start, table, targets_table

import cachee_shm

BARE, RIVAL, US, READER = "nothing", "json, ssl", "cachee_shm", "cachee_shm.config"
ATTACH, ATTACH_CONFIG = "+ attach()", "+ attach(config=...)"
END = "; import sys; print('pydantic' in sys.modules)"
TIMED = "; import time; begun = time.perf_counter_ns(); cache = {call}; print(time.perf_counter_ns() - begun)"
MEMORY = "32MiB"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CACHEE_")}


@dataclass(frozen=True)
class Life:
    """One interpreter: all of it, and what it said of itself."""

    whole_ms: float
    attach_ms: float | None
    has_pydantic: bool


def live(code: str, folder: Path) -> Life:
    begun = time.perf_counter_ns()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    whole_ms = (time.perf_counter_ns() - begun) / 1e6
    if done.returncode != 0:
        raise SystemExit(f"{code}\n{done.stderr}")
    *attach_ns, has_pydantic = done.stdout.split()
    return Life(whole_ms, int(attach_ns[0]) / 1e6 if attach_ns else None, has_pydantic == "True")


def programs(namespace: str, config: str) -> dict[str, str]:
    embedded = TIMED.format(call=f"cachee_shm.attach({namespace!r})")
    configured = TIMED.format(call=f"cachee_shm.attach({mesh.NAMESPACE!r}, config={config!r})")
    return {
        name: code + END
        for name, code in {
            BARE: "pass",
            RIVAL: "import json, ssl",
            US: "import cachee_shm",
            ATTACH: "import cachee_shm" + embedded,
            READER: "import cachee_shm.config",
            ATTACH_CONFIG: "import cachee_shm.config" + configured,
        }.items()
    }


def whole(lives: list[Life]) -> list[float]:
    return [each.whole_ms for each in lives]


def beyond(found: dict[str, list[Life]], name: str, other: str = BARE) -> list[float]:
    """In each repeat, what this interpreter took more than the other."""
    return [a - b for a, b in zip(whole(found[name]), whole(found[other]), strict=True)]


def attaching(lives: list[Life]) -> float | None:
    taken = [each.attach_ms for each in lives if each.attach_ms is not None]
    return statistics.median(taken) if taken else None


def print_table(found: dict[str, list[Life]]) -> None:
    rows = []
    for name, lives in found.items():
        inside = attaching(lives)
        rows.append(
            (
                name,
                f"{statistics.median(whole(lives)):.1f}",
                f"{statistics.median(beyond(found, name)):.1f}" if name != BARE else "",
                "" if inside is None else f"{inside:.2f}",
                "imported" if lives[0].has_pydantic else "",
            )
        )
    header = ("ms", "interpreter", "beyond nothing", "attach() in it", "pydantic")
    print(table(f"An interpreter's life, {len(found[BARE])} of each", header, rows), flush=True)


def judge(found: dict[str, list[Life]]) -> list[Target]:
    times = ratio(beyond(found, US), beyond(found, RIVAL))
    early = sum(each.has_pydantic for name in (US, ATTACH) for each in found[name])
    return [
        Target("S10", "import cachee_shm / import json, ssl, both beyond nothing", times, 2),
        Target("S10", "attach(), inside", attaching(found[ATTACH]), 5, " ms"),
        Target("S10", "attach(config=...), inside", attaching(found[ATTACH_CONFIG]), 5, " ms"),
        Target("S10", "interpreters with pydantic that read no configuration", early, 0),
    ]


def draw(found: dict[str, list[Life]]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axis = figure.subplots()
        names = [name for name in reversed(found) if name != BARE]
        axis.barh(names, [statistics.median(beyond(found, name)) for name in names])
        axis.set_xlabel("ms beyond an interpreter that does nothing (median)")

    return on


def main() -> None:
    chosen = start(__doc__, repeats=25)
    namespace = f"bench-attach-{os.getpid()}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-")))
        held = stack.enter_context(cachee_shm.attach(namespace))
        stack.callback(posix_ipc.unlink_shared_memory, held.name)
        host = stack.enter_context(mesh.local("attach", MEMORY))
        config = folder / "cachee.toml"
        config.write_text(
            f'[host]\nname = "{host.spec.host}"\n[namespaces.{mesh.NAMESPACE}]\nmemory = "{MEMORY}"\n',
            encoding="utf-8",
        )
        turns = {
            name: lambda code=code: live(code, folder)
            for name, code in programs(namespace, str(config)).items()
        }
        found = interleaved(turns, chosen.repeats)
    print_table(found)
    targets = judge(found)
    print(targets_table(targets))
    data = {
        name: {"whole_ms": whole(lives), "attach_ms": [each.attach_ms for each in lives]}
        for name, lives in found.items()
    }
    save(chosen.out, "attach", {"interpreters": data}, targets, draw(found))


if __name__ == "__main__":
    main()
