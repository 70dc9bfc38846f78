"""The mesh's clock and the segments' are one: on a machine that was suspended, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachee_bridge.system import clock as clocks
from tests.bridge.hosts import hosts, until
from tests.cachee_shm.processes import child
from tests.cachee_shm.suspending import SUSPEND


def test_it_does_not_go_back() -> None:
    readings = [clocks.clock() for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.needs("time namespaces")
def test_a_host_that_was_suspended_since_it_booted_is_whole_and_linked(tmp_path: Path) -> None:
    with hosts(tmp_path) as (here, there):
        here.start(f"{SUSPEND}suspended(5000)")
        there.start()
        assert here.process is not None
        code = f"""{SUSPEND}
enter('/proc/{here.process.pid}/ns/time')
cache = cachee_shm.attach('shop', config={str(here.config)!r})
while cache.health().isolated:
    time.sleep(0.01)
say('whole')
wait()
cache.delete('k')
wait()
"""
        with child(code) as worker:
            assert worker.line() == "whole"
            far = there.attach()
            until(lambda: far.serve_until >= far.now_ms(), there.log)
            assert far.get_or_load("k", lambda: "old") == "old"
            worker.tell()
            until(lambda: far.get("k") is None, f"{here.log}\n{there.log}")


def test_the_wall_clock_is_read_between_two_looks_at_the_other_and_the_quickest_reading_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bridge that lost its processor between the two clocks told times that were wrong by milliseconds."""
    own = iter([10.0, 10.5, 20.0, 20.002, 30.0, 30.5])
    walls = iter([1010.4, 1020.001, 1030.2])
    monkeypatch.setattr(clocks, "clock", lambda: next(own))
    monkeypatch.setattr(clocks.time, "time", lambda: next(walls))
    assert clocks.wall_ahead_s() == pytest.approx(1000.0)
