"""Django's own suites against ``CacheeCache``: of its caches, of the cache middleware, and of sessions.

Nothing of Django's source is changed. Left out, each for its reason:

- ``test_cull``, ``test_zero_cull`` and ``test_cull_delete_when_store_empty``: MAX_ENTRIES is no bound here,
  the memory is. Django leaves them out for memcached and Redis in the same way.
- In tests/cache, the classes of other backends: they try what is within ``LocMemCache``, files, databases,
  memcached and Redis.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import unlink
from tests.foreign import suites

HERE = Path(__file__).parent
APPLICATION = (
    "cache.tests.TestMakeTemplateFragmentKey"  # its models' application is installed by a label of it
)


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Path]:
    """Pickle, as BaseCacheTests stores a function, a class and objects of a model."""
    host = f"test-{uuid.uuid4().hex[:12]}"
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "{host}"\n[namespaces.django]\nmemory = "16MiB"\npickle = true\n')
    yield path
    unlink(f"cachee.{host}")


@pytest.mark.needs("Django")
def test_the_suites_of_django_pass(configuration: Path) -> None:
    tests = suites.source_of("Django") / "tests"
    said = suites.run(
        [
            *("runtests.py", "--settings=suite_of_django.settings", "--parallel=1"),
            *("suite_of_django.tests", "sessions_tests", APPLICATION),
        ],
        cwd=tests,
        env={
            "CACHEE_CONFIG": str(configuration),
            "PYTHONPATH": os.pathsep.join((str(tests.parent), str(HERE))),
        },
    )
    assert suites.count_of(said) > 750
