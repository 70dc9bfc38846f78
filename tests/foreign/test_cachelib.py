"""Cachelib's own tests against ``cachee_shm.cachelib``."""

import shutil
from pathlib import Path

import pytest

from tests.foreign import suites

LEFT_OUT = {
    "test_{dynamodb,file_system,memcached,mongodb,redis,simple,uwsgi,valkey}_cache.py": "one file for each "
    "cache of cachelib: that cache, and the classes of tests of any cache that ours is run with",
    "test_base_cache.py": "cachelib's base class alone",
    "test_serializers.py": "cachelib's serializers alone",
    "test_interface_uniformity.py": "the methods of cachelib's own four caches",
}


@pytest.mark.needs("frameworks")
def test_cachelibs_tests_of_any_cache_pass(tmp_path: Path) -> None:
    tests = suites.source_of("cachelib") / "tests"
    mine = shutil.copy(suites.ROOT / "tests" / "foreign" / "cachelib_cachee.py", tmp_path / "test_cachee.py")
    said = suites.run(
        ["-m", "pytest", "-q", "-c", "/dev/null", "-p", "conftest", str(mine)],
        cwd=tests,
        env={"PYTHONPATH": f"{tests}:{suites.ROOT}:{suites.ROOT}/tests/foreign"},
    )
    assert suites.count_of(said) >= 20
