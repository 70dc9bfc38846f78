"""Meshes joined in memory: which hosts are linked, what reaches which host, and when a host is isolated."""

import itertools

import pytest

from cachee_bridge.ports.effects import Connect, Send, ServeUntil, TickSoon
from cachee_bridge.streams.buckets import EVICT_WORDS, read_piece
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import HOLDS, PAYLOAD_ALL_KNOWN, Frame, Hello
from cachee_shm.errors import AuthError
from tests.bridge.meshes import SECRET, Cable, FakeStore, key, three, two
from tests.stand_in.ring import Shape


@pytest.fixture
def cable() -> Cable:
    return Cable()


class TestOneWrite:
    def test_reaches_every_peer(self, cable):
        a, b, c = three(cable)
        a.write(key(7))
        assert b.store.payloads()[-1] == c.store.payloads()[-1] == key(7)
        assert b.store.cursor_of("a") == a.store.tail

    def test_maps_of_two_lapped_rings_are_applied_in_turn(self, cable):
        a, b, c = three(cable)
        a.store.words, parts = 3 * EVICT_WORDS, []
        evict_map = a.store.evict_map
        a.store.evict_map = lambda source, *rest: parts.append(source) or evict_map(source, *rest)
        links = {cable.ends[there][0]: there for node, there in cable.ends.values() if node is a}
        for node in (b, c):
            last, map_ = node.store.tail + 50, read_piece(node.store, 0, 1)
            frame = Frame("shop", node.name, node.store.incarnation, 1, last, map_)
            a.mesh.received(links[node], encode(frame), cable.now)
        cable.settle()
        assert parts == parts[:2] * 3
        assert a.store.cursor_of("b") == b.store.tail + 50
        assert a.store.cursor_of("c") == c.store.tail + 50

    def test_is_not_sent_on_by_those_it_reached(self, cable):
        a, b, c = three(cable)
        for node in (b, c):
            node.store.applied.clear()
        a.write(key(7))
        cable.run(1.0)
        assert b.store.payloads() == c.store.payloads() == [key(7)]

    def test_reaches_peers_with_a_secret(self, cable):
        a, b = two(cable, secrets=(SECRET,))
        a.write(key(7))
        assert b.store.payloads()[-1] == key(7)

    def test_stays_in_its_namespace(self, cable):
        nodes = [
            cable.node(name, ("a", "b"), {"shop": FakeStore(), "news": FakeStore()}) for name in ("a", "b")
        ]
        cable.run(1.0)
        nodes[1].stores["shop"].applied.clear()
        nodes[1].stores["news"].applied.clear()
        nodes[0].write(key(7), namespace="news")
        assert nodes[1].stores["news"].payloads() == [key(7)]
        assert nodes[1].stores["shop"].payloads() == []

    def test_made_while_the_link_was_down_arrives_after_it(self, cable):
        a, b = two(cable)
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.write(key(7))
        cable.run(1.0)
        assert key(7) not in b.store.payloads()
        cable.cut.clear()
        cable.run(1.0)
        assert b.store.payloads()[-1] == key(7)

    def test_that_was_lapped_meanwhile_is_made_good_by_a_map_of_buckets(self, cable):
        a, b = two(cable)
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.write(*[key(number) for number in range(200)])
        b.store.applied.clear()
        cable.cut.clear()
        cable.run(1.0)
        assert (b.store.payloads(), b.store.mended) == ([], [(1, a.store.map)])
        assert b.store.cursor_of("a") == 200 + 1  # and the record of b's own first contact in a's ring

    def test_lost_on_a_link_that_stays_up_is_noticed_by_the_next_beats_and_asked_for(self, cable):
        a, b = two(cable)
        cable.deaf.add(("a", "b"))
        a.write(key(7))
        cable.deaf.clear()
        assert key(7) not in b.store.payloads()
        cable.run(1.0)
        assert b.store.payloads()[-1] == key(7)

    def test_after_a_lost_one_does_not_hide_the_gap(self, cable):
        a, b = two(cable)
        cable.deaf.add(("a", "b"))
        a.write(key(7))
        cable.deaf.clear()
        a.write(key(8))
        assert key(7) + key(8) in b.store.payloads() or key(7) in b.store.payloads()


