"""What all tests share: how many examples the generated ones try, and segments that nobody else has."""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import cachee_shm

# A generated test that is slow on a busy machine has not failed: no deadline. `make fuzz` asks for many
# examples.
settings.register_profile(
    "cachee",
    deadline=None,
    max_examples=int(os.environ.get("CACHEE_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cachee")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A configuration of one namespace of 4 MiB on a host of its own; its segments are unlinked after."""
    for name in ("CACHEE_CONFIG", "CACHEE_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    host = f"test-{uuid.uuid4().hex[:12]}"
    yield {"host": {"name": host}, "namespaces": {"shop": {"memory": "4MiB"}}}
    unlink(f"cachee.{host}")  # and what a test called after it


@pytest.fixture
def cache(config: dict[str, Any]) -> Iterator[cachee_shm.Cache]:
    """A cache of ``config``."""
    with cachee_shm.attach(config=config) as attached:
        yield attached


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace for ``attach(namespace)`` without a configuration."""
    monkeypatch.delenv("CACHEE_CONFIG", raising=False)
    monkeypatch.delenv("CACHEE_DISABLE", raising=False)
    monkeypatch.setattr("cachee_shm.attaching.CONFIG_PATH", "/nonexistent")
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    unlink(f"cachee.{os.getuid()}.{name}.")


def unlink(prefix: str) -> None:
    for entry in os.listdir("/dev/shm"):
        if entry.startswith(prefix):
            os.unlink(f"/dev/shm/{entry}")
