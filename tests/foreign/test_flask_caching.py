"""Flask-Caching's own tests against ``cachee_shm.flask``, which flask_plugin.py puts in SimpleCache's
place."""

import pytest

from tests.foreign import suites

LEFT_OUT = {
    "not SimpleCache": (
        "TestRedisCache or TestRedisCacheClientsOverride or TestMemcachedCache or TestNullCache "
        "or TestFileSystemCache or test_init_nullcache or redis"
    ),
    "SimpleCache's own attributes (_cache, threshold, a deprecated argument)": (
        "test_purge or test_deprecated_ignore_errors or test_values_are_stored_in_the_configured_format"
    ),
    "it counts the calls for a function's version, which needs no first write here": (
        "test_memoize_uses_public_methods"
    ),
}


@pytest.mark.needs("frameworks")
def test_flask_cachings_tests_pass() -> None:
    source = suites.source_of("Flask-Caching")
    options = ["-o", "asyncio_default_fixture_loop_scope=function", "-p", "flask_plugin"]
    names = " or ".join(LEFT_OUT.values())
    said = suites.run(
        ["-m", "pytest", "-q", *options, "-k", f"not ({names})", "tests"],
        cwd=source,
        env={"PYTHONPATH": f"{suites.ROOT}:{suites.ROOT}/tests/foreign"},
    )
    assert suites.count_of(said) >= 180
