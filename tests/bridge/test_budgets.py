"""One budget for each peer, however often it connects."""

from cachee_bridge.protocol.budgets import BUDGETS_MAX, Budgets
from cachee_bridge.wire.messages import Sync
from tests.bridge.test_intake import NOW, SYNC, Rig


def test_a_peer_that_connects_again_has_the_budget_that_it_had() -> None:
    rig = Rig()
    rig.connect(2)
    while rig.mesh._links.by_number[2].throttle.held_since is None:
        rig.bytes(2, SYNC * 60)
        rig.go_on()
    rig.mesh.link_closed(2, "reset", NOW)
    rig.connect(9, "web-2")
    rig.say(9, Sync())
    assert rig.mesh._links.by_number[9].throttle.held_since is not None
    rig.connect(3)
    rig.say(3, Sync())
    assert rig.mesh._links.by_number[3].throttle.held_since is None


def test_budgets_that_are_remembered_are_bounded() -> None:
    rig, budgets = Rig(), Budgets()
    rig.connect(2)
    link = rig.mesh._links.by_number[2]
    for number in range(BUDGETS_MAX + 50):
        link.name = f"made-up-{number}"
        budgets.came_up(link)
    assert len(budgets._budgets) <= BUDGETS_MAX
