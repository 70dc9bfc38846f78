"""What all tests share: how many examples the generated tests try, and fixtures with segments of their
own."""

import os
import re
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import cachee_shm
from tests import machine, workers
from tests.machine import Kind

# A generated test that is slow on a busy machine has not failed: no deadline. `make fuzz` asks for many
# examples.
settings.register_profile(
    "cachee",
    deadline=None,
    max_examples=int(os.environ.get("CACHEE_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cachee")


# Tests read the output of programs, so a user's or a CI's settings for terminals must not change it.
for name in ("COLUMNS", "FORCE_COLOR", "PY_COLORS", "PYTEST_ADDOPTS"):
    os.environ.pop(name, None)

# A shell that starts tests in the background has them ignore SIGINT, and so would each program under test.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


# Skips. machine.py has the table of what tests need. `.ci/run` says by CACHEE_SKIPS what may be missing.
# "none": only what nobody can add, since all packages are installed. "rights": also the rights that this
# machine denies. Any other skip fails the run then. A line at the end names all that was skipped.
MAY_BE_SKIPPED = {"none": {Kind.GIVEN}, "rights": {Kind.GIVEN, Kind.RIGHT}}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if workers.is_worker(config):
        items.sort(key=lambda item: workers.rank(item.nodeid))
    for item in items:
        names = [name for mark in item.iter_markers("needs") for name in mark.args]
        missing = next(filter(None, map(machine.why_missing, names)), "")
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return workers.scheduler(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = reasons(terminalreporter)
    if skipped:
        groups = ", ".join(
            f"{group} ({'; '.join(sorted({reason.partition(':')[0] for reason in why}))})"
            for group, why in sorted(skipped.items())
        )
        terminalreporter.write_line(f"skipped here: {groups}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    allowed = MAY_BE_SKIPPED.get(os.environ.get("CACHEE_SKIPS", ""))
    if terminal is None or allowed is None:
        return
    if any(machine.kind_of(reason) not in allowed for why in reasons(terminal).values() for reason in why):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def reasons(terminal: pytest.TerminalReporter) -> dict[str, set[str]]:
    """Group of tests (its file's name) -> why some of it was skipped."""
    found: dict[str, set[str]] = {}
    for report in terminal.stats.get("skipped", []):
        group = PurePath(report.nodeid.partition("::")[0]).stem.removeprefix("test_")
        found.setdefault(group, set()).add(re.sub(r"^Skipped: ", "", report.longrepr[2]))
    return found


def unlink(prefix: str) -> None:
    for entry in os.listdir("/dev/shm"):
        if entry.startswith(prefix):
            os.unlink(f"/dev/shm/{entry}")
