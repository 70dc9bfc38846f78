"""The checker over meshes in memory: it finds nothing in a correct mesh, and names what is wrong in a broken
one."""

from __future__ import annotations

import dataclasses
import zlib

import pytest

from cachee_bridge.checker import watching
from cachee_bridge.checker.canaries import RACE_EVERY
from cachee_bridge.checker.checker import PEERS_MAX
from cachee_bridge.wire.messages import FILL, HOLDS
from tests.bridge.checkers import Checked, Crew, Store
from tests.bridge.meshes import key

EVERY_S = 1.0
ROUNDS = 12


def canary_of(crew: Crew, name: str) -> int:
    return crew.checked[name].checker.canaries.of["shop"].hash


def names(checked: Checked) -> set[str]:
    return {suspect["name"] for suspect in checked.suspects}


class TestNothingWrong:
    def test_every_canary_is_visible_within_a_millisecond_where_bytes_take_no_time(self):
        crew = Crew("abc")
        crew.run(ROUNDS * EVERY_S)
        for name, checked in crew.checked.items():
            peers = checked.view()["peers"]
            assert set(peers) == set("abc") - {name}
            for seen in peers.values():
                assert seen["canaries"] > ROUNDS
                assert set(seen["visible"].values()) == {seen["canaries"]}
            assert checked.suspects == checked.said == []

    def test_peers_hold_the_canary_so_that_the_next_write_has_something_to_evict(self):
        crew = Crew()
        hashed, evicted, held = None, 0, 0
        for _ in range(ROUNDS):
            crew.run(EVERY_S)
            hashed = canary_of(crew, "a")
            held += crew.store("b").holding(hashed)[0]
        evicted = sum(
            record.hash == hashed and record.source > 0 for record in crew.store("b").records.values()
        )
        assert held >= ROUNDS - 2 and evicted >= ROUNDS

    def test_a_race_lets_peers_fill_under_a_token_that_the_write_has_outdated_and_none_does(self):
        crew = Crew()
        refused = []
        fill = crew.store("b").canary_fill

        def filled(hashed, value, token):
            stored = fill(hashed, value, token)
            refused.append(not stored)
            return stored

        crew.store("b").canary_fill = filled
        crew.run(4 * RACE_EVERY * EVERY_S)
        assert 2 <= sum(refused) < len(refused) / 2
        assert crew.checked["a"].suspects == []

    def test_keys_that_are_written_and_filled_again_are_no_suspects(self):
        crew = Crew()
        a, b = crew.nodes["a"], crew.store("b")
        for number in range(200):
            a.write(key(number % 7 + 1))
            b.hold(number % 7 + 1, number % 5 + 1)
            crew.run(0.05)
        assert crew.checked["a"].suspects == crew.checked["b"].suspects == []

    def test_a_value_that_the_write_spared_because_its_bytes_are_the_same_is_no_suspect(self):
        crew = Crew()
        for store in (crew.store("a"), crew.store("b")):
            store.fill(5, "same", store.tail, store.now_ms())
        crew.run(EVERY_S)
        for _ in range(5):
            crew.store("a").set(5, "same")
            crew.checked["a"].send("shop")
            crew.run(EVERY_S)
        assert 5 in crew.store("b").entries
        assert crew.checked["a"].suspects == []

    def test_a_local_value_of_the_peer_is_its_own_affair(self):
        crew = Crew()
        crew.store("b").set(5, "mine", local=True)
        for _ in range(3):
            crew.run(EVERY_S)
            crew.nodes["a"].write(key(5))
        crew.run(EVERY_S)
        assert 5 in crew.store("b").entries
        assert crew.checked["a"].suspects == []


