"""A model of the core (model/cachee.pml): all interleavings of a few verbs of one key.

Racing finds what happens often. A writer that stops between two given instructions, while another finishes
for it, is found here: Spin tries all orders of the steps. And each rule of the core, taken away, must be
missed: `MUTATIONS`.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

MODEL = Path(__file__).parent / "model" / "cachee.pml"
COMPILER = shutil.which("gcc") or shutil.which("cc")

pytestmark = [
    pytest.mark.needs("spin", "C compiler"),
    pytest.mark.timeout(1200),  # a test waits for searches that were begun before its own
]

# `make torture` sets it: what takes longer than some seconds is tried too.
IS_WHOLE = os.environ.get("CACHEE_MODEL") == "whole"

# Safety alone; states are kept compressed; at most 1,500 MB.
CHECKER = ("-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=512", "-DMEMLIM=1500")

WRITES = ("SET", "FENCED_SET", "LOCAL_SET", "FILL", "DELETE")
VERBS = (*WRITES, "APPLY", "APPLY_SET", "HEAL", "MOVE", "EVICT", "ADD", "INCR")
STORING_AND_SPARING = ("SET", "FILL", "APPLY_SET")
DYING = (*STORING_AND_SPARING, "ADD") if IS_WHOLE else STORING_AND_SPARING
NOT_REMOTE = tuple(verb for verb in VERBS if not verb.startswith("APPLY"))

# Chosen for what three can do that two cannot: one stops, one finishes for it, one makes it wrong.
TRIPLES = [
    ("SET", "FILL", "DELETE"),
    ("SET", "DELETE", "HEAL"),
    ("LOCAL_SET", "APPLY_SET", "MOVE"),
]
LONG_TRIPLES = [
    ("SET", "SET", "DELETE"),
    ("SET", "FILL", "APPLY_SET"),
    ("SET", "APPLY_SET", "APPLY_SET"),
    ("FENCED_SET", "FILL", "DELETE"),
    ("FILL", "FILL", "APPLY_SET"),
]

# The same of add and incr, and what must hold besides. An add that is withdrawn is not looked at any further.
ANSWERED = [
    (("SET", "ADD", "MOVE"), "-DSET_WINS"),
    (("DELETE", "ADD", "ADD"), ""),
    (("HEAL", "INCR", "INCR"), "-DCOUNTED"),
    (("MOVE", "INCR", "INCR"), "-DCOUNTED"),
]
LONG_ANSWERED = [
    (("SET", "ADD", "EVICT"), "-DSET_WINS"),
    (("ADD", "ADD", "ADD"), ""),
    (("SET", "ADD", "INCR"), ""),
]

PAIRS = ("-DPROCS=2",)
PROBED = (*PAIRS, "-DPROBE")


class Search(NamedTuple):
    """What the search said: errors found, states seen, and whether it saw all there are."""

    errors: int
    states: int
    whole: bool
    report: str


def only(*verbs: str) -> int:
    return sum(1 << VERBS.index(verb) for verb in set(verbs))


def each(*verbs: str) -> list[str]:
    """One process for each of the verbs."""
    ordered = sorted(verbs, key=VERBS.index)
    return [f"-DPROCS={len(verbs)}", *(f"-DVERBS_{n}={only(verb)}" for n, verb in enumerate(ordered, 1))]


RACED = (*each("SET", "ADD"), "-DSET_WINS")
BEGUN = (*each("INCR", "INCR"), "-DCOUNTED")
COUNTED = (*each("HEAL", "INCR", "INCR"), "-DCOUNTED", "-DTRIES=1")

# What is taken away, and where it shows.
MUTATIONS = {
    "NO_FENCE_CHECK": PAIRS,  # index_finish() does not look at the fence
    "VISIBLE_AT_ONCE": PAIRS,  # a new key's word is not pending first
    "NO_STANDS": PAIRS,  # index_finish() does not look at the key's other words
    "LOSER_KILLS_NOTHING": PAIRS,  # a set that lost leaves what is older than it
    "REPLACE_AT_ONCE": PAIRS,  # overwrites in place where a peer's event may have spared the old word
    "JUDGE_AFTERWARDS": PAIRS,  # the same, judged once it is visible
    "KILL_ONCE": PAIRS,  # a word that changed under index_kill_lower is not looked at again
    "LOOK_ONCE": PAIRS,  # a fenced set does not look again once its record has a place
    "TOKEN_LATE": PAIRS,  # a fill's token is taken after the origin was read
    "FENCE_AFTER_TAIL": PAIRS,  # the tail passes a record whose fence is not raised
    "RESERVE_FIRST": PAIRS,  # a producer takes its slot before it can fill it
    "KILL_PENDING": PAIRS,  # a pending word is removed without a verdict on its entry
    "ANSWER_BY_WORD": PAIRS,  # a writer takes a word that has changed for a lost one
    "ADD_GIVES_UP": PAIRS,  # an add that was withdrawn says that it lost
    "OWN_VICTIM": BEGUN,  # a full bucket gives up a word of the key that is stored
    "ADD_IS_EVENT": RACED,  # the record of an add withdraws a set
    "SET_YIELDS": RACED,  # a set gives way to an add whose record follows its own
    "HEAL_ADDS": COUNTED,  # healing evicts what is older than the record of an add
    "NO_HELP": PROBED,  # a pending word that is met is left to its writer
    "TIE": PROBED,  # a set outranks the fill whose token covers it
}


class Searches:
    """As many searches at once as there are processors: a search asserts no time, and each is one thread.

    All of the module's tests are announced before the first begins, so that the next search runs while a test
    still waits for its own.
    """

    def __init__(self, folders: pytest.TempPathFactory, pool: ThreadPoolExecutor) -> None:
        self._folders = folders
        self._pool = pool
        self._begun: dict[tuple[str, ...], Future[Search]] = {}

    def begin(self, *flags: str) -> Future[Search]:
        """The search with these definitions, which is made once."""
        if flags not in self._begun:
            self._begun[flags] = self._pool.submit(search, self._folders.mktemp("model"), *flags)
        return self._begun[flags]

    def end(self, *flags: str) -> Search:
        """What it found."""
        return self.begin(*flags).result()


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Searches]:
    pool = ThreadPoolExecutor(os.cpu_count())
    made = Searches(tmp_path_factory, pool)
    for item in request.session.items:
        if item.path == request.path and isinstance(item, pytest.Function) and "flags" in item.fixturenames:
            made.begin(*item.callspec.params["flags"])
    yield made
    pool.shutdown(cancel_futures=True)


def search(folder: Path, *flags: str) -> Search:
    """Make the model's checker with these definitions and let it try every order of the steps."""
    run(folder, "spin", "-a", *flags, str(MODEL))
    assert COMPILER
    is_short = any(flag.startswith("-DMUTATE_") for flag in flags)  # an optimising compiler would take longer
    options = ["-O0" if is_short else "-O1", "-w", "-o", "pan"]
    run(folder, COMPILER, *options, *CHECKER, "pan.c")
    report = run(folder, "./pan", "-m20000", "-E", "-n")
    errors, states = re.search(r"errors: (\d+)", report), re.search(r"(\d+) states, stored", report)
    assert errors and states, report
    whole = "Search not completed" not in report and "too small" not in report
    return Search(int(errors[1]), int(states[1]), whole, report)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def holds(found: Search) -> None:
    assert found.errors == 0, found.report
    assert found.whole, found.report
    assert found.states > 10_000  # it has tried something


