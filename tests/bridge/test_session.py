"""What a peer may say on a link that is up, one message at a time."""

import pytest

from cachee_bridge.links.stamps import microseconds
from cachee_bridge.ports.effects import GoOn, Send
from cachee_bridge.ports.reasons import Reason
from cachee_bridge.ports.settings import Settings
from cachee_bridge.protocol.incarnations import RAISE_S
from cachee_bridge.protocol.meeting import NAMESPACES_MAX
from cachee_bridge.protocol.rounds import GOSSIP_S
from cachee_bridge.streams import buckets
from cachee_bridge.streams.buckets import EVICT_WORDS, read_piece
from cachee_bridge.wire.budget import MESSAGE_BYTES
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder, encode
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    ROWS_MAX,
    Beat,
    Cursor,
    FinalHead,
    Frame,
    Head,
    Hello,
    Leave,
    NamespaceState,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import SegmentError
from tests.bridge.meshes import Cable, FakeStore, Node, key


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
            else:
                self.cable._one(self.node, effect)
        self.node.mesh.writable(1, self.cable.now)
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


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.tick()
    return made


def kinds(messages):
    return [type(message) for message in messages]


def test_a_source_is_asked_for_what_comes_after_its_cursor():
    assert Peer().heard[-1] == Replay("shop", "web-2", 4, 21)


def test_a_state_is_as_good_as_an_echo_of_the_hello(peer):
    assert not peer.node.isolated()


def test_a_gap_is_told_and_counted(peer):
    peer.frame(25, 26, key(1))
    assert "web-2, namespace shop: what follows 20 has not come; asked for again" in peer.node.texts("info")
    assert peer.view.repairs.replays == 1


def test_a_gap_is_asked_for_and_not_applied(peer):
    assert peer.frame(25, 26, key(1)) == [Replay("shop", "web-2", 4, 21)]
    assert (peer.cursor, key(1) in peer.store.payloads()) == (20, False)


def test_frames_behind_a_gap_are_not_asked_for_each(peer):
    peer.frame(25, 26)
    assert peer.frame(27, 30) == []


def test_a_frame_of_another_source_closes_the_link(peer):
    peer.say(Frame("shop", "web-3", 4, 21, 22, key(1)))
    assert peer.closed
    assert key(1) not in peer.store.payloads()


def test_a_frame_of_a_namespace_that_is_not_shared_closes_the_link(peer):
    peer.say(Frame("news", "web-2", 4, 21, 22, key(1)))
    assert peer.closed


def test_a_beat_about_another_source_closes_the_link(peer):
    peer.say(Beat(1, 0, (Head("shop", "web-3", 4, 9, 0, 0),), ()))
    assert peer.closed


def test_a_replay_of_another_source_closes_the_link(peer):
    peer.say(Replay("shop", "web-3", 4, 1))
    assert peer.closed


def test_a_second_hello_closes_the_link(peer):
    peer.say(Hello("cachee", 2, "web-2", 5, bytes(32), "none", "", ""))
    assert peer.closed


def test_a_request_is_answered_from_the_ring(peer):
    peer.store.write(key(1), key(2))
    first = peer.store.tail - 1
    assert peer.say(Replay("shop", "web-1", 7, first)) == [
        Frame("shop", "web-1", 7, first, first + 1, key(1) + key(2))
    ]


def test_what_is_sent_for_the_first_time_is_charged_to_nobody_and_what_is_asked_for_again_is(peer):
    budget = peer.node.mesh._links.by_number[1].throttle.budget
    peer.say(Replay("shop", "web-1", 7, 1))
    before = budget.owed
    assert [len(peer.write(key(number))) for number in (1, 2, 3)] == [1, 1, 1]
    assert budget.owed == before
    request = Replay("shop", "web-1", 7, 1)
    (again,) = peer.say(request)
    came, positions = MESSAGE_BYTES + len(encode(request)), peer.store.tail
    assert budget.owed - before == came + positions + len(again.payload)


def test_what_the_peer_has_not_acknowledged_is_told_at_each_heartbeat_until_it_has(peer):
    def told():
        peer.cable.now += Settings().heartbeat_s
        return any(isinstance(message, Beat) and message.heads for message in peer.tick())

    peer.say(Replay("shop", "web-1", 7, 1))
    peer.write(key(1))
    told()
    assert all(told() for _ in range(5))
    peer.beat(20, (Cursor("shop", "web-1", 7, peer.store.tail, "web-2"),))
    told()
    assert [told() for _ in range(5)].count(True) <= 1  # a calm one


