"""The wire: what is sent comes back as it was, and what is not a message is a FrameError."""

import re
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.streams.stream import PACK_BYTES
from cachee_bridge.wire import frames
from cachee_bridge.wire.fields import HOST_NAME, NAMESPACE
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder, decode, encode
from cachee_bridge.wire.messages import (
    Answer,
    Asked,
    Auth,
    Beat,
    Cursor,
    FinalHead,
    Follow,
    Frame,
    Head,
    Hello,
    Holding,
    JournalRow,
    Leave,
    NamespaceState,
    PeerAddress,
    Peers,
    Question,
    Replay,
    State,
    Sync,
)
from cachee_bridge.wire.seal import SEAL_BYTES
from cachee_shm.errors import FrameError

u64 = st.integers(0, 2**64 - 1)
position = st.integers(0, 2**63 - 1)
record = st.integers(1, 2**63 - 1)
namespace = st.from_regex(NAMESPACE, fullmatch=True)
name = st.from_regex(HOST_NAME, fullmatch=True)
port = st.integers(1, 65535)
hosts = st.one_of(name, st.just("[fe80::1%eth0]"), st.just("[::1]"))
address = st.builds(lambda host, number: f"{host}:{number}", hosts, port)
own_address = st.one_of(st.just(""), st.builds(":{}".format, port), address)
printable = st.text(max_size=200).filter(str.isprintable)
nonce = st.binary(min_size=32, max_size=32)
u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
word = printable.filter(lambda text: len(text) <= 64)
value = st.binary(max_size=96)


def rows(row):
    return st.lists(row, max_size=5).map(tuple)


hello = st.builds(
    Hello,
    st.just("cachee"),
    st.integers(frames.VERSION_MIN, frames.VERSION),
    name,
    u64,
    nonce,
    st.sampled_from(("none", "secret")),
    own_address,
    printable.filter(lambda text: len(text) <= 63),
)
range_frame = st.builds(
    lambda ns, source, incarnation, first, more, payload: Frame(
        ns, source, incarnation, first, min(first + more, 2**63 - 1), payload
    ),
    namespace, name, u64, record, st.integers(0, 10**6), st.binary(max_size=300),
)  # fmt: skip
messages = st.one_of(
    hello,
    st.builds(Auth, st.lists(nonce, min_size=1, max_size=2).map(tuple)),
    st.builds(State, rows(st.builds(NamespaceState, namespace, u64, position, u64))),
    st.builds(
        Beat,
        u64,
        u64,
        rows(st.builds(Head, namespace, name, u64, position, u64, st.integers(0, 3))),
        rows(st.builds(Cursor, namespace, name, u64, position, name)),
    ),
    range_frame,
    st.builds(Replay, namespace, name, u64, record),
    st.builds(Sync, st.one_of(st.just(""), name), st.integers(0, 3)),
    st.builds(Follow, rows(name)),
    st.builds(Peers, rows(st.builds(PeerAddress, name, address))),
    st.builds(Question, u64, st.integers(0, 3), namespace, rows(st.builds(Asked, u64, u64, value))),
    st.builds(
        Answer,
        u64,
        namespace,
        printable,
        u64,
        position,
        position,
        rows(st.builds(Holding, u64, st.integers(0, 4), u64, position, u64, u64, value)),
        rows(
            st.builds(
                JournalRow, u64, u64, word, word, name, u64, position, u32, word, word, printable, u64, u16
            )
        ),
    ),
    st.builds(Leave, printable, rows(st.builds(FinalHead, namespace, u64, position))),
)

plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary()
)

GOOD = Frame("shop", "web-1", 1, 5, 9, b"\x05")


def body(message) -> bytes:
    return encode(message)[5:]


def fed(data: bytes, bytes_max: int = FRAME_BYTES_MAX):
    return list(Decoder(bytes_max).feed(data))


@pytest.mark.fuzz
@given(messages)
def test_every_message_comes_back_as_it_was(message):
    (back,) = fed(encode(message))
    assert back == message
    assert type(back) is type(message)


@pytest.mark.fuzz
@given(st.lists(messages, max_size=6), st.data())
def test_messages_come_whole_however_the_bytes_are_cut(sent, data):
    stream = b"".join(map(encode, sent))
    decoder, came = Decoder(FRAME_BYTES_MAX), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        came += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert came == sent


@pytest.mark.fuzz
@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waits_for_more_and_never_anything_else(data):
    try:
        fed(data, bytes_max=1000)
    except FrameError as error:
        assert "link is closed" in str(error)


@pytest.mark.fuzz
@given(st.integers(0, 255), st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
))  # fmt: skip
def test_any_well_formed_msgpack_is_a_message_or_refused(number, value):
    try:
        message = decode(number, msgpack.packb(value))
    except FrameError:
        return
    assert frames.NUMBERS[type(message)] == number


@pytest.mark.fuzz
@given(messages, st.data())
def test_one_wrong_byte_is_refused_or_makes_another_valid_message(message, data):
    spoiled = bytearray(encode(message))
    at = data.draw(st.integers(4, len(spoiled) - 1))
    spoiled[at] ^= data.draw(st.integers(1, 255))
    try:
        (back,) = fed(bytes(spoiled))
    except FrameError:
        return
    assert fed(encode(back)) == [back]


