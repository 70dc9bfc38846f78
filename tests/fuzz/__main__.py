"""Fuzzing of the protocol core, for long: python -m tests.fuzz frames|mesh [--runs N] [--seconds S]

With atheris, inputs are guided by the branches that they reach, and those that reached new ones are kept in
build/fuzz/TARGET, where the next run begins. Without it they are random. An input that fails is written to
build/fuzz and named: python -m tests.fuzz TARGET --input FILE tries it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build" / "fuzz"
BYTES_MAX = {"frames": 512, "mesh": 2048}
SEEDS = 64
SAID_S = 30.0
MEMORY_MB = 1024
"""How much one run may take."""


def target(name: str) -> Callable[[bytes], int]:
    one_input: Callable[[bytes], int] = importlib.import_module(f"tests.fuzz.{name}").one_input
    return one_input


def random_inputs(name: str, runs: int, seed: int) -> int:
    """How many messages `runs` inputs made. What fails is raised, and its input kept."""
    rng, one_input, messages = random.Random(seed), target(name), 0
    for _ in range(runs):
        data = rng.randbytes(rng.randrange(BYTES_MAX[name]))
        try:
            messages += one_input(data)
        except BaseException:
            failed = BUILD / f"{name}-failed"
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.write_bytes(data)
            print(f"python -m tests.fuzz {name} --input {failed}", file=sys.stderr)
            raise
    return messages


def seeded(name: str) -> Path:
    """The folder of inputs to begin with: those of the last run, or some random ones of all lengths."""
    corpus, rng = BUILD / name, random.Random(name)
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number in range(SEEDS):
            (corpus / f"seed-{number}").write_bytes(rng.randbytes(BYTES_MAX[name] * (number + 1) // SEEDS))
    return corpus


def guided(name: str, runs: int, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["cachee_bridge"]):
        one_input = target(name)
    counted, said = [0, 0], [time.monotonic()]

    def run(data: bytes) -> None:
        counted[0] += 1
        counted[1] += one_input(data)
        if time.monotonic() > said[0] + SAID_S:
            said[0] = time.monotonic()
            print(f"{name}: {counted[0]} inputs, {counted[1]} messages", flush=True)

    # The kernel carries the largest size of the process that started this one over into ours.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    memory = f"-rss_limit_mb={inherited + MEMORY_MB}"
    bounds = [f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={BYTES_MAX[name]}", "-len_control=0"]
    ends = ["-timeout=60", memory, "-print_final_stats=1", f"-artifact_prefix={BUILD}/{name}-"]
    atheris.Setup([sys.argv[0], *bounds, *ends, str(seeded(name))], run)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=sorted(BYTES_MAX))
    parser.add_argument("--runs", type=int, default=-1, help="inputs; -1, the default, is no bound")
    parser.add_argument("--seconds", type=int, default=0, help="0, the default, is no bound")
    parser.add_argument("--input", type=Path, help="this one alone")
    arguments = parser.parse_args()
    if arguments.input is not None:
        target(arguments.target)(arguments.input.read_bytes())
    elif importlib.util.find_spec("atheris") is not None:
        guided(arguments.target, arguments.runs, arguments.seconds)
    else:
        print("not guided by coverage: no atheris here (pip install 'cachee-shm[fuzz]')")
        print(random_inputs(arguments.target, max(arguments.runs, 0), random.randrange(2**32)), "messages")


if __name__ == "__main__":
    main()
