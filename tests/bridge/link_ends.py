"""Two ends of one link, without a mesh around them."""

from cachee_bridge.links.link import Link
from cachee_bridge.wire.budget import Budget
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, VERSION_MIN, Decoder
from cachee_bridge.wire.messages import Hello

OTHER = b"another secret of 16"


def hello(name, **fields):
    values = {"version": VERSION_MIN, "instance": hash(name) % 1000, "nonce": name.encode().ljust(32, b".")}
    values.update({"mode": "none", "address": ""} | fields)
    return Hello(
        "cachee",
        values["version"],
        name,
        values["instance"],
        values["nonce"],
        values["mode"],
        values["address"],
        "",
    )


def link_of(name, dials, secrets=(), now=100.0, identity=None, **fields):
    mode = "secret" if secrets else "none"
    said = hello(name, mode=mode, **fields)
    return Link(
        1, "there:1" if dials else None, "10.0.0.9", said, secrets, [], now, Budget(1e9, now), identity
    )


def words(link):
    return [message for data in link.sent() for message in Decoder(FRAME_BYTES_MAX).feed(data)]


def pair(here=(), there=()):
    return link_of("a", True, here), link_of("b", False, there)


def shake(dialler, acceptor):
    """Carries what each says to the other until both have nothing to say."""
    while said := [(acceptor, words(dialler)), (dialler, words(acceptor))]:
        if not any(messages for _, messages in said):
            return
        for target, messages in said:
            for message in messages:
                target.shake(message)
