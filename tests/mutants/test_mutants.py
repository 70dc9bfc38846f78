"""The tool that breaks the code to try the tests: the places that it finds, and what it calls killed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.mutants import drawing, mirrors, operators_c, operators_python
from tests.mutants.mutant import mutant_of
from tests.mutants.survivors import arguments
from tests.mutants.workshop import Workshop

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
        for test in mirrors.tests(ROOT, name):
            assert (ROOT / test).exists()
        for program in mirrors.programs(name):
            assert (ROOT / f"tests/core/torture_{program}.c").exists(), f"{name}: torture_{program}"


def test_every_argument_for_a_survivor_is_one():
    assert all(len(why.split()) >= 5 for why in arguments().values())


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(ROOT, tmp_path_factory.mktemp("mutants"))


def mutant_at(path: str, before: bytes, after: bytes):
    source = (ROOT / path).read_bytes()
    find = operators_python.sites if path.endswith(".py") else operators_c.sites
    sites = [s for s in find(source) if source[s.start : s.end] == before and s.after == after]
    return mutant_of(path, source, sites[0])


def test_a_broken_line_of_python_is_killed_and_the_file_is_put_back(workshop):
    path = "bridge/cachee_bridge/budget.py"
    source = (workshop.tree / path).read_bytes()
    mutant = next(mutant for mutant in drawing.order(ROOT, 1, path) if mutant.operator == "return")
    assert workshop.try_mutant(mutant) == "tests/bridge/test_budget.py"
    assert (workshop.tree / path).read_bytes() == source


def test_a_broken_fence_is_killed_by_a_torture_program(workshop):
    mutant = mutant_at("cachee_shm/core/fence.h", b">>", b"<<")
    assert (workshop.try_mutant(mutant) or "").startswith("torture_")