class TestARestartOfTheBridge:
    def restart(self, cable, node):
        cable.remove(node)
        for other in cable.nodes.values():
            cable.break_link(other, node)
        return cable.node(node.name, ("a", "b"), node.stores)

    def test_goes_on_from_the_cursors_in_the_segment_and_evicts_nothing(self, cable):
        a, b = two(cable)
        a.write(key(1))
        b.store.applied.clear()
        b = self.restart(cable, b)
        cable.run(1.0)
        assert b.store.applied == []
        a.write(key(2))
        assert b.store.payloads() == [key(2)]

    def test_misses_nothing_that_was_written_meanwhile(self, cable):
        a, b = two(cable)
        cable.remove(b)
        cable.break_link(a, b)
        b.store.applied.clear()
        a.write(key(1))
        a.write(key(2))
        b = cable.node("b", ("a", "b"), b.stores)
        cable.run(1.0)
        assert b"".join(b.store.payloads()) == key(1) + key(2)

    def test_sends_what_was_written_meanwhile_at_home(self, cable):
        a, b = two(cable)
        cable.remove(b)
        cable.break_link(a, b)
        b.store.write(key(1))
        cable.node("b", ("a", "b"), b.stores)
        cable.run(1.0)
        assert a.store.payloads()[-1] == key(1)


class TestAnotherIncarnation:
    def test_evicts_all_because_what_the_former_one_wrote_last_is_unknown(self, cable):
        a, b = two(cable)
        cable.remove(b)
        cable.break_link(a, b)
        a.store.applied.clear()
        cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})
        cable.run(1.0)
        assert a.store.payloads() == [PAYLOAD_ALL_KNOWN]

    def test_of_a_namespace_made_anew_under_a_running_bridge_is_told_at_once(self, cable):
        a, b = two(cable)
        a.stores["shop"] = FakeStore(incarnation=2)
        a.mesh.add_namespace("shop", a.store, cable.now)
        cable.settle()
        a.write(key(9))
        assert b.store.payloads()[-2:] == [PAYLOAD_ALL_KNOWN, key(9)]
        b.write(key(8))
        assert a.store.payloads()[-1] == key(8)


