"""A bounded batch of disasters, and the proof that the simulator would see a missing rule."""

import os
import subprocess
import sys

import pytest

from cachee_bridge.ports.store import Store
from cachee_shm.errors import BridgeRunning
from tests.cachee_shm.test_zombies import ARGUMENTS
from tests.simulation import rules
from tests.simulation.world import World, run
from tests.simulation.zombies import Held
from tests.stand_in.segment import Segment

SEEDS = int(os.environ.get("CACHEE_SEEDS", "30"))
BATCH = 10

SEEDS_MORE = 400


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_disaster_breaks_an_invariant(first):
    for seed in range(first, first + BATCH):
        run(seed)


def test_a_host_that_was_never_met_and_is_not_waited_for_after_forget_after_is_promised_nothing():
    """All bridges hang in turn, so no link is ever made. The truth once took the address for a member."""
    run(2640)


@pytest.mark.parametrize(
    "disasters",
    [
        "vanish",
        "vanish unname block",
        "forget block crash",
        "forget leave lossy",
        "sleep",
        "sleep block crash",
        "estrange",
        "lazy unheard",
        "blind",
        "name_nobody cut_off",
    ],
)
def test_no_removal_and_no_sleep_breaks_an_invariant(disasters):
    for seed in range(BATCH // 2):
        run(seed, only=disasters)


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_without_this_rule_an_invariant_breaks(rule):
    assert rules.first_failure(rule, SEEDS_MORE) is not None


@pytest.mark.parametrize("disasters", sorted({only for _, only, _ in rules.RULES.values()}))
def test_with_all_rules_the_same_disasters_do_no_harm(disasters):
    for seed in range(3):
        run(seed, only=disasters)


def test_a_seed_is_the_same_world_each_time():
    def story(seed):
        world, told = World(seed), []
        world.say = lambda text: told.append((world.now, text))
        world.run()
        return told, dict(world.truth.counts)

    assert story(11) == story(11)


@pytest.mark.parametrize("verb", sorted(ARGUMENTS.keys() & vars(Held).keys()))
def test_a_bridge_whose_place_was_taken_is_refused_each_verb(verb):
    segment = Segment()
    segment.bridge_generation, segment.namespace = 0, "a"
    ousted = Held(segment)
    Held(segment)
    before = segment.tail, segment.slots
    with pytest.raises(BridgeRunning):
        getattr(ousted, verb)(*ARGUMENTS[verb])
    assert (segment.tail, segment.slots) == before


def test_it_has_every_verb_that_a_mesh_calls():
    assert {name for name in dir(Store) if not name.startswith("_")} <= vars(Held).keys()


IN_A_PROCESS = """
from tests.simulation.world import World
world = World(17, only="relays crash")
world.say = lambda text: print(repr(world.now), text)
world.run()
"""


def test_a_seed_is_the_same_world_in_each_process():
    """The order of a set is another in each."""

    def story(hash_seed):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", IN_A_PROCESS]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout

    told = story("1")
    assert len(told.splitlines()) > 50
    assert story("2") == told
