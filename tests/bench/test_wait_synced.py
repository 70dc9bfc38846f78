"""What bench_wait_synced holds against the answers that it got, and the chain of event loops beside it."""

import pytest

from tests.bench.test_bench import BENCH


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


class Writer:
    """Of whose ring a peer has applied `applied`, and which says that all is applied where `says` is."""

    says = True

    def set(self, key, value):
        pass

    def wait_synced(self, timeout):
        return self.says

    def _written(self):
        return (1, 7)


class Peer:
    applied = 7

    def sources(self):
        return [(0, "writer", 1, self.applied)]


@pytest.fixture
def waiting():
    import bench_wait_synced as bench
    from mesh import Mesh

    host = type("Host", (), {"name": "writer"})()
    return bench.Waiting(Mesh([host, host], [Writer(), Peer()]))


@pytest.mark.parametrize(
    ("says", "applied", "wrong"), [(True, 7, (0, 0)), (True, 6, (0, 3)), (False, 6, (3, 0))]
)
def test_an_answer_before_all_have_applied_it_is_counted_and_so_is_no_answer(
    waiting, monkeypatch, says, applied, wrong
):
    import bench_wait_synced as bench

    monkeypatch.setattr(Writer, "says", says)
    monkeypatch.setattr(Peer, "applied", applied)
    assert len(waiting.trips(3, 0.0)) == 3
    assert (waiting.refused, waiting.early, waiting.asked) == (*wrong, 3)
    verdicts = [target.verdict for target in bench.judge([waiting])]
    assert ("missed" in verdicts) == (wrong != (0, 0))


def test_a_message_through_two_event_loops_comes_back():
    from echoes import two_loops
    from namespaces import Loopback

    with two_loops(Loopback(), Loopback()) as ping:
        assert len(ping.trips(5, 0.0)) == 5