class TestIsolation:
    def test_a_host_without_peers_is_not_isolated(self, cable):
        a = cable.node("a")
        cable.run(10.0)
        assert not a.isolated()

    def test_nor_is_one_whose_only_peer_is_itself(self, cable):
        a = cable.node("a", ("a",))
        cable.run(1.0)
        assert not a.isolated()
        assert a.state_of("a") == "self"
        assert a.texts("warning", "error") == ""

    def test_linked_hosts_are_not(self, cable):
        a, b, c = three(cable)
        cable.run(5.0)
        assert not (a.isolated() or b.isolated() or c.isolated())

    def test_a_configured_host_that_nobody_has_heard_of_isolates(self, cable):
        a = cable.node("a", ("a", "b"))
        cable.run(3.0)
        assert a.isolated()
        assert a.serve_until == {}

    def test_two_configured_addresses_may_be_one_host(self, cable):
        b = cable.node("b")
        cable.nodes["b.example"] = b
        a = cable.node("a", ("b", "b.example"))
        cable.run(1.0)
        assert not a.isolated()
        assert [peer.name for peer in a.mesh.views.peers() if peer.state == "up"] == ["b"]

    def test_a_silent_peer_isolates_after_lost_after_and_not_before(self, cable):
        a, _ = two(cable)
        cable.deaf = {("a", "b"), ("b", "a")}
        cable.run(1.5)
        assert not a.isolated()
        cable.run(1.0)
        assert a.isolated()
        assert "nothing fresh from b" in a.texts("warning")

    def test_a_link_that_carries_one_direction_only_makes_nobody_fresh(self, cable):
        a, b = two(cable)
        cable.deaf = {("a", "b")}
        cable.run(2.5)
        assert a.isolated()
        assert b.isolated()

    def test_it_never_ends_by_time(self, cable):
        a, b = two(cable)
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        cable.run(60.0)
        assert a.isolated()

    def test_it_ends_by_reconciling(self, cable):
        a, b = two(cable)
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.write(key(3))
        cable.run(5.0)
        cable.cut.clear()
        cable.run(1.0)
        assert key(3) in b.store.payloads()
        assert not a.isolated()
        assert not b.isolated()
        assert "no longer isolated" in b.texts("info")

    def test_it_begins_by_itself_when_the_bridge_hangs(self, cable):
        a, b = two(cable)
        cable.remove(a)
        cable.now += 2.1
        assert a.isolated()
        assert b.isolated()

    def test_a_bridge_that_beats_but_does_not_pump_isolates_its_peers_and_itself(self, cable):
        a, b = two(cable)
        a.store.announce(key(1))  # written, and never healed: pump_cursor stays
        cable.run(2.5)
        assert b.isolated()
        assert a.isolated()
        assert "its own pump" in a.texts("warning")

    def test_a_restart_shorter_than_lost_after_isolates_nobody(self, cable):
        a, b = two(cable)
        was = b.serve_until["shop"]
        cable.remove(b)
        cable.break_link(a, b)
        b = cable.node("b", ("a", "b"), b.stores)
        b.serve_until["shop"] = was
        for _ in range(20):
            cable.run(0.05)
            assert not b.isolated()
            assert not a.isolated()

    def test_it_is_of_one_namespace_and_not_of_another(self, cable):
        a = cable.node("a", ("a", "b"), {"shop": FakeStore(), "news": FakeStore()})
        b = cable.node("b", ("a", "b"), {"shop": FakeStore(), "news": FakeStore()})
        cable.run(1.0)
        b.stores["news"].announce(key(1))  # written, and never healed
        cable.run(2.5)
        assert a.isolated("news")
        assert not a.isolated("shop")

    def test_a_namespace_under_another_hash_key_is_refused_aloud_and_isolated(self, cable):
        a = cable.node("a", ("a", "b"))
        other = FakeStore()
        other.hash_key_fingerprint = 8
        b = cable.node("b", ("a", "b"), {"shop": other})
        cable.run(3.0)
        assert "hash key differs" in a.texts("error")
        assert a.isolated()
        assert b.isolated()
        a.write(key(1))
        assert b.store.applied == []

    def test_a_namespace_that_only_one_host_has_isolates_nobody(self, cable):
        a = cable.node("a", ("a", "b"), {"shop": FakeStore(), "news": FakeStore()})
        cable.node("b", ("a", "b"))
        cable.run(1.0)
        assert not a.isolated("shop")
        assert not a.isolated("news")


class TestMembership:
    def test_one_reachable_peer_is_enough_to_meet_the_rest(self, cable):
        cable.node("a")
        b, c = cable.node("b", ("a",)), cable.node("c", ("a",))
        cable.run(2.0)
        assert (b.state_of("c"), c.state_of("b")) == ("up", "up")
        b.write(key(1))
        assert c.store.payloads()[-1] == key(1)

    def test_a_host_that_joins_is_met_by_all_and_empties_no_cache(self, cable):
        nodes = three(cable)
        for node in nodes:
            node.store.applied.clear()
        d = cable.node("d", ("a",))
        cable.run(2.0)
        assert [node.state_of("d") for node in nodes] == ["up"] * 3
        assert [node.store.applied for node in nodes] == [[]] * 3
        d.write(key(1))
        assert [node.store.payloads() for node in nodes] == [[key(1)]] * 3

    def test_a_lost_peer_is_dialled_until_it_is_back(self, cable):
        a, b = two(cable)
        cable.remove(b)
        cable.break_link(a, b)
        cable.run(20.0)
        assert len(a.dialled) > 20
        cable.node("b", ("a", "b"), b.stores)
        cable.run(1.0)
        assert a.state_of("b") == "up"


