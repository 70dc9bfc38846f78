"""One end of a link by hand: what a peer says, message by message, and what it is answered."""

from cachee_bridge.links.stamps import microseconds
from cachee_bridge.ports.effects import Send, SendEach
from cachee_bridge.streams.buckets import read_piece
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder, encode
from cachee_bridge.wire.messages import (
    Beat,
    Frame,
    Head,
    Hello,
    NamespaceState,
    State,
)
from tests.bridge.meshes import Cable, FakeStore, Node


class Peer:
    """The other end of one link of a mesh, by hand. It is "web-2", incarnation 4, tail 20."""

    def __init__(self) -> None:
        self.cable = Cable()
        self.store = FakeStore(incarnation=7)
        self.node = Node(self.cable, "web-1", {"shop": self.store})
        self.cable.nodes["web-1"] = self.node
        self.meet()

    def meet(self):
        """A new link. The one before is gone."""
        if self.node.mesh._links.by_number:
            self.node.mesh.link_closed(1, "reset", self.cable.now)
        self.decoder = Decoder(FRAME_BYTES_MAX)
        self.node.mesh.link_opened(1, None, self.cable.now, "10.0.0.9")
        self.say(Hello("cachee", 2, "web-2", 5, bytes(32), "none", "", ""))
        self.heard = self.say(State((NamespaceState("shop", 4, 20, 7),)))

    def say(self, *messages):
        """What comes back."""
        for message in messages:
            self.node.mesh.received(1, encode(message), self.cable.now)
        return self.hear()

    def hear(self):
        heard = []
        for effect in self.node.mesh.effects():
            if isinstance(effect, Send):
                heard += self.decoder.feed(effect.data)
            elif isinstance(effect, SendEach):
                heard += self.decoder.feed(b"".join(effect.data))
            else:
                self.cable._one(self.node, effect)
        self.node.mesh.writable((1,), self.cable.now)
        return heard

    def write(self, *payloads):
        """It writes; what the peer is sent of that."""
        self.store.write(*payloads)
        self.node.mesh.ring_moved("shop", self.cable.now)
        return self.hear()

    def beat(self, head, cursors=(), echo=None, incarnation=4):
        stamp = microseconds(self.cable.now) if echo is None else echo
        heads = (Head("shop", "web-2", incarnation, head, 0, 0),)
        return self.say(Beat(1, stamp, heads, cursors))

    def frame(self, first, last, payload=b"", incarnation=4):
        return self.say(Frame("shop", "web-2", incarnation, first, last, payload))

    def tick(self):
        self.node.mesh.tick(self.cable.now)
        return self.hear()

    def finish(self):
        """The steps of a map, one after another."""
        for _ in range(5):
            self.hear()

    def map(self):
        """A payload that stands for what it wrote in."""
        return read_piece(self.store, 0, 1)

    @property
    def view(self):
        (seen,) = [peer for peer in self.node.mesh.views.peers() if peer.name == "web-2"]
        return seen.namespaces["shop"]

    @property
    def cursor(self):
        return self.store.cursor_of("web-2")

    @property
    def closed(self):
        return bool(self.node.closed)


def linked_peer() -> Peer:
    """After its first heartbeat."""
    made = Peer()
    made.tick()
    return made
