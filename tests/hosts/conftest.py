"""Three hosts for all tests of this folder, and at the end a table of what their readers were shown."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest

from bench.namespaces import network
from cachee_shm.cli.demo.run import make_database
from tests.hosts.places import PlacedMesh, placed_mesh
from tests.hosts.verdict import BOUND_NS, evidence, judge, newest, shown

REPORT = "what readers were shown"
"""A property of each test's report, which also another process of xdist can print."""


@pytest.fixture(scope="module")
def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlacedMesh]:
    folder = tmp_path_factory.mktemp("hosts")
    database = folder / "shop.sqlite3"
    make_database(database)
    with network("abc") as places, placed_mesh(folder, places, database) as mesh:
        yield mesh


@pytest.fixture
def mesh(shared_mesh: PlacedMesh, request: pytest.FixtureRequest) -> Iterator[PlacedMesh]:
    """Whole and under load; after the test's fault it must become so again, and nobody was shown too much."""
    shared_mesh.whole()
    since_ns = time.monotonic_ns()
    yield shared_mesh
    shared_mesh.whole()
    with shared_mesh.resting():
        nothing_is_missed(shared_mesh)
        time.sleep(0.1)  # and read by the workers
        found = evidence(shared_mesh.journals, shared_mesh.database, since_ns)
    verdict = judge(found)
    request.node.user_properties.append((REPORT, dataclasses.astuple(shown(found))))
    assert verdict.stale == []
    assert verdict.wrong == []
    assert all(host.is_working() for host in shared_mesh.hosts)


def nothing_is_missed(mesh: PlacedMesh) -> None:
    """Nothing is written, and everybody has all that was: then every copy is the origin's row."""
    rows = newest(mesh.database)
    for host in mesh.hosts:
        held = host.cache.get_many(rows)
        assert {key: row["version"] for key, row in held.items()} == {key: rows[key] for key in held}
        assert held


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = {
        report.nodeid: told
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, told in getattr(report, "user_properties", ())
        if name == REPORT
    }
    if rows:
        terminalreporter.section(f"what readers of three hosts were shown (bound {BOUND_NS / 1e9:g} s)")
    for nodeid, (reads, behind, worst_s) in rows.items():
        name = nodeid.rpartition("::")[2]
        terminalreporter.line(
            f"{worst_s * 1000:7.0f} ms behind at worst, {behind:4} of {reads:5} reads  {name}"
        )