class TestBadBytes:
    def stranger(self, cable, node, data):
        node.mesh.link_opened(99, None, cable.now, "10.0.0.9")
        node.mesh.received(99, data, cable.now)
        cable.settle()

    def test_close_their_link_and_no_other(self, cable):
        a, b = two(cable)
        self.stranger(cable, b, b"GET / HTTP/1.1\r\n\r\n")
        assert "are accepted now" in b.texts("debug")
        a.write(key(1))
        assert b.store.payloads()[-1] == key(1)

    def test_of_a_peer_are_told_with_its_name(self, cable):
        a, b = two(cable)
        link = next(number for number, (other, _) in cable.ends.items() if other is a)
        b.mesh.received(link, encode(Hello("cachee", 2, "a", 1, bytes(32), "none", "", "")), cable.now)
        cable.settle()
        assert any(log.level == "error" and log.fields.get("peer") == "a" for log in b.said)

    def test_in_a_payload_evict_nothing_and_leave_the_cursor(self, cable):
        a, b = two(cable)
        before = (b.store.cursor_of("a"), list(b.store.applied))
        a.store.pack = lambda cursor, records, room: (cursor + 1, b"\xff")
        a.write(key(1))
        assert "does not parse" in b.texts("error")
        assert (b.store.cursor_of("a"), b.store.applied) == before

    def test_of_another_secret_are_told_and_nothing_is_relayed(self, cable):
        a = cable.node("a", ("a", "b"), secrets=(SECRET,))
        b = cable.node("b", ("a", "b"), secrets=(b"not the same secret",))
        cable.run(1.0)
        assert "does not know this host's secret" in a.texts() + b.texts()
        a.write(key(1))
        assert b.store.applied == []


class TestBounds:
    def test_a_peer_whose_socket_is_full_costs_an_allowance_and_no_more(self, cable):
        a, b = two(cable)
        link = next(number for number, (other, _) in cable.ends.items() if other is b)
        a.mesh.effects()
        sent = 0
        for number in range(3000):
            a.store.write(*[key(number)] * 50)
            a.mesh.ring_moved("shop", cable.now)
            a.mesh.tick(cable.now + number)
            sent += sum(
                len(effect.data)
                for effect in a.mesh.effects()
                if isinstance(effect, Send) and effect.link == link
            )
        assert sent < 2 * 256 * 1024 + 1024

    def test_a_full_socket_delays_writes_and_does_not_isolate_who_fills_it(self, cable):
        a, b = two(cable)
        cable.full.add("a")
        a.store.shape = Shape(ring_slots=1 << 17)
        for number in range(30):
            a.write(*[key(2000 * number + each) for each in range(2000)])
        cable.run(4.0)
        assert b.store.cursor_of("a") < a.store.tail
        assert b.isolated()
        assert not a.isolated()
        cable.full.clear()
        link = next(back for other, back in cable.ends.values() if other is a)
        a.mesh.writable((link,), cable.now)
        cable.settle()
        assert b.store.cursor_of("a") == a.store.tail  # at once, not with the next beat
        cable.run(0.5)
        assert not b.isolated()

    def test_a_short_secret_is_refused(self, cable):
        with pytest.raises(AuthError):
            cable.node("a", secrets=(b"short",))


