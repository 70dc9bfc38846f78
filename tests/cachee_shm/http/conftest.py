"""Each behaviour that does not depend on the face is tested behind both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import cachee_shm
from cachee_shm import Cache
from tests.cachee_shm.http.faces import Site


@pytest.fixture(scope="session")
def one_cache() -> Iterator[Cache]:
    with cachee_shm.attach(private=True) as cache:
        yield cache


@pytest.fixture
def shm_cache(one_cache: Cache) -> Cache:
    """One for all: there are some hundred cases."""
    one_cache.clear()
    return one_cache


@pytest.fixture(params=["asgi", "wsgi"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(face: str, shm_cache: Cache) -> Site:
    return Site(face, shm_cache)


@pytest.fixture
def make_site(face: str, shm_cache: Cache) -> Callable[..., Site]:
    return lambda **options: Site(face, shm_cache, **options)
