"""The states of a link, and what may follow in each.

    state     message                       next    without a message                                next
    HELLO     HELLO                         AUTH    -
    AUTH      AUTH                          PROVEN  neither end has a secret                         PROVEN
    PROVEN    -                                     the mesh accepts the peer, and sends STATE       STATE
    STATE     STATE                         UP      -
              DOUBT                         STATE
    UP        STATE DOUBT BEAT CALM FRAME   UP      -
              REPLAY SYNC PEERS FOLLOW
              QUESTION ANSWER

The rules of this file:

1. LEAVE is accepted in every state. It ends the link, or says that the peer leaves for good.
2. A message that the table does not have for the state is a FrameError, and the link closes.
3. A link never goes back to an earlier state. Its end is no state: a closed link is dropped.
4. The tables below are the only place that says which message is accepted when. handshake.py handles messages
   until PROVEN, the mesh from then on.
"""

from __future__ import annotations

from enum import Enum, auto

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
    Hello,
    Leave,
    Message,
    Peers,
    Question,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import FrameError


class LinkState(Enum):
    HELLO = auto()
    """The peer's HELLO is awaited."""
    AUTH = auto()
    """The peer's proof is awaited."""
    PROVEN = auto()
    """The peer is the host that it says it is. The mesh has not accepted it yet."""
    STATE = auto()
    """This host has sent its namespaces. The peer's are awaited."""
    UP = auto()
    """Records may be sent and received."""


ON_MESSAGE: dict[LinkState, dict[type[Message], LinkState]] = {
    LinkState.HELLO: {Hello: LinkState.AUTH},
    LinkState.AUTH: {Auth: LinkState.PROVEN},
    LinkState.PROVEN: {},
    LinkState.STATE: {State: LinkState.UP, Doubt: LinkState.STATE},
    LinkState.UP: dict.fromkeys(
        (State, Doubt, Beat, Calm, Frame, Replay, Sync, Peers, Follow, Question, Answer, Fetch, Fetched),
        LinkState.UP,
    ),
}
"""The state that follows when this message has been accepted."""
WITHOUT_MESSAGE: dict[LinkState, LinkState] = {
    LinkState.AUTH: LinkState.PROVEN,
    LinkState.PROVEN: LinkState.STATE,
}
"""The state that follows when nothing more is awaited from the peer."""


def after(state: LinkState, message: Message) -> LinkState:
    """The state that follows once `message` has been accepted in `state`. FrameError: it is not accepted."""
    if isinstance(message, Leave):
        return state
    try:
        return ON_MESSAGE[state][type(message)]
    except KeyError:
        raise FrameError(f"{type(message).__name__} in state {state.name}; the link is closed") from None