class TestTheShellsSide:
    def test_effects_are_returned_once(self, cable):
        a = cable.node("a", ("b",))
        a.mesh.tick(cable.now)
        assert Connect("b:1") in a.mesh.effects()
        assert a.mesh.effects() == []

    def calm(self, cable):
        a, b = two(cable)
        cable.run(2.0)
        cable.now += 0.01
        self.next_tick(cable, a)
        self.next_tick(cable, b)
        a.soon = b.soon = 0
        return a, b

    def next_tick(self, cable, node):
        due = node.mesh.tick(cable.now)
        cable.settle()
        return due - cable.now

    def test_where_all_is_calm_the_next_tick_is_due_with_the_next_calm_beats(self, cable):
        a, b = self.calm(cable)
        for _ in range(10):
            wait = self.next_tick(cable, a)
            assert 0.04 < wait < 0.36
            assert self.next_tick(cable, b) == pytest.approx(wait)
            cable.now += wait
            cable.settle()

    def test_a_write_asks_for_the_next_heartbeat_once_and_until_it_is_confirmed_each_has_a_tick(self, cable):
        a, b = self.calm(cable)
        assert self.next_tick(cable, a) > 0.1
        cable.deaf = {("a", "b")}
        a.write(key(1))
        a.write(key(2))
        assert a.soon == 1
        assert self.longest_wait(cable, a) <= 0.1
        cable.deaf = set()
        cable.run(2.0)
        assert b.store.cursor_of("a") == a.store.tail
        assert self.longest_wait(cable, a) > 0.1

    def longest_wait(self, cable, node):
        """Of some ticks that are a heartbeat apart."""
        longest = 0.0
        for _ in range(7):
            cable.now += 0.1
            longest = max(longest, self.next_tick(cable, node))
        return longest

    def test_records_that_come_ask_for_the_next_heartbeat_and_beats_do_not(self, cable):
        a, b = self.calm(cable)
        for one, other in ((a, b), (b, a)):
            heard = len(cable.carried[one.name, other.name])
            for _ in range(4):
                cable.now += 0.1
                self.next_tick(cable, one)
            assert len(cable.carried[one.name, other.name]) > heard
            assert (a.soon, b.soon) == (0, 0)
        b.write(key(1))
        assert (a.soon, b.soon) == (1, 1)

    @pytest.mark.parametrize(
        "stir",
        [
            lambda mesh, now: mesh.set_peers(["c:1"], now),
            lambda mesh, now: mesh.discover("dns:mesh:1", now),
            lambda mesh, now: mesh.connect_failed("c:1", "refused", now),
            lambda mesh, now: mesh.link_opened(91, None, now, "10.0.0.9"),
            lambda mesh, now: mesh.link_closed(next(iter(mesh._links.by_number)), "reset", now),
            lambda mesh, now: mesh.add_namespace("news", FakeStore(), now),
            lambda mesh, now: mesh.questions.ask("b", HOLDS, "shop", (), now),
            lambda mesh, now: mesh.leave(now),
        ],
    )
    def test_whatever_else_happens_asks_for_the_next_heartbeat(self, cable, stir):
        a, _ = self.calm(cable)
        stir(a.mesh, cable.now)
        assert TickSoon() in a.mesh.effects()

    def test_while_a_peer_is_lost_each_heartbeat_has_a_tick(self, cable):
        a, b = self.calm(cable)
        cable.remove(b)
        cable.break_link(a, b)
        for _ in range(5):
            assert self.longest_wait(cable, a) <= 0.1

    def test_the_calm_beats_of_all_links_of_all_hosts_go_out_at_one_moment(self, cable):
        nodes = three(cable)
        cable.run(2.0)
        for node in nodes:
            node.mesh._session.beats.wall_ahead_s = 1000.05
        cable.run(1.0)
        moments = set()
        for _ in range(60):
            cable.carried.clear()
            cable.run(0.05)
            if any(cable.carried.values()):
                pairs = itertools.permutations([node.name for node in nodes], 2)
                assert all(cable.carried[pair] for pair in pairs)
                moments.add(round((cable.now + 1000.05) % 0.3, 2) % 0.3)
        assert moments == {0.0}

    def test_what_may_be_served_is_told_for_each_namespace_and_only_forward(self, cable):
        a, _ = two(cable)
        untils = []
        for _ in range(20):
            cable.now += 0.05
            a.mesh.tick(cable.now)
            effects = a.mesh.effects()
            untils += [effect.until for effect in effects if isinstance(effect, ServeUntil)]
            for effect in effects:
                cable._one(a, effect)
            cable.settle()
        assert untils == sorted(set(untils))

    def test_bytes_of_a_link_that_is_gone_are_ignored(self, cable):
        a = cable.node("a")
        a.mesh.received(12345, b"anything", cable.now)
        a.mesh.writable((12345,), cable.now)
        a.mesh.link_closed(12345, "gone", cable.now)

    def test_addresses_that_lead_to_no_peer_are_shown_too(self, cable):
        a = cable.node("a", ("a", "b"))
        cable.run(3.0)
        shown = [(peer.address, peer.state == "self", peer.held) for peer in a.mesh.views.peers()]
        assert sorted(shown) == [("a:1", True, 0), ("b:1", False, 0)]

    def test_peers_are_shown_with_cursors_and_lag(self, cable):
        a, b = two(cable)
        a.write(key(1), key(2))
        cable.run(0.3)
        (view,) = [peer for peer in a.mesh.views.peers() if peer.name == "b"]
        stream = view.namespaces["shop"]
        assert (view.state, stream.lag, stream.acked) == ("up", 0, a.store.tail)
        assert stream.cursor == b.store.tail
