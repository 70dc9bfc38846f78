"""A bounded batch of disasters, and the proof that the simulator would see a missing rule."""

import os

import pytest

from tests.simulation import rules
from tests.simulation.truth import Broken
from tests.simulation.world import World, run

SEEDS = int(os.environ.get("CACHEE_SEEDS", "60"))
BATCH = 10

# A seed that shows what happens without the rule. A change of the code may blind it: the next ones are tried.
SHOWN_BY = {
    "a-gap-is-applied-over": 28,
    "old-frames-are-applied-again": 79,
    "the-cursor-moves-before-the-eviction": 33,
    "nobody-asks-again": 0,
    "a-lapped-peer-is-sent-nothing": 1,
    "a-new-incarnation-is-not-flushed": 87,
    "first-contact-is-not-flushed": 3,
    "a-host-that-was-cut-off-believes-in-births": 459,
    "what-is-unheard-does-not-isolate": 22,
    "time-ends-isolation": 4,
    "a-beat-is-fresh-when-it-arrives": 449,
    "a-head-counts-before-it-is-applied": 10,
    "the-head-is-the-pumps-position": 60,
    "leaving-counts-before-all-is-applied": 5,
    "a-restart-begins-at-the-head": 4,
    "empty-ranges-are-never-sent": 0,
    "applying-takes-no-position": 0,
    "a-fills-version-is-its-store-time": 0,
    "a-writer-that-lost-stores": 0,
}
MORE_SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_disaster_breaks_an_invariant(first):
    for seed in range(first, first + BATCH):
        run(seed)


@pytest.mark.parametrize("rule", sorted(SHOWN_BY))
def test_without_this_rule_an_invariant_breaks(rule):
    first = SHOWN_BY[rule]
    with rules.without(rule), pytest.raises(Broken):
        for seed in range(first, first + MORE_SEEDS):
            run(seed)


def test_every_rule_has_a_seed_that_shows_it():
    assert set(SHOWN_BY) == set(rules.RULES)


def test_a_seed_is_the_same_world_each_time():
    def story(seed):
        world, told = World(seed), []
        world.say = lambda text: told.append((world.now, text))
        world.run()
        return told, dict(world.truth.counts)

    assert story(11) == story(11)
