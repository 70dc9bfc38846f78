"""A bounded batch of the fuzzing; `make fuzz` is the long one. The core's verbs have theirs in tests/core."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from cachee_bridge.wire.frames import Decoder
from cachee_shm.errors import FrameError
from tests.fuzz.__main__ import BYTES_MAX, random_inputs
from tests.fuzz.script import LEN, ROWS, Script

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "runs"), [("frames", 1500), ("mesh", 40)])
def test_random_inputs_do_no_harm(name, runs):
    assert random_inputs(name, runs, seed=1) > runs


def test_most_made_messages_are_messages_of_every_type_and_some_are_not():
    came, refused = [], 0
    for seed in range(2000):
        script = Script(random.Random(seed).randbytes(300))
        try:
            came += Decoder(1 << 20).feed(script.message())
        except FrameError:
            refused += 1
    assert len({type(message) for message in came}) == len(ROWS)
    assert len(came) > 1000 and refused > 200


def test_a_made_payload_is_mostly_one_that_a_segment_takes():
    good = 0
    for seed in range(500):
        payload, at = Script(random.Random(seed).randbytes(60)).payload(), 0
        while at < len(payload):
            at += LEN.get(payload[at], len(payload))
        good += at == len(payload)
    assert 300 < good < 500


def test_after_the_end_of_an_input_all_choices_are_the_same():
    script = Script(b"")
    assert script.over
    assert (script.below(9), script.seldom(9), script.raw(4)) == (0, False, b"")
    assert list(Decoder(1 << 20).feed(script.message()))


@pytest.mark.needs("atheris")
@pytest.mark.parametrize("name", sorted(BYTES_MAX))
def test_guided_inputs_do_no_harm(name):
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
