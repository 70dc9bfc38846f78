"""How far others have applied a source, as relays report it."""

import pytest

from cachee_bridge.wire.messages import Cursor
from tests.bridge.meshes import Cable, key
from tests.bridge.test_paths import mesh


@pytest.fixture
def cable() -> Cable:
    return Cable()


@pytest.mark.parametrize("ahead", [1, 1 << 40])
def test_a_relayed_cursor_beyond_this_ring_is_not_believed(cable, ahead):
    a, b, c = mesh(cable, 3)
    a.write(key(7))
    cable.run(0.5)
    acks, known = a.mesh._session.acknowledgements, dict(a.store.acked)
    for cursor, incarnation in (
        (a.store.tail + ahead, a.store.incarnation),
        (a.store.tail, a.store.incarnation + 1),
    ):
        row = Cursor("shop", a.name, incarnation, cursor, c.name)
        acks.on_cursor(a.mesh._links.up[b.name], row, cable.now)
        assert ("shop", c.name) not in acks.of_own_ring
        assert a.store.acked == known
    row = Cursor("shop", a.name, a.store.incarnation, a.store.tail, c.name)
    acks.on_cursor(a.mesh._links.up[b.name], row, cable.now)
    assert acks.of_own_ring["shop", c.name] == a.store.tail
