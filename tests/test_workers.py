"""How tests are dealt out to several processes: files whole, the longest first."""

from pathlib import Path

from tests import workers

ROOT = Path(__file__).resolve().parent.parent


def test_all_that_is_named_is_there():
    named = [*workers.LONGEST_FIRST, *workers.TOGETHER]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_file_is_one_unit_and_files_that_share_a_database_are_another():
    assert {workers.unit(f"tests/a/test_b.py::{name}") for name in "xy"} == {"tests/a/test_b.py"}
    shared = [f"tests/cachee_shm/{name}.py::x" for name in ("django/test_transactions", "test_sqlalchemy")]
    assert {workers.unit(nodeid) for nodeid in shared} == {"databases"}


def test_what_takes_longest_begins_first_and_all_else_stays_as_it_is():
    files = ["tests/a/test_b.py::x", "tests/core/test_model.py::x", "tests/hosts/test_hosts.py::x"]
    assert sorted(files, key=workers.rank) == [*reversed(files[1:]), files[0]]