class TestSomethingWrong:
    def find(self, crew: Crew, checked: Checked, seconds: float = 20.0) -> dict:
        crew.run(seconds, until=lambda: checked.suspects)
        assert checked.suspects, "nothing was found"
        return checked.suspects[0]

    def test_a_suppressed_invalidation_of_the_canary_is_reported_by_name_with_its_trace(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        hashed = canary_of(crew, "a")
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        suspect = self.find(crew, crew.checked["a"])
        crew.run(1.5)
        (suspect, *_) = crew.checked["a"].suspects
        assert (suspect["peer"], suspect["what"], suspect["name"]) == ("b", "canary", "invalidation lost")
        assert suspect["hash"] == f"{hashed:016x}"
        looks = [float(line.split(" ms after")[0]) for line in suspect["trace"]]
        assert looks[:5] == pytest.approx([0, 1, 10, 100, 1000], abs=1.1)
        assert "holds version" in suspect["trace"][0]
        assert crew.store("a").armed == crew.store("b").armed == {hashed: 120.0}
        (line,) = [log.text for log in crew.checked["a"].said if log.level == "warning"][:1]
        assert line.startswith("stale at b: invalidation lost: canary ")

    def test_a_suppressed_invalidation_of_a_real_key_is_found_by_a_sample(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        b = crew.store("b")
        b.loses = lambda payload: payload == key(5)
        b.hold(5)
        crew.run(2 * EVERY_S)
        written = []

        def write() -> bool:
            if len(written) < 1000 and int(crew.cable.now * 1000) % 50 == 0:
                written.append(crew.nodes["a"].write(key(5)))
            return bool(crew.checked["a"].suspects)

        crew.run(10.0, until=write)
        (suspect, *_) = crew.checked["a"].suspects
        assert (suspect["what"], suspect["hash"], suspect["name"]) == (
            "key",
            f"{5:016x}",
            "invalidation lost",
        )

    def test_a_bridge_that_tells_more_than_its_segment_has_applied_is_found_out(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        b = crew.nodes["b"].mesh._session.namespaces.members["shop"].sources["a"]
        slot = crew.store("b").slots[b.index]
        hashed, frozen = canary_of(crew, "a"), slot.cursor
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.store("b").source_store = lambda *arguments: None
        slot.cursor = frozen
        checked = crew.checked["a"]
        crew.run(20.0, until=lambda: "cursor ahead of its segment" in names(checked))
        (suspect, *_) = [one for one in checked.suspects if one["name"] == "cursor ahead of its segment"]
        assert suspect["peer"] == "b"
        assert f"its segment says {frozen}" in suspect["why"]

    def test_a_fill_that_ignores_its_token_is_reported_by_name(self):
        crew = Crew()
        b = crew.store("b")

        def ignores(hashed: int, value: bytes, token: int) -> bool:
            return Store.canary_fill(b, hashed, value, b.tail)

        b.canary_fill = ignores
        suspect = self.find(crew, crew.checked["a"])
        assert (suspect["peer"], suspect["name"]) == ("b", "fill ignored its token")
        assert "when it had applied the write" in suspect["why"]

    def test_a_suspect_that_is_seen_to_be_right_is_none_any_more_and_counts_in_its_window(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        hashed, checked = canary_of(crew, "a"), crew.checked["a"]
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.run(5.0, until=lambda: checked.suspects)
        crew.run(0.05)
        crew.store("b").loses = lambda payload: False
        crew.store("b").kill_lower(hashed, 1 << 60)
        crew.run(0.3)
        assert checked.suspects == []
        visible = checked.view()["peers"]["b"]["visible"]
        counts = checked.view()["peers"]["b"]["canaries"]
        assert visible["0.01"] == counts - 1 and visible["1"] == counts

    def test_what_is_never_right_is_said_once_as_a_warning_and_once_as_an_error_and_kept(self):
        crew = Crew("ab", every_s=30.0)
        crew.run(31.0)
        hashed, checked = canary_of(crew, "a"), crew.checked["a"]
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.run(70.0, until=lambda: checked.suspects)
        written = checked.checker.canaries.of["shop"].number
        crew.run(60.5)
        levels = [log.level for log in checked.said if f"canary {written}," in log.text]
        assert levels == ["warning", "error"]
        assert [one["over"] for one in checked.suspects][:1] == [True]

    def test_a_peer_that_is_cut_off_makes_the_nines_fall_and_is_no_suspect(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        checked = crew.checked["a"]
        before = checked.view()["peers"]["b"]
        crew.cable.cut.add(frozenset("ab"))
        crew.run(10.0)
        after = checked.view()["peers"]["b"]
        assert after["canaries"] >= before["canaries"] + 6
        assert after["visible"]["60"] <= before["visible"]["60"] + 1
        assert after["canaries"] - after["pending"]["60"] == after["visible"]["60"], "60 s are not over"
        assert after["canaries"] - after["pending"]["1"] > after["visible"]["1"]
        assert checked.suspects == []
        crew.cable.cut.clear()
        crew.run(70.0)
        healed = checked.view()["peers"]["b"]
        assert healed["visible"]["60"] >= healed["canaries"] - 1
        assert healed["visible"]["1"] < healed["canaries"] - 5

    def test_a_peer_whose_link_ends_while_it_is_a_suspect_is_none_any_more(self):
        """Nothing is known of it then."""
        crew = Crew()
        crew.run(3 * EVERY_S)
        hashed, checked = canary_of(crew, "a"), crew.checked["a"]
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        self.find(crew, checked)
        crew.cable.cut.add(frozenset("ab"))
        crew.run(70.0)
        assert checked.suspects == []
        assert not [log for log in checked.said if log.level == "error"]

    def test_a_peer_that_is_reached_through_relays_from_now_on_counts_no_more(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        hashed, checked = canary_of(crew, "a"), crew.checked["a"]
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.run(5.0, until=lambda: checked.suspects)
        before = checked.view()["peers"]["b"]
        checked.peers = lambda namespace, now: []
        crew.cable.cut.add(frozenset("ab"))
        crew.run(70.0)
        assert checked.view()["peers"]["b"] == before
        assert checked.suspects == checked.said == []

    def test_a_peer_that_holds_the_canary_of_this_hosts_former_bridge_holds_something_older(self):
        crew = Crew()
        crew.run(6 * EVERY_S)
        hashed = canary_of(crew, "a")
        crew.store("b").loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.check("a", crew.nodes["a"], EVERY_S, seed=2)
        assert self.find(crew, crew.checked["a"])["name"] == "invalidation lost"

    def test_another_host_s_canary_of_the_same_hash_proves_nothing_and_another_hash_is_drawn(self):
        crew = Crew()
        crew.run(3 * EVERY_S)
        checked, b = crew.checked["a"], crew.store("b")
        before, hashed, holding = checked.view()["peers"]["b"]["canaries"], canary_of(crew, "a"), b.holding
        b.holding = lambda asked: (1, 2, 0, 0, 0, b"c 12345678 9") if asked == hashed else holding(asked)
        crew.run(2 * EVERY_S, until=lambda: canary_of(crew, "a") != hashed)
        assert canary_of(crew, "a") != hashed and checked.suspects == []
        assert checked.view()["peers"]["b"]["canaries"] == before, "what is not known was counted"
        crew.run(3 * EVERY_S)
        seen = checked.view()["peers"]["b"]
        assert set(seen["visible"].values()) == {seen["canaries"]} and seen["canaries"] > before
        another = canary_of(crew, "a")
        b.loses = lambda payload: another.to_bytes(8, "little") in payload
        assert self.find(crew, checked)["name"] == "invalidation lost"

    def test_each_draw_is_another_hash_and_the_first_one_is_the_same_in_each_life_of_the_host(self):
        """A hash that is drawn again would collide again: the peer could not be checked for ever."""
        crew = Crew("ab", every_s=0.1)
        crew.run(0.5)
        canaries = crew.checked["a"].checker.canaries
        watch, drawn = canaries.watch("b", "shop", crew.store("a")), [canary_of(crew, "a")]
        for _ in range(3):
            canaries.redraw(dataclasses.replace(watch, hash=drawn[-1]))
            drawn.append(canary_of(crew, "a"))
        assert len({*drawn}) == 4
        assert drawn[0] == crew.store("a").canary_hash(zlib.crc32(b"a"))

    def test_a_segment_without_room_for_a_canary_is_told_once(self):
        crew = Crew()
        crew.store("a").canary_set = lambda hashed, value: False
        crew.run(5 * EVERY_S)
        said = [log.text for log in crew.checked["a"].said]
        assert len(said) == 1 and "no room for a canary" in said[0]


class TestBounds:
    def test_at_most_eight_peers_are_asked_in_a_round_and_all_in_turn(self):
        crew = Crew("abcdefghijklm")
        checked = crew.checked["a"]
        checked.asked.clear()
        crew.run(1.5 * EVERY_S, until=lambda: checked.asked)
        first = {peer for peer, what in checked.asked if what == HOLDS}
        assert len(first) == PEERS_MAX
        crew.run(1.2 * EVERY_S)
        assert {peer for peer, what in checked.asked if what == HOLDS} == set("bcdefghijklm")

    def test_a_round_costs_two_questions_for_each_peer(self):
        crew = Crew()
        checked = crew.checked["a"]
        crew.run(ROUNDS * EVERY_S)
        asked = [what for _, what in checked.asked]
        rounds = checked.checker.canaries.of["shop"].rounds
        assert asked.count(HOLDS) <= rounds * (1 + 1 / RACE_EVERY) + 1
        assert asked.count(FILL) <= asked.count(HOLDS) + rounds / RACE_EVERY

    def test_without_a_period_nothing_is_ever_written_or_asked(self):
        crew = Crew(every_s=0.0)
        tail = crew.store("a").tail
        crew.run(3.0)
        assert crew.store("a").tail == tail
        assert crew.checked["a"].asked == []
        assert crew.checked["a"].checker.next_due(0.0) == float("inf")

    def test_what_is_watched_and_what_is_kept_is_bounded(self, monkeypatch):
        monkeypatch.setattr(watching, "WATCHES_MAX", 5)
        monkeypatch.setattr(watching, "OVER_MAX", 3)
        crew = Crew("abc", every_s=0.2)
        crew.run(1.0)
        hashed = canary_of(crew, "a")
        for name in "bc":
            crew.store(name).loses = lambda payload: hashed.to_bytes(8, "little") in payload
        crew.run(65.0)
        watched = crew.checked["a"].checker.watching
        assert len(watched._watches) <= 5 and len(watched._over) <= 3

    def test_a_peer_of_wire_2_is_not_asked_and_the_view_says_why(self):
        crew = Crew("ab", newest_wire=2)
        crew.run(3.0)
        seen = crew.checked["a"].view()["peers"]["b"]
        assert seen["canaries"] == 0 and seen["error"].startswith("too old to be asked")
        assert crew.checked["a"].asked == []

    def test_regions_are_summed_up(self):
        crew = Crew("ab")
        for node in crew.nodes.values():
            for link in node.mesh._links.up.values():
                link.peer = link.peer._replace(region="eu")
        crew.run(3.0)
        view = crew.checked["a"].view()
        assert view["regions"]["eu"]["canaries"] == view["peers"]["b"]["canaries"] > 0