def test_a_request_for_a_lapped_range_is_answered_by_a_map(peer):
    peer.store.write(*[key(number) for number in range(200)])
    (answer,) = peer.say(Replay("shop", "web-1", 7, 1))
    assert (answer.first, answer.last) == (1, peer.store.tail)
    assert answer.payload == read_piece(peer.store, 0, 1)
    assert f"web-2, namespace shop: lapped; a map of buckets stands for 1..{answer.last}" in peer.node.texts(
        "info"
    )
    assert peer.view.lapped == 1


def test_a_map_is_applied_in_two_steps_where_the_index_is_small(peer):
    peer.store.write(key(1))
    peer.store.hold(1)
    assert peer.frame(21, 90, peer.map()) == []
    peer.finish()
    assert (peer.cursor, peer.store.mended) == (90, [(1, peer.store.map)])
    assert "lapped; what it may have written up to 90 is evicted: 1 entries" in peer.node.texts("info")
    assert peer.view.repairs.maps == 1


def test_a_map_of_which_a_link_brought_one_half_is_not_completed_on_the_next_link(peer, monkeypatch):
    monkeypatch.setattr(buckets, "PIECE_BYTES", 2)
    first, second = (read_piece(peer.store, 0, number) for number in (1, 2))
    peer.frame(21, 90, first)
    peer.meet()
    peer.frame(21, 90, second)
    peer.finish()
    assert peer.cursor == 20
    peer.frame(21, 90, first)
    peer.frame(21, 90, second)
    peer.finish()
    assert peer.cursor == 90


