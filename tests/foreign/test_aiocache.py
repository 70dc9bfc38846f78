"""aiocache's own tests of its caches against ``cachee_shm.aiocache``, in the memory cache's place."""

import pytest

from tests.foreign import suites

FILES = ["test_base.py", "test_lock.py", "test_decorators.py", "test_plugins.py", "test_factory.py"]
LEFT_OUT = {
    "redis and memcached: aiocache's own caches": "redis or memcached or Redis or Memcached",
    "they look into the memory cache's dict": "test_raw or HitMissRatio",
    "they wait for lifetimes of many seconds, as the others of that name here": (
        "test_set_cancel_previous_ttl_handle"
    ),
}
NOT_RUN = {
    "test_serializers.py": "it asserts of NullSerializer that the very object comes back; ours are copies. "
    "Its other tests pass (by hand, with marshmallow)",
}


@pytest.mark.needs("frameworks")
def test_aiocaches_tests_of_a_cache_pass() -> None:
    source = suites.source_of("aiocache")
    loop = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    said = suites.run(
        [
            *("-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-W", "ignore", *loop),
            *("-p", "aiocache_plugin", "-k", f"not ({' or '.join(LEFT_OUT.values())})"),
            *(f"tests/acceptance/{name}" for name in FILES),
        ],
        cwd=source,
        env={"PYTHONPATH": f"{suites.ROOT}:{suites.ROOT}/tests/foreign"},
    )
    assert suites.count_of(said) >= 60