def test_the_layout_is_a_length_a_type_and_a_list():
    data = encode(Replay("shop", "web-1", 3, 17))
    assert data[:5] == bytes([len(data) - 4, 0, 0, 0, 6])
    assert msgpack.unpackb(data[5:]) == ["shop", "web-1", 3, 17]


def test_a_length_beyond_the_bound_is_refused_before_its_bytes_are_awaited():
    with pytest.raises(FrameError, match="4096 are accepted"):
        fed((5000).to_bytes(4, "little") + b"\x01", bytes_max=4096)


def test_a_length_of_nothing_is_refused():
    with pytest.raises(FrameError):
        fed(bytes(5))


def test_the_bound_is_looked_at_for_each_message():
    decoder = Decoder(40)
    small, large = encode(Sync()), encode(Leave("x" * 100, ()))
    came = []
    for message in decoder.feed(small + large):
        came.append(message)
        decoder.bytes_max = 1000
    assert [type(message) for message in came] == [Sync, Leave]


def test_what_follows_a_refused_message_is_not_acted_upon():
    came = []
    with pytest.raises(FrameError):
        for message in Decoder(1000).feed(encode(Sync()) + b"\x02\0\0\0\x63\xc0" + encode(Sync())):
            came.append(message)
    assert came == [Sync()]


def test_a_message_too_large_for_the_wire_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="the wire takes"):
        encode(GOOD._replace(payload=bytes(FRAME_BYTES_MAX)))


@pytest.mark.parametrize(
    "fields",
    [
        ["shop", "web-1", 1, 5, 9],
        ["shop", "web-1", 1, 5, 9, b"", 0],
        ["sh op", "web-1", 1, 5, 9, b""],
        ["", "web-1", 1, 5, 9, b""],
        ["shop", "web/1", 1, 5, 9, b""],
        ["shop", b"web-1", 1, 5, 9, b""],
        ["shop", "web-1", -1, 5, 9, b""],
        ["shop", "web-1", True, 5, 9, b""],
        ["shop", "web-1", 1.0, 5, 9, b""],
        ["shop", "web-1", 1, 0, 9, b""],
        ["shop", "web-1", 1, 5, 2**63, b""],
        ["shop", "web-1", 1, 5, 4, b""],
        ["shop", "web-1", 1, 5, 9, "text"],
        ["shop", "web-1", 1, 5, 9, None],
        {"namespace": "shop"},
        "shop",
    ],
)
def test_a_frame_with_a_wrong_field_is_refused(fields):
    with pytest.raises(FrameError, match="malformed Frame"):
        decode(5, msgpack.packb(fields))


@pytest.mark.parametrize("fields", [["cachee", 1, "web-1"], ["cachee", 9, "web-1", 1, {}], ["cachee", 4]])
def test_a_hello_of_a_wire_that_is_not_spoken_is_refused_by_its_number_whatever_else_it_has(fields):
    with pytest.raises(FrameError, match=f"protocol {fields[1]} there; this bridge speaks 2 to 3.*upgrade"):
        decode(1, msgpack.packb(fields))


def test_a_message_of_a_newer_wire_is_unknown_in_an_older_one(monkeypatch):
    shape, _, check = frames.BODIES[10]
    monkeypatch.setitem(frames.BODIES, 10, (shape, 3, check))
    said = body(Follow(("web-1",)))
    assert decode(10, said) == Follow(("web-1",))
    with pytest.raises(FrameError, match="unknown type 10 in protocol 2"):
        decode(10, said, 2)


def test_a_proof_has_one_or_two_macs_and_a_peer_of_wire_2_may_send_it():
    for count in (1, 2):
        body = msgpack.packb([[b"m" * 32] * count])
        assert decode(frames.NUMBERS[Auth], body, 2) == Auth((b"m" * 32,) * count)
    for count in (0, 3):
        with pytest.raises(FrameError):
            decode(frames.NUMBERS[Auth], msgpack.packb([[b"m" * 32] * count]), 2)


def test_deep_nesting_is_refused():
    with pytest.raises(FrameError):
        decode(8, b"\x91" * 5000 + b"\xc0")


def test_the_core_reads_and_writes_frames_by_the_limits_of_the_wire():
    layout = Path(__file__).parents[2] / "cachee_shm" / "core" / "frame_layout.h"
    assigned = re.findall(r"^ +(FRAME_\w+) = ([^,]+),", layout.read_text(), re.MULTILINE)
    limits = {name: eval(value, {}) for name, value in assigned if "FRAME_" not in value}
    head = b"".join(map(msgpack.packb, ("n" * 64, "s" * 63, 2**64 - 1)))
    assert limits == {
        "FRAME_TYPE": frames.NUMBERS[Frame],
        "FRAME_PREFIX_BYTES": frames.PREFIX.size,
        "FRAME_SEAL_BYTES": SEAL_BYTES,
        "FRAME_BYTES_MAX": FRAME_BYTES_MAX,
        "FRAME_KEYS_BYTES_MAX": PACK_BYTES,
        "FRAME_HEAD_BYTES_MAX": 1 + len(head),
        "FRAME_UINT_BYTES_MAX": len(msgpack.packb(2**64 - 1)),
        "FRAME_BIN_HEADER_BYTES_MAX": len(msgpack.packb(bytes(2**16))) - 2**16,
    }
