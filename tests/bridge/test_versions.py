"""Two wires in one mesh: which one a link speaks, who may change that, and what the older one cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.links.link import Link
from cachee_bridge.links.states import LinkState
from cachee_bridge.links.versions import OFFER, RANDOM_BYTES, Encoder, agreed, greeting, lowered, newest_of
from cachee_bridge.ports.settings import Settings
from cachee_bridge.streams.stream import Packer
from cachee_bridge.wire.budget import Budget
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, SINCE, VERSION, VERSION_MIN, Decoder, encode
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    PAYLOAD_ALL_KNOWN,
    Auth,
    Doubt,
    Follow,
    Frame,
    Hello,
    Sync,
)
from cachee_shm.errors import AuthError, FrameError
from tests.bridge.link_ends import shake, words
from tests.bridge.meshes import SECRET, Cable, FakeStore, key

UNKNOWN = b"\x07" + bytes(8)
RECORDS = {1: 9, 2: 17, 3: 9, 4: 1, 5: 1, 7: 9, 8: 1}

LOWERED_TO = {7: 1, 8: 5}

record = st.sampled_from(sorted(RECORDS)).flatmap(
    lambda kind: st.binary(min_size=RECORDS[kind] - 1, max_size=RECORDS[kind] - 1).map(bytes([kind]).__add__)
)


def of_wire(newest: int, name: str = "a", secrets: tuple[bytes, ...] = ()) -> Hello:
    """What this release says when it offers no more than `newest`."""
    return greeting(Settings(newest_wire=newest, secrets=secrets), name, 1, name.encode() * RANDOM_BYTES)


def of_old_bridge(name: str = "b") -> Hello:
    """What a bridge of wire 2 says: its nonce is random to its end."""
    return Hello("cachee", 2, name, 2, bytes(range(32)), "none", "", "")


def link_of(hello: Hello, dials: bool, secrets: tuple[bytes, ...] = ()) -> Link:
    address = "there:1" if dials else None
    return Link(1, address, "10.0.0.9", hello, secrets, [], 100.0, Budget(1e9, 100.0))


class TestAgreement:
    def test_two_of_this_release_speak_the_newest_wire(self):
        assert agreed(of_wire(VERSION, "a"), of_wire(VERSION, "b")) == VERSION

    @pytest.mark.parametrize("theirs", [of_old_bridge(), of_wire(2, "b")])
    def test_with_a_bridge_of_wire_2_both_speak_that(self, theirs):
        assert agreed(of_wire(VERSION), theirs) == agreed(theirs, of_wire(VERSION)) == 2

    def test_a_later_release_that_still_speaks_this_wire_is_met_in_it(self):
        later = of_wire(VERSION, "b")._replace(
            version=VERSION, nonce=b"n" * RANDOM_BYTES + OFFER + bytes([VERSION + 1])
        )
        assert agreed(of_wire(VERSION), later) == VERSION

    @pytest.mark.parametrize(
        ("oldest", "newest", "late"),
        [
            (1, 1, "the other host"),
            (VERSION + 1, VERSION + 1, "this host"),
            (VERSION + 1, VERSION + 2, "this host"),
        ],
    )
    def test_without_a_wire_in_common_both_wires_are_named_and_who_is_to_be_upgraded(
        self, oldest, newest, late
    ):
        theirs = of_wire(VERSION)._replace(
            version=oldest, nonce=bytes(RANDOM_BYTES) + OFFER + bytes([newest])
        )
        with pytest.raises(FrameError, match=rf"protocol {oldest}.* speaks 2 to {VERSION}; .*upgrade {late}"):
            agreed(of_wire(VERSION), theirs)

    def test_an_offer_below_its_own_oldest_wire_is_refused(self):
        with pytest.raises(FrameError, match="offers protocol 3 to 2"):
            agreed(of_wire(VERSION), of_wire(2)._replace(version=3))

    def test_a_bridge_of_wire_2_reads_nothing_of_the_offer(self):
        hello = of_wire(VERSION)
        assert (hello.version, len(hello.nonce)) == (2, 32)
        assert newest_of(hello) == VERSION

    def test_nonces_of_this_release_differ_in_their_random_part(self):
        cable = Cable()
        node = cable.node("a")
        for number in range(10):
            node.mesh.link_opened(number, None, cable.now)
        nonces = {link.handshake.mine.nonce for link in node.mesh._links.by_number.values()}
        assert len({nonce[:RANDOM_BYTES] for nonce in nonces}) == 10
        assert {nonce[RANDOM_BYTES:] for nonce in nonces} == {OFFER + bytes([VERSION])}


class TestOnALink:
    @pytest.mark.parametrize("newest", [2, VERSION])
    def test_both_ends_and_their_decoders_speak_the_same(self, newest):
        dialler, acceptor = link_of(of_wire(VERSION, "a"), True), link_of(of_wire(newest, "b"), False)
        shake(dialler, acceptor)
        assert dialler.version == acceptor.version == newest
        assert dialler.decoder.version == acceptor.decoder.version == newest

    @pytest.mark.parametrize("changed", ["dialler", "acceptor", "both"])
    def test_an_offer_that_is_taken_away_on_the_way_breaks_the_proof(self, changed):
        """Both would speak wire 2 and be none the wiser."""
        dialler = link_of(of_wire(VERSION, "a", (SECRET,)), True, (SECRET,))
        acceptor = link_of(of_wire(VERSION, "b", (SECRET,)), False, (SECRET,))

        def on_the_way(hello: Hello, of: str) -> Hello:
            without = hello._replace(nonce=hello.nonce[:RANDOM_BYTES] + bytes(8))
            return without if changed in (of, "both") else hello

        acceptor.shake(on_the_way(words(dialler)[0], "dialler"))
        dialler.shake(on_the_way(words(acceptor)[0], "acceptor"))
        with pytest.raises(AuthError, match="does not know"):
            acceptor.shake(words(dialler)[0])
        assert acceptor.state is LinkState.AUTH

    def test_untouched_the_same_handshake_ends_in_the_newest_wire(self):
        dialler = link_of(of_wire(VERSION, "a", (SECRET,)), True, (SECRET,))
        acceptor = link_of(of_wire(VERSION, "b", (SECRET,)), False, (SECRET,))
        acceptor.shake(words(dialler)[0])
        dialler.shake(words(acceptor)[0])
        (proof,) = words(dialler)
        assert isinstance(proof, Auth)
        acceptor.shake(proof)
        assert acceptor.state is LinkState.PROVEN and acceptor.version == VERSION

    def test_what_wire_2_has_no_word_for_is_not_sent_on_it(self, monkeypatch):
        monkeypatch.setitem(SINCE, Follow, 3)
        dialler, acceptor = link_of(of_wire(VERSION, "a"), True), link_of(of_old_bridge(), False)
        shake(dialler, acceptor)
        dialler.send(Follow(("web-1",)))
        dialler.send(Sync())
        assert words(dialler) == [Sync()]


class TestLowering:
    def test_an_unknown_outcome_becomes_an_unconditional_eviction(self):
        frame = Frame("shop", "web-1", 1, 5, 9, key(7) + UNKNOWN + b"\x04" + UNKNOWN[:-1] + b"\x09")
        (older,) = fed(Encoder(2)(frame), 2)
        assert older == frame._replace(payload=key(7) + key(0) + b"\x04" + b"\x01" + bytes(7) + b"\x09")
        assert fed(Encoder(VERSION)(frame), VERSION) == [frame]

    @pytest.mark.parametrize("kind", [b"\x06", b"\x09"], ids=["in doubt", "known"])
    def test_a_map_of_buckets_does_not_say_that_no_outcome_is_unknown(self, kind):
        piece = Frame("shop", "web-1", 1, 5, 9, kind + b"\x01\x01" + b"\x07" * 50)
        assert lowered(piece, 2) == piece._replace(payload=b"\x06\x01\x01" + b"\x07" * 50)
        assert lowered(piece, VERSION) is piece

    def test_neither_does_what_stands_for_everything(self):
        everything = Frame("shop", "web-1", 1, 5, 9, PAYLOAD_ALL_KNOWN)
        assert lowered(everything, 2) == everything._replace(payload=PAYLOAD_ALL)
        assert lowered(Doubt(("shop",)), 2) is None

    @pytest.mark.fuzz
    @given(st.lists(record, max_size=20))
    def test_nothing_but_these_kinds_is_changed(self, records):
        expected = [bytes((LOWERED_TO.get(one[0], one[0]),)) + one[1:] for one in records]
        older = lowered(Frame("shop", "web-1", 1, 5, 9, b"".join(records)), 2)
        assert isinstance(older, Frame) and older.payload == b"".join(expected)

    def test_what_several_links_are_sent_is_said_once(self):
        frame = Packer(FakeStore(), "shop", "web-1").frame("shop", "web-1", 5, 9, UNKNOWN)
        encoder = Encoder(2)
        assert encoder(frame) is encoder(frame)


class TestMesh:
    def test_each_pair_speaks_the_newest_wire_that_both_have(self):
        cable = Cable()
        new, old, other = cable.node("a"), cable.node("b", ("a",), newest_wire=2), cable.node("c", ("a", "b"))
        cable.run(0.3)
        spoken = {
            (node.name, link.name): link.version
            for node in (new, old, other)
            for link in node.mesh._links.up.values()
        }
        assert spoken == {
            ("a", "b"): 2,
            ("b", "a"): 2,
            ("b", "c"): 2,
            ("c", "b"): 2,
            ("a", "c"): VERSION,
            ("c", "a"): VERSION,
        }

    def writes_unknown(self, node):
        """As a release would whose segment packs it: this one's does not."""
        packs = node.store.pack

        def pack(*asked):
            to, payload = packs(*asked)
            return to, payload.replace(key(0), UNKNOWN)

        node.store.pack = pack
        node.write(key(0))

    def test_a_write_of_unknown_outcome_reaches_both_kinds_of_hosts(self):
        cable = Cable()
        new, old = cable.node("a"), cable.node("b", ("a",), newest_wire=2)
        other = cable.node("c", ("a",))
        cable.run(0.3)
        self.writes_unknown(new)
        cable.run(0.3)
        assert old.store.payloads()[-1] == key(0)
        assert other.store.payloads()[-1] == UNKNOWN

    def test_what_is_relayed_is_said_in_the_wire_of_each_link(self):
        cable = Cable()
        source, relay = cable.node("a", ("b", "c")), cable.node("b", ("c",))
        old = cable.node("c", newest_wire=2)
        cable.run(0.3)
        cable.cut.add(frozenset(("a", "c")))
        cable.run(4.0)
        assert relay.mesh._paths is not None and old.state_of("a") == "relayed"
        self.writes_unknown(source)
        cable.run(0.5)
        assert relay.store.payloads()[-1] == UNKNOWN
        assert old.store.payloads()[-1] == key(0)

    def test_a_bridge_of_wire_1_is_turned_away_with_a_line_that_says_why(self):
        cable = Cable()
        node = cable.node("a")
        node.mesh.link_opened(99, None, cable.now, "10.0.0.9")
        node.mesh.effects()
        node.mesh.received(99, encode(of_old_bridge()._replace(version=1)), cable.now)
        cable.settle()
        assert "protocol 1 there; this bridge speaks 2 to 3" in node.closed[-1]
        assert node.state_of("b") == "unknown"


def fed(data: bytes, version: int) -> list[object]:
    decoder = Decoder(FRAME_BYTES_MAX)
    decoder.version = version
    return list(decoder.feed(data))


def test_a_release_speaks_two_wires():
    assert VERSION == VERSION_MIN + 1
