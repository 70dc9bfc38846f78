"""What is logged when an address cannot be dialled."""

import pytest

from cachee_bridge.ports.effects import Log
from tests.bridge.meshes import Cable


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_an_unreachable_address_is_told_once(cable):
    a = cable.node("a", ("b",))
    cable.run(5.0)
    lines = [log for log in a.said if isinstance(log, Log) and "cannot be reached" in log.text]
    assert len(lines) == 1


class TestLinksThatDoNotComeUp:
    def test_are_told_once_for_each_reason(self, cable):
        a = cable.node("a", ("b",))
        told = ["b:1 cannot be reached: refused; it is dialled again"]
        cable.run(3.0)
        assert [log.text for log in a.said if "dialled again" in log.text] == told
        for reason in ("no TLS there", "no TLS there", "another CA", "another CA"):
            a.mesh.connect_failed("b:1", reason, cable.now)
        cable.settle()
        assert [log.text.split(": ")[1] for log in a.said if "dialled again" in log.text] == [
            "refused; it is dialled again",
            "no TLS there; it is dialled again",
            "another CA; it is dialled again",
        ]

    def test_and_end_without_a_word_are_told_with_the_reason(self, cable):
        a = cable.node("a", ("b",))
        a.mesh.link_opened(7, "b:1", cable.now, "10.0.0.2")
        a.mesh.link_closed(7, "the other end refuses this host's TLS: unknown ca", cable.now)
        cable.settle()
        assert "b:1 ended the link before it was up: the other end refuses" in a.texts("warning")

    def test_are_no_links_that_were_up_and_none_that_the_other_end_dialled(self, cable):
        """Else the operator is told of an address that was dialled in vain, and it was not."""
        a, b = cable.node("a", ("b",)), cable.node("b")
        cable.run(1.0)
        b.mesh.link_opened(77, None, cable.now, "10.0.0.9")
        b.mesh.received(77, b"GET / HTTP/1.1\r\n\r\n", cable.now)
        a.mesh._ends.close(a.mesh._links.up["b"], "silent for 3 s", cable.now, "warning")
        assert a.mesh._dialling.failures == b.mesh._dialling.failures == {}
