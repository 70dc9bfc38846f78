"""The compiled simulator: which sources, and where a module comes from."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.simulation import campaign, compiled
from tests.test_house import PROTOCOL


def test_the_protocol_is_compiled_and_nothing_of_the_bridge_beside_it():
    assert set(compiled.PROTOCOL) == set(PROTOCOL) - {"checker"}  # no simulated host runs it
    assert all((compiled.ROOT / path).exists() for path in compiled.sources())


def test_the_types_are_those_that_the_compiler_demands():
    """A campaign that cannot compile takes twice as long, and says so where nobody looks."""
    environ = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, (compiled.ROOT, compiled.ROOT / "bridge")))}
    command = [sys.executable, "-m", "mypy", *compiled.FLAGS, *map(str, compiled.sources())]
    done = subprocess.run(command, cwd=compiled.ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_compiled_is_found_where_it_was(tmp_path):
    finder = compiled.Finder(tmp_path)
    assert finder.find_spec("tests.simulation.world", None) is None
    module = tmp_path / "tests" / "simulation" / f"world{compiled.SUFFIX}"
    module.parent.mkdir(parents=True)
    module.touch()
    assert finder.find_spec("tests.simulation.world", None).origin == str(module)


@pytest.mark.parametrize("name", ["cachee_bridge.protocol.mesh", "tests.stand_in.ring"])
def test_a_compiled_module_is_known_by_its_source(name):
    file = compiled.DIRECTORY / "version" / (name.replace(".", "/") + compiled.SUFFIX)
    assert str(compiled.source_of(file)) == importlib.util.find_spec(name).origin


def test_each_change_of_a_source_is_another_version(monkeypatch):
    before = compiled.version()
    monkeypatch.setattr(compiled, "sources", lambda known=compiled.sources: known()[1:])
    assert compiled.version() != before


def test_a_seed_that_ends_in_another_state_is_named(monkeypatch):
    assert campaign.differing([0, 1]) == []
    monkeypatch.setattr(campaign, "fingerprint", lambda seed: "another")
    assert campaign.differing([1]) == [1]


def test_a_campaign_whose_compiled_seeds_differ_runs_none(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(compiled, "in_use", lambda: True)
    monkeypatch.setattr(campaign, "differing", lambda seeds: seeds)
    assert campaign.go_on(2, 1, tmp_path, said.append) == 1
    assert len(said) == 1 and "[0, 1]" in said[0]


UNMADE = """
import sys
from pathlib import Path
from tests.simulation import compiled
from tests.simulation.__main__ import main
compiled.FLAGS, compiled.DIRECTORY = ["--no-such-flag"], Path({directory!r})
sys.argv[1:] = ["--campaign", "0", "--jobs", "1"]
sys.exit(main())
"""


def test_where_it_cannot_be_compiled_a_campaign_is_interpreted(tmp_path):
    command = [sys.executable, "-c", UNMADE.format(directory=str(tmp_path))]
    done = subprocess.run(command, cwd=compiled.ROOT, capture_output=True, text=True)
    assert (done.returncode, "not compiled" in done.stderr) == (0, True)
    assert "seeds done on this version of the sources, 0 of them" in done.stdout
    assert not list(tmp_path.iterdir())
