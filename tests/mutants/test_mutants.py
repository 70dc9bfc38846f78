"""The tool that breaks the code to test the tests: which places it changes, and when a mutant counts as
killed."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import pytest

from tests.mutants import drawing, mirrors, operators_c, operators_python
from tests.mutants.mutant import mutant_of
from tests.mutants.record import NO_MUTANT, UNDECIDED, Record
from tests.mutants.survivors import arguments
from tests.mutants.workshop import Unsound, Workshop, sources

ROOT = Path(__file__).resolve().parents[2]


def changes(find, source: bytes) -> set[tuple[str, str, str]]:
    return {(s.operator, source[s.start : s.end].decode(), s.after.decode()) for s in find(source)}


def test_in_c_comments_strings_and_directives_are_left_alone():
    source = b'/* a < b */\n#define X (1 < 2)\nstatic const char *s = "a < b"; // a < b\n'
    assert changes(operators_c.sites, source) == set()


def test_in_c_operators_numbers_conditions_statements_and_returns_are_changed():
    source = (
        b"int f(int a)\n{\n    if (a < 7 && !g(a))\n        return a - 1;\n    g(a);\n    return h(&a);\n}\n"
    )
    found = changes(operators_c.sites, source)
    assert found >= {
        ("operator", "<", "<="),
        ("operator", "&&", "||"),
        ("operator", "-", "+"),
        ("number", "7", "8"),
        ("negation", "!", " "),
        ("condition", "a < 7 && !g(a)", "1 || (a < 7 && !g(a))"),
        ("statement", "g(a);", ";"),
        ("return", "a - 1", "!(a - 1)"),
    }
    assert ("operator", "&", "|") not in found  # an address, not a bit


def test_in_c_what_is_changed_keeps_its_strings():
    found = changes(operators_c.sites, b'int f(int a)\n{\n    if (g("<", a))\n        return h("a");\n}\n')
    assert ("return", 'h("a")', '!(h("a"))') in found
    assert ("condition", 'g("<", a)', '0 && (g("<", a))') in found


def test_in_python_annotations_docstrings_and_typing_imports_are_left_alone():
    source = (
        b'"""a < b"""\nif TYPE_CHECKING:\n    import x\n\ndef f(a: int = 3) -> "1 + 2":\n    """1 + 2"""\n'
    )
    assert changes(operators_python.sites, source) == {("number", "3", "4")}


def test_in_python_the_operator_alone_is_replaced_also_across_lines_and_parentheses():
    source = b"def f(a, b):\n    return (a\n        ) is not (b) and not a\n"
    found = changes(operators_python.sites, source)
    assert found >= {
        ("operator", "is not", "is"),
        ("operator", "and", "or"),
        ("negation", "not a", "bool(a)"),
    }


@pytest.mark.parametrize("name", drawing.files(ROOT))
def test_every_mutant_of_a_python_file_compiles(name):
    source = (ROOT / name).read_bytes()
    for mutant in islice(drawing.order(ROOT, 3, name), 40 if name.endswith(".py") else 0):
        compile(mutant.applied_to(source), name, "exec")


def test_what_compiles_to_the_same_is_no_mutant():
    assert operators_python.same_code(b"x = (1)\n", b"x = 1\n")
    assert not operators_python.same_code(b"x = 1\n", b"x = 2\n")


def test_the_draw_is_in_proportion_to_lines_and_always_the_same():
    shares = drawing.shares(ROOT, 1, 1000)
    assert sum(shares.values()) == 1000
    assert shares == drawing.shares(ROOT, 1, 1000)
    lines = {name: (ROOT / name).read_bytes().count(b"\n") for name in shares}
    whole = sum(lines.values())
    assert all(abs(share - 1000 * lines[name] / whole) <= 1 for name, share in shares.items())


def test_an_edit_elsewhere_in_a_file_leaves_its_mutants_as_they_were(tmp_path):
    name = "cachee_shm/x.py"
    lines = [f"def f{i}(a):\n    return a < {i}\n" for i in range(200)]
    (tmp_path / "cachee_shm").mkdir()
    (tmp_path / name).write_text("".join(lines))
    before = [mutant.name for mutant in islice(drawing.order(tmp_path, 1, name), 20)]
    (tmp_path / name).write_text("# a line more\n" + "".join([*lines, "def g(a):\n    return a\n"]))
    after = [mutant.name for mutant in islice(drawing.order(tmp_path, 1, name), 20)]
    assert len(set(before) & set(after)) >= 18


def test_every_file_has_tests_that_mirror_it():
    for name in drawing.files(ROOT):
        tests = mirrors.tests(ROOT, name)
        assert tests, f"{name}: mirrors.py names no test"
        for test in tests:
            assert (ROOT / test.partition("::")[0]).exists(), f"{name}: {test}"
        for program in mirrors.programs(name):
            assert (ROOT / f"tests/core/torture_{program}.c").exists(), f"{name}: torture_{program}"


def test_every_file_of_the_core_below_the_binding_has_its_programs_named():
    core = [name for name in drawing.files(ROOT) if name.startswith(f"{mirrors.CORE}")]
    unnamed = {Path(name).stem for name in core} - {key.partition(".")[0] for key in mirrors.PROGRAMS}
    assert [name for name in unnamed if not name.startswith("module")] == []


def test_a_checkout_without_git_is_copied_whole_and_without_what_was_built(monkeypatch):
    listed = {name for name in sources(ROOT) if (ROOT / name).is_file()}
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = set(sources(ROOT))
    assert {name for name in listed if not name.startswith((".", "bench/results"))} <= found
    assert not [name for name in found if name.endswith(".pyc") or name.startswith("build/")]


def test_no_mirror_is_named_for_a_file_that_is_gone():
    stems = {name.rpartition(".")[0] for name in drawing.files(ROOT)}
    assert mirrors.ALSO.keys() - stems == set()
    assert {f"{mirrors.CORE}{key.partition('.')[0]}" for key in mirrors.PROGRAMS} - stems == set()
    assert all((ROOT / "bridge/cachee_bridge" / folder).is_dir() for folder in mirrors.NOT_SIMULATED)


def test_every_argument_for_a_survivor_is_one():
    assert all(len(why.split()) >= 5 for why in arguments().values())


def test_a_record_keeps_who_was_killed_and_forgets_who_is_to_be_tried_again(tmp_path):
    record = Record(tmp_path / "record")
    for name, killer in {"a": "tests/x.py", "b": "", "c": UNDECIDED, "d": NO_MUTANT}.items():
        record.add(name, killer)
    assert Record(tmp_path / "record").known == {"a": "tests/x.py", "d": NO_MUTANT}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(ROOT, tmp_path_factory.mktemp("mutants"))


def written(workshop: Workshop, mutated: str, unchanged: str) -> str:
    """A test with one body in the tree of the mutant and another in the unchanged one."""
    for tree, body in ((workshop.tree, mutated), (workshop.unchanged, unchanged)):
        (tree / "tests/test_told.py").write_text(f"import pathlib, time\n\ndef test_it():\n    {body}\n")
    return "tests/test_told.py"


def test_what_fails_with_the_mutant_alone_kills_it_and_what_passes_does_not(workshop):
    assert workshop.kills(written(workshop, "assert False", "pass"))
    assert not workshop.kills(written(workshop, "pass", "pass"))


def test_what_fails_once_kills_no_mutant(workshop, tmp_path):
    once = f"seen = pathlib.Path('{tmp_path}/seen'); before = seen.exists(); seen.touch(); assert before"
    assert not workshop.kills(written(workshop, once, "pass"))


def test_what_fails_without_the_mutant_as_well_decides_nothing(workshop):
    with pytest.raises(Unsound, match="without any mutant"):
        workshop.kills(written(workshop, "assert False", "assert False"))


def test_a_time_out_kills_a_mutant_only_where_the_unchanged_code_is_quick(workshop, monkeypatch):
    late = "raise AssertionError('Timeout (>60.0s) from pytest-timeout')"
    assert workshop.kills(written(workshop, late, "pass"))
    monkeypatch.setattr("tests.mutants.workshop.HANGS_BEYOND", 1e9)
    with pytest.raises(Unsound, match="is late, without any mutant"):
        workshop.kills(written(workshop, late, "pass"))


def mutant_at(path: str, before: bytes, after: bytes):
    source = (ROOT / path).read_bytes()
    find = operators_python.sites if path.endswith(".py") else operators_c.sites
    sites = [s for s in find(source) if source[s.start : s.end] == before and s.after == after]
    return mutant_of(path, source, sites[0])


def test_a_broken_line_of_python_is_killed_and_the_file_is_put_back(workshop):
    path = "bridge/cachee_bridge/wire/budget.py"
    source = (workshop.tree / path).read_bytes()
    mutant = next(mutant for mutant in drawing.order(ROOT, 1, path) if mutant.operator == "return")
    assert workshop.try_mutant(mutant) == "tests/bridge/test_budget.py"
    assert (workshop.tree / path).read_bytes() == source


def test_a_broken_fence_is_killed_by_a_torture_program(workshop):
    mutant = mutant_at("cachee_shm/core/fence.h", b">>", b"<<")
    assert (workshop.try_mutant(mutant) or "").startswith("torture_")


def test_code_that_reads_a_peers_bytes_is_tried_under_the_sanitizer_that_sees_reads_beyond_them():
    assert mirrors.program_file("stream_in") == "asan/torture_stream_in"
    assert mirrors.program_file("ring") == "plain/torture_ring"
