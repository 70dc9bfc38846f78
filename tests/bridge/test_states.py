"""The table of a link's states: the link and the mesh around it go by it, and by nothing else."""

import pytest

from cachee_bridge.links.states import ON_MESSAGE, WITHOUT_MESSAGE, LinkState, after
from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.wire.frames import NUMBERS, VERSION, encode
from cachee_bridge.wire.messages import (
    Answer,
    Auth,
    Beat,
    Calm,
    Doubt,
    Fetch,
    Fetched,
    Follow,
    Frame,
    Leave,
    Peers,
    Question,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import FrameError
from tests.bridge.link_ends import hello, link_of, pair, words
from tests.bridge.meshes import SECRET, Cable

HELLO = hello("a", nonce=bytes(RANDOM_BYTES) + OFFER + bytes((VERSION,)))
MESSAGES = [
    HELLO,
    Auth((bytes(32),)),
    State(()),
    Beat(1, 0, (), ()),
    Calm(1, 0, (), (), 0, 0),
    Doubt(("shop",)),
    Frame("shop", "a", 1, 1, 1, b""),
    Replay("shop", "b", 1, 1),
    Sync(),
    Peers(()),
    Leave("bye", ()),
    Follow(("b",)),
    Question(1, 0, "shop", ()),
    Answer(1, "shop", "", 1, 0, 0, (), ()),
    Fetch(1, "shop", b"k", 50, ()),
    Fetched(1, "shop", b"k", 0, "", 0, 0, 0, (), b""),
]
IN_ORDER = list(LinkState)


def test_every_message_is_among_those_below():
    assert {type(message) for message in MESSAGES} == set(NUMBERS)


def test_a_link_never_goes_back():
    steps = [(state, to) for state in LinkState for to in ON_MESSAGE[state].values()]
    for state, to in [*steps, *WITHOUT_MESSAGE.items()]:
        stays = state is to and to in (LinkState.STATE, LinkState.UP)
        assert IN_ORDER.index(to) > IN_ORDER.index(state) or stays


def test_every_state_but_the_last_is_left_by_one_way_or_the_other():
    for state in IN_ORDER[:-1]:
        assert ON_MESSAGE[state] or state in WITHOUT_MESSAGE


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_the_table_has_is_accepted_and_all_else_refused_by_the_name_of_the_state(state, message):
    link = link_of("b", False)
    link.state = state
    accepted = type(message) in ON_MESSAGE[state] or isinstance(message, Leave)
    if accepted:
        link.check(message)
        assert after(state, message) is ON_MESSAGE[state].get(type(message), state)
    else:
        with pytest.raises(FrameError, match=f"{type(message).__name__} in state {state.name}; the link is"):
            link.check(message)


def test_a_link_goes_through_all_states_where_a_secret_is_to_be_proven():
    dialler, acceptor = pair((SECRET,), (SECRET,))
    seen = [acceptor.state]
    for message in (words(dialler)[0],):
        acceptor.shake(message)
    seen.append(acceptor.state)
    dialler.shake(words(acceptor)[0])
    acceptor.shake(words(dialler)[0])
    seen.append(acceptor.state)
    acceptor.accept([])
    seen.append(acceptor.state)
    acceptor.on_state(State(()))
    assert [*seen, acceptor.state] == IN_ORDER


def test_a_link_leaves_out_the_proof_where_there_is_no_secret():
    dialler, acceptor = pair()
    acceptor.shake(words(dialler)[0])
    assert acceptor.state is LinkState.PROVEN


BEFORE = {
    LinkState.HELLO: [],
    LinkState.STATE: [HELLO],
    LinkState.UP: [HELLO, State(())],
}
"""What a peer says first, so that the link to it is in this state."""


@pytest.mark.parametrize("state", BEFORE)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_mesh_closes_a_link_for_what_the_table_does_not_have_and_says_in_which_state(state, message):
    cable = Cable()
    node = cable.node("b")
    node.mesh.link_opened(1, None, cable.now, "10.0.0.9")
    for said in BEFORE[state]:
        node.mesh.received(1, encode(said), cable.now)
    cable.settle()
    assert node.closed == []
    node.mesh.received(1, encode(message), cable.now)
    cable.settle()
    refused = f"{type(message).__name__} in state {state.name}; the link is closed"
    is_refused = type(message) not in ON_MESSAGE[state] and not isinstance(message, Leave)
    assert [reason for reason in node.closed if "in state" in reason] == ([refused] if is_refused else [])
