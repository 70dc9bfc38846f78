"""cashews' own tests of a backend against ``cachee_shm.cashews``."""

import pytest

from tests.foreign import suites

LEFT_OUT = {
    "keys are not listed": "test_scan or test_get_match or test_diff_types_get_match",
    "a wildcard in the middle drops more than was asked for": "test_delete_match",
    "the memory backend's own size": "test_lru",
    "10 ms later a value of 10 ms is over, and the cache's clock ticks each 4": "test_expire",
}


@pytest.mark.needs("frameworks")
def test_cashews_tests_of_a_backend_pass() -> None:
    source = suites.source_of("cashews")
    loop = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    said = suites.run(
        [
            *("-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-W", "ignore", *loop),
            *("-p", "cashews_plugin", "-k", f"not ({' or '.join(LEFT_OUT.values())})"),
            "tests/test_backend_commands.py",
        ],
        cwd=source,
        env={"PYTHONPATH": f"{suites.ROOT}:{suites.ROOT}/tests/foreign"},
    )
    assert suites.count_of(said) >= 30
