"""How `make test` deals the tests out to several processes (pytest-xdist), which run at the same time.

Most tests wait most of the time: for other processes, for timers, for a network. So more of them run at once
than there are processors. A file's tests run in one process, in their order, as they do without xdist. Names,
ports and folders are each test's own, so files do not meet.

What takes longest begins first, so that no long file is alone at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

LONGEST_FIRST = (
    "tests/hosts/",
    "tests/foreign/",
    "tests/core/test_model.py",
    "tests/bridge/test_two_bridges.py",
    "tests/simulation/test_simulation.py",
    "tests/bench/",
    "tests/fuzz/",
    "tests/bridge/test_secure_bridges.py",
    "tests/bridge/test_discovered_hosts.py",
    "tests/cachee_shm/test_versions.py",
    "tests/bridge/test_versions_layouts.py",
    "tests/cachee_shm/test_death.py",
    "tests/cachee_shm/test_reentry.py",
    "tests/bridge/test_synced_hosts.py",
)
TOGETHER = {  # files whose tests share what takes long to start
    "tests/cachee_shm/django/test_transactions.py": "databases",
    "tests/cachee_shm/test_sqlalchemy.py": "databases",
}


def unit(nodeid: str) -> str:
    """What is run by one process as a whole: the test's file, or a group of files."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def rank(nodeid: str) -> int:
    """Where the test's file stands among those that begin first."""
    places = (place for place, begin in enumerate(LONGEST_FIRST) if nodeid.startswith(begin))
    return next(places, len(LONGEST_FIRST))


def is_worker(config: pytest.Config) -> bool:
    """Is this one of xdist's processes, and not the one that deals out?"""
    return hasattr(config, "workerinput")


def scheduler(config: pytest.Config, log: Any) -> Any:
    """For xdist: it deals out units, in the order in which the tests stand."""
    from xdist.scheduler import LoadFileScheduling  # only there where it is asked for

    class ByUnit(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return ByUnit(config, log)