def test_where_it_is_large_other_work_is_done_between_its_parts(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    assert peer.node.mesh.effects() == [GoOn()]
    assert peer.frame(91, 92, key(1)) == []
    assert peer.cursor == 20
    for _ in range(2):
        peer.node.mesh.go_on(peer.cable.now)
        assert (peer.cursor, peer.node.mesh.effects()) == (20, [GoOn()])
    peer.node.mesh.go_on(peer.cable.now)
    assert peer.cursor == 90
    assert peer.hear() == [Replay("shop", "web-2", 4, 91)]
    peer.frame(91, 92, key(1))
    assert (peer.cursor, peer.store.payloads()[-1]) == (92, key(1))


def test_a_map_goes_on_being_applied_when_its_link_has_closed(peer):
    peer.store.words = 2 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.link_closed(1, "broken", peer.cable.now)
    peer.finish()
    assert peer.cursor == 90
    assert GoOn() not in peer.node.mesh.effects()


def test_a_map_of_a_life_that_is_over_is_gone_on_with_no_more(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.received(1, encode(State((NamespaceState("shop", 5, 3, 7),))), peer.cable.now)
    peer.hear()
    peer.node.mesh.go_on(peer.cable.now)
    assert GoOn() not in peer.node.mesh.effects()
    assert peer.cursor == 3
    assert peer.view.repairs.maps == 0


def test_a_map_of_a_peer_that_was_removed_meanwhile_is_gone_on_with_no_more(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.link_closed(1, "broken", peer.cable.now)
    peer.node.mesh.forget("web-2", peer.cable.now)
    for _ in range(2):  # lost, then removed
        peer.cable.now += 100.0
        peer.node.mesh.tick(peer.cable.now)
    assert peer.cursor is None
    peer.node.mesh.effects()
    peer.node.mesh.go_on(peer.cable.now)
    assert GoOn() not in peer.node.mesh.effects()


def test_a_map_that_is_none_closes_the_link_and_moves_nothing(peer):
    peer.store.map = b"\xff"
    peer.frame(21, 90, peer.map())
    assert peer.closed
    assert peer.cursor == 20


def test_who_left_is_let_go_when_its_map_is_applied(peer):
    peer.store.words = 2 * EVICT_WORDS
    peer.say(Leave("leaves", (FinalHead("shop", 4, 90),)))
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    assert peer.cursor == 20
    peer.finish()
    assert peer.cursor is None


def test_when_nothing_tells_what_was_missed_all_is_evicted_aloud(peer):
    peer.frame(21, 90, PAYLOAD_ALL)
    assert "nothing is left that would tell what was missed up to 90; evicted all" in peer.node.texts(
        "warning"
    )
    assert peer.view.repairs.flushes == 2


def test_whatever_else_comes_is_applied_or_dropped_without_a_word(peer):
    peer.frame(21, 22, key(1) + key(2))
    peer.frame(23, 24)
    said = len(peer.node.said)
    peer.frame(21, 22, key(1) + key(2))  # again
    peer.frame(25, 25, key(3))
    peer.frame(21, 25, PAYLOAD_ALL)  # again, in other words
    assert peer.cursor == 25
    assert len(peer.node.said) == said


def test_a_request_to_a_former_incarnation_is_not_answered(peer):
    peer.store.write(key(1))
    assert peer.say(Replay("shop", "web-1", 6, 1)) == []
    assert not peer.closed


@pytest.mark.parametrize("incarnation_and_first", [(8, 1), (7, 1000)])
def test_a_request_that_knows_more_than_this_host_wrote_raises_the_incarnation(peer, incarnation_and_first):
    incarnation = incarnation_and_first[0]
    answer = peer.say(Replay("shop", "web-1", *incarnation_and_first))
    assert peer.store.incarnation > incarnation
    assert answer == [State((NamespaceState("shop", peer.store.incarnation, peer.store.tail, 7),))]
    assert not peer.closed


def test_so_does_a_cursor_in_a_beat_at_most_once_a_second(peer):
    peer.beat(20, cursors=(Cursor("shop", "web-1", 7, 1000, "web-2"),))
    first = peer.store.incarnation
    assert first > 7
    peer.say(Replay("shop", "web-1", first + 1, 1))
    assert peer.store.incarnation == first
    peer.cable.now += RAISE_S
    peer.say(Replay("shop", "web-1", first + 1, 1))
    assert peer.store.incarnation > first + 1
    assert not peer.closed


def test_what_was_acknowledged_under_the_former_incarnation_counts_no_more(peer):
    peer.store.write(key(1))
    peer.beat(20, cursors=(Cursor("shop", "web-1", 7, 1, "web-2"),))
    link = peer.node.mesh._links.by_number[1]
    assert link.acked == {"shop": 1}
    peer.say(Replay("shop", "web-1", 8, 1))
    assert link.acked == {}
    assert peer.store.acked == {}
    assert not link.outboxes["shop"].asked


def test_an_incarnation_with_none_above_it_is_a_lie_and_changes_nothing(peer):
    for _ in range(3):
        assert peer.say(Replay("shop", "web-1", 2**64 - 1, 1)) == []
    assert peer.store.incarnation == 7
    assert peer.node.texts("error").count("none is higher") == 1
    assert not peer.closed


def test_a_head_beyond_the_cursor_makes_nothing_fresh_until_it_is_applied(peer):
    peer.cable.now += 1.0
    peer.tick()
    was = peer.node.serve_until["shop"]
    peer.beat(22)
    peer.tick()
    assert peer.node.serve_until["shop"] == was
    peer.frame(21, 22, key(1))
    peer.tick()
    assert peer.node.serve_until["shop"] > was


def test_a_head_that_stays_beyond_the_cursor_for_some_beats_is_asked_for_once(peer):
    answers = [peer.beat(22) for _ in range(8)]
    assert [answer for answer in answers if answer] == [[Replay("shop", "web-2", 4, 21)]]


def test_a_source_that_never_answers_costs_its_link(peer):
    for _ in range(100):
        peer.cable.now += 0.5
        peer.tick()
        if peer.closed:
            break
        peer.beat(22)
    assert "has not sent namespace shop from 21 on" in peer.node.texts("error")


def test_a_beat_of_a_higher_incarnation_flushes_once(peer):
    peer.store.applied.clear()
    peer.beat(3, incarnation=5)
    peer.frame(4, 4, key(1), incarnation=5)
    assert peer.store.payloads() == [PAYLOAD_ALL, key(1)]
    assert peer.store.table[1] == ("web-2", 5, 4)


def test_what_a_former_incarnation_still_says_is_dropped(peer):
    peer.beat(3, incarnation=5)
    peer.frame(21, 22, key(1), incarnation=4)
    peer.beat(99, incarnation=4)
    assert peer.store.table[1] == ("web-2", 5, 3)
    assert key(1) not in peer.store.payloads()


def test_a_sync_is_answered_by_a_beat_with_cursors(peer):
    peer.frame(21, 22)
    (beat,) = peer.say(Sync())
    assert beat.cursors == (Cursor("shop", "web-2", 4, 22, "web-1"),)
    assert beat.heads == (Head("shop", "web-1", 7, peer.store.tail, 0, 0),)


def test_a_beat_says_the_tail_of_the_ring_and_not_how_far_it_was_healed(peer):
    peer.store.announce(key(1), key(2))
    (beat,) = peer.say(Sync())
    assert beat.heads[0].head == peer.store.tail > peer.store.pump_cursor


def test_a_beat_echoes_the_newest_stamp(peer):
    peer.say(Beat(77, 0, (), ()))
    (beat,) = peer.say(Sync())
    assert beat.echo == 77


def test_a_farewell_is_acknowledged_at_once_and_counts_when_all_is_applied(peer):
    (beat,) = peer.say(Leave("leaves", (FinalHead("shop", 4, 22),)))
    assert beat.cursors == (Cursor("shop", "web-2", 4, 20, "web-1"),)
    assert peer.cursor == 20
    peer.frame(21, 22, key(1))
    assert peer.cursor is None
    (beat,) = peer.say(Sync())
    assert beat.cursors == (Cursor("shop", "web-2", 4, 22, "web-1"),)


def test_who_writes_after_its_farewell_counts_again(peer):
    peer.say(Leave("leaves", (FinalHead("shop", 4, 20),)))
    assert peer.cursor is None
    peer.frame(21, 21, key(1))
    assert peer.cursor == 21
    assert peer.store.payloads()[-1] == key(1)


def test_beats_after_a_farewell_do_not_bring_it_back(peer):
    peer.say(Leave("leaves", (FinalHead("shop", 4, 20),)))
    peer.beat(20)
    assert peer.cursor is None


def test_a_full_source_table_is_told_and_isolates():
    def full(name):
        raise SegmentError("the source table is full")

    cable = Cable()
    store = FakeStore()
    store.source_open = full
    a = cable.node("a", ("a", "b"), {"shop": store})
    cable.node("b", ("a", "b"))
    cable.run(3.0)
    assert "table is full" in a.texts("error")
    assert a.isolated()


def test_it_is_met_again_when_there_is_room(monkeypatch):
    cable = Cable()
    store = FakeStore()
    opens, store.source_open = store.source_open, None

    def full(name):
        raise SegmentError("the source table is full")

    store.source_open = full
    a = cable.node("a", ("a", "b"), {"shop": store})
    cable.node("b", ("a", "b"))
    cable.run(3.0)
    assert a.isolated()
    store.source_open = opens
    cable.run(GOSSIP_S)
    assert not a.isolated()


def test_a_peer_with_namespaces_without_end_is_not_remembered_whole(peer):
    link = peer.node.mesh._links.by_number[1]
    for number in range(2 * NAMESPACES_MAX // ROWS_MAX):
        rows = (NamespaceState(f"n{number}-{row}", 1, 0, 7) for row in range(ROWS_MAX))
        peer.say(State(tuple(rows)))
    assert len(link.theirs) == NAMESPACES_MAX
    assert peer.node.texts("error").count(f"more than {NAMESPACES_MAX} namespaces") == 1
    assert not peer.closed


def test_the_late_word_of_a_host_that_came_back_as_another_is_no_news(peer):
    mesh, now = peer.node.mesh, peer.cable.now

    def opens(link, instance, incarnation):
        for message in (
            Hello("cachee", 2, "web-3", instance, bytes(32), "none", "", ""),
            State((NamespaceState("shop", incarnation, 20, 7),)),
        ):
            mesh.received(link, encode(message), now + 0.2)

    mesh.link_opened(2, None, now, "10.0.0.3")
    mesh.link_opened(3, None, now + 0.1, "10.0.0.3")
    opens(3, 8, 5)
    mesh.link_closed(3, "reset", now + 0.2)
    opens(2, 7, 4)
    peer.hear()
    assert peer.node.closed == ["another bridge of that name was up meanwhile; come again"]
    assert not peer.node.texts("error")
    assert not mesh._session.namespaces.members["shop"].refused
    mesh.link_opened(4, None, now + 0.3, "10.0.0.3")
    opens(4, 7, 6)
    assert "web-3" in mesh._links.up


def test_those_refused_under_ever_new_names_are_not_all_kept(peer, monkeypatch):
    monkeypatch.setattr("cachee_bridge.sources.members.REFUSED_MAX", 3)
    members = peer.node.mesh._session.namespaces.members["shop"]
    for number in range(9):
        members.refuse(f"n{number}", Reason.HASH_KEY)
    assert set(members.refused) == {"n0", "n1", "n2"}
