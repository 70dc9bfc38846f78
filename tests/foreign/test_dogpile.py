"""dogpile.cache's own tests of any backend, out of its wheel, against ``cachee_shm.dogpile``. None is left
out."""

import shutil
from pathlib import Path

import pytest

from tests.foreign import suites


@pytest.mark.needs("frameworks")
def test_dogpiles_tests_of_any_backend_pass(tmp_path: Path) -> None:
    wheel = suites.source_of("dogpile.cache", wheel=True)
    mine = shutil.copy(suites.ROOT / "tests" / "foreign" / "dogpile_cachee.py", tmp_path / "test_cachee.py")
    said = suites.run(
        ["-m", "pytest", "-q", "-c", "/dev/null", "-W", "ignore", str(mine)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{wheel}:{suites.ROOT}:{suites.ROOT}/tests/foreign"},
    )
    assert suites.count_of(said) >= 50
