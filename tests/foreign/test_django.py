"""Django's own suites against ``CacheeCache``: of its caches, of the cache middleware, and of sessions.

Nothing of Django's source is changed. They run on the Django of this environment, and on Django 6 where
there is the Python 3.12 that it needs. Left out, each for its reason:

- ``test_cull``, ``test_zero_cull`` and ``test_cull_delete_when_store_empty``: MAX_ENTRIES is no bound here,
  the memory is. Django leaves them out for memcached and Redis in the same way.
- In tests/cache, the classes of other backends: they try what is within ``LocMemCache``, files, databases,
  memcached and Redis.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import machine
from tests.cachee_shm import interpreters
from tests.conftest import unlink
from tests.foreign import suites

DJANGO_6 = ("django>=6,<7", "msgpack", "posix-ipc", "psutil", "pydantic")
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
    assert run(configuration) > 750


@pytest.mark.timeout(900)  # an environment is made, and the extension compiled
@pytest.mark.needs("C compiler")
def test_the_suites_of_django_6_pass(configuration: Path, tmp_path: Path) -> None:
    found = interpreters.another(oldest=(3, 12))
    if found is None:
        machine.skip("second Python", "none from 3.12 on, which Django 6 needs")
    python = suites.environment_of(found.python, "django-6", DJANGO_6)
    interpreters.build(found, tmp_path / "path")
    assert run(configuration, str(tmp_path / "path"), python=python) > 780


def run(configuration: Path, *path: str, python: str = sys.executable) -> int:
    """How many tests have passed. ``path``: where that Python finds this package."""
    tests = suites.source_of("Django", python=python) / "tests"
    said = suites.run(
        [
            *("runtests.py", "--settings=suite_of_django.settings", "--parallel=1"),
            *("suite_of_django.tests", "sessions_tests", APPLICATION),
        ],
        cwd=tests,
        env={
            "CACHEE_CONFIG": str(configuration),
            "PYTHONPATH": os.pathsep.join((str(tests.parent), str(HERE), *path)),
        },
        python=python,
    )
    return suites.count_of(said)
