"""The command itself: what it says of itself."""

import os
import subprocess
import sys

import pytest

import cachee_shm
from cachee_shm.cli import main


def test_it_says_its_version_and_the_layout_of_its_segments(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    said = f"cachee {cachee_shm.__version__} (segment layout {cachee_shm._core.LAYOUT})\n"
    assert capsys.readouterr().out == said


COMMANDS = (("completion", "bash"), ("segment", "ls"), ("stat", "--json"), ("top", "--once"), ("doctor",))


def cachee(host, *words, redirect=""):
    """Run by a shell, as people and scripts run it."""
    command = [sys.executable, "-m", "cachee_shm.cli", *words]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *command], stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def held(host):
    host.write("2MiB")
    with cachee_shm.attach():
        yield host


@pytest.mark.parametrize("words", COMMANDS)
def test_an_output_that_is_full_is_an_error_in_one_line(held, words):
    ended = cachee(held, *words, redirect=">/dev/full")
    assert (ended.returncode, ended.stderr) == (3, "cachee: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("words", COMMANDS)
def test_a_closed_output_is_as_if_nobody_looked(held, words):
    """A cron job's `>&-`."""
    ended = cachee(held, *words, redirect=">&-")
    assert (
        ended.stderr == "" and ended.returncode == cachee(held, *words, redirect=f">{os.devnull}").returncode
    )
