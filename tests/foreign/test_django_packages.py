"""Packages that use Django's cache: their own tests on ``CacheeCache``, and a throttle behind two hosts.

They are imported from their sources, and need nothing but Django. Of Django REST framework, the tests of
throttles and responses run: the others use no cache. Not run: django-waffle, whose sdist lacks its test
project; django-ratelimit, which has no sdist; django-axes, whose tests wait for lockouts of two seconds and
fail on a busy machine (by hand: all pass but two, which look into the memory cache's dict).
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import unlink
from tests.foreign import suites

HERE = Path(__file__).parent
SUITES = {  # version, settings, label, least number of tests
    "django-solo": ("2.5.1", "solo.tests.settings", "solo", 13),
    "django-constance": ("4.4.0", "tests.settings", "tests", 150),
}
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
SETTINGS = """
from {theirs} import *

CACHES = {{"default": {{"BACKEND": "cachee_shm.django.CacheeCache", "LOCATION": "django"}}}}
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """With pickle: django-solo stores instances of models."""
    host = f"test-{uuid.uuid4().hex[:12]}"
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "{host}"\n[namespaces.django]\nmemory = "16MiB"\npickle = true\n')
    yield {"CACHEE_CONFIG": str(path), "PYTHONPATH": os.pathsep.join((str(tmp_path), str(HERE)))}
    unlink(f"cachee.{host}")


@pytest.mark.needs("Django")
@pytest.mark.parametrize("package", SUITES)
def test_the_tests_of_a_package_pass(package: str, environment: dict[str, str], tmp_path: Path) -> None:
    version, theirs, label, least = SUITES[package]
    source = suites.source_of(package, version=version)
    (tmp_path / "settings_of_ours.py").write_text(SETTINGS.format(theirs=theirs))
    here = {**environment, "PYTHONPATH": f"{source}:{environment['PYTHONPATH']}:{linked(tmp_path)}"}
    command = ["-m", "django", "test", "--settings=settings_of_ours", label]
    assert suites.count_of(suites.run(command, cwd=source, env=here)) >= least


@pytest.mark.needs("Django")
def test_the_throttles_of_drf_pass_and_count_on_each_host(
    environment: dict[str, str], tmp_path: Path
) -> None:
    source = suites.source_of("djangorestframework", version="3.18.3")
    path = f"{source}:{environment['PYTHONPATH']}:{linked(tmp_path)}"
    needed = [  # by its conftest.py
        suites.source_of("dj-database-url", wheel=True, version="3.1.2"),
        suites.source_of("pytest-django", wheel=True, version="4.14.0"),
    ]
    said = suites.run(
        [*PYTEST, "-p", "drf_plugin", "tests/test_throttling.py", "tests/test_response.py"],
        cwd=source,
        env={**environment, "PYTHONPATH": ":".join((path, *map(str, needed)))},
    )
    assert suites.count_of(said) >= 40
    mine = shutil.copy(HERE / "drf_two_hosts.py", tmp_path)
    said = suites.run(
        [*PYTEST, "-c", "/dev/null", mine], cwd=tmp_path, env={**environment, "PYTHONPATH": path}
    )
    assert suites.count_of(said) == 1


def linked(folder: Path) -> Path:
    """A folder that has this package alone: its checkout has a package ``tests``, as theirs have."""
    path = folder / "path"
    path.mkdir()
    for package, place in (("cachee_shm", "."), ("cachee_bridge", "bridge")):
        (path / package).symlink_to(suites.ROOT / place / package)
    return path