def flags_of(mutation: str) -> tuple[str, ...]:
    flags = (*MUTATIONS[mutation], f"-DMUTATE_{mutation}")
    return (*flags, f"-DVERBS={only(*STORING_AND_SPARING)}") if "-DPROBE" in flags else flags


@pytest.mark.parametrize("flags", [PAIRS], ids=["all"])
def test_any_two_verbs_in_any_order_keep_the_promises(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize("flags", [(*PAIRS, "-DNO_BRIDGE", f"-DVERBS={only(*NOT_REMOTE)}")], ids=["local"])
def test_without_a_bridge_one_cas_is_enough_to_overwrite(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize("flags", [(*PROBED, f"-DVERBS={only(*DYING)}")], ids=["dying"])
def test_whenever_all_die_a_newcomer_can_write_and_fill(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((*each(*verbs), "-DTRIES=1", "-DCOARSE"), id=" ".join(verbs))
        for verbs in TRIPLES + IS_WHOLE * LONG_TRIPLES
    ],
)
def test_three_verbs_at_once_keep_the_promises(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((*each(*verbs), "-DTRIES=1", "-DCOARSE", *must.split()), id=" ".join(verbs))
        for verbs, must in ANSWERED + IS_WHOLE * LONG_ANSWERED
    ],
)
def test_what_add_and_incr_answer_has_happened(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize("flags", [RACED], ids=["raced"])
def test_a_set_that_races_with_one_add_is_stored(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize("flags", [BEGUN], ids=["begun"])
def test_of_two_that_begin_a_counter_both_are_counted(searches, flags):
    holds(searches.end(*flags))


@pytest.mark.parametrize("flags", map(flags_of, MUTATIONS), ids=list(MUTATIONS))
def test_each_rule_is_missed_when_it_is_taken_away(searches, flags):
    found = searches.end(*flags)
    assert found.errors == 1, found.report
    assert "assertion violated" in found.report


def test_every_mutation_of_the_model_is_listed():
    assert set(re.findall(r"\bMUTATE_([A-Z_]+)", MODEL.read_text(encoding="utf-8"))) == set(MUTATIONS)
