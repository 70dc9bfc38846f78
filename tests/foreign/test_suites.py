"""What the other projects' suites are run with."""

import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from _pytest.outcomes import Skipped

from tests.foreign import suites


def test_a_run_that_fails_shows_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="1 failed"):
        suites.run(["-c", "print('1 failed'); raise SystemExit(1)"], cwd=tmp_path)


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("...\nRan 95 tests in 1.2s\n\nOK (skipped=2, expected failures=1)\n", 93),
        ("Ran 1 test in 1.2s\n\nOK\n", 1),
        ("==== 12 passed, 3 skipped in 1.0s ====", 12),
        ("no tests ran in 0.01s", 0),
    ],
)
def test_a_run_tells_how_many_tests_have_passed(said: str, count: int) -> None:
    assert suites.count_of(said) == count


def test_a_source_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(project: str, version: str, folder: Path, wheel: bool, python: str) -> None:
        fetched.append((project, wheel))
        (folder / f"{project}-{version}").mkdir(parents=True)

    monkeypatch.setattr(suites, "FETCHED", tmp_path)
    monkeypatch.setattr(suites, "_fetch", fetch)
    assert suites.source_of("pytest") == suites.source_of("pytest")
    assert fetched == [("pytest", False)]
    assert suites.source_of("pytest", version="1.0").name == "pytest-1.0"


def test_a_fetch_that_fails_skips_by_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "FETCHED", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(Skipped, match="no released source: pip cannot fetch pytest"):
        suites.source_of("pytest", wheel=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_wheel_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "FETCHED", tmp_path / "fetched")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    version = importlib.metadata.version("pytest")
    with zipfile.ZipFile(tmp_path / f"pytest-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"pytest-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: pytest\nVersion: {version}\n",
        )
        wheel.writestr(
            f"pytest-{version}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("tests/test_a.py", "")
    assert (suites.source_of("pytest", wheel=True) / "tests" / "test_a.py").exists()
