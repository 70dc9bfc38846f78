"""What the tests of examples/ share: a database, and a user's environment for the guides, made once."""

from pathlib import Path

import pytest

from tests import machine
from tests.cachee_shm.conftest import postgres
from tests.examples import guides

__all__ = ["environment", "folder", "postgres"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A clean virtual environment, and a built wheel of this tree for pip."""
    for need in guides.NEEDS:
        machine.require(need)
    return guides.virtual_environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one guide's run."""
    return tmp_path_factory.mktemp("guide")
