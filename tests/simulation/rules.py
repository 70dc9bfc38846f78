"""The rules of the protocol, each as a switch that removes it from the code. The simulator must notice.

This tests the simulator as much as the rules: if no seed fails without a rule, the rule is needless, or the
simulator does not simulate what the rule is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from cachee_bridge.links.ledger import Ledger, positions_of
from cachee_bridge.links.link import Link
from cachee_bridge.links.stamps import Stamps
from cachee_bridge.membership.awaited import Awaited
from cachee_bridge.membership.discovery import Discovery
from cachee_bridge.protocol import beats
from cachee_bridge.protocol.beats_heard import BeatsHeard
from cachee_bridge.protocol.belonging import Belonging
from cachee_bridge.protocol.contacts import Contacts
from cachee_bridge.protocol.fetches import Fetches
from cachee_bridge.protocol.incarnations import Incarnations
from cachee_bridge.protocol.receiving import Receiving
from cachee_bridge.sources import members
from cachee_bridge.sources.boots import Boots, Earlier
from cachee_bridge.sources.horizon import Horizon
from cachee_bridge.sources.members import Members
from cachee_bridge.streams.buckets import MapApplication
from cachee_bridge.streams.freshness import Freshness
from cachee_bridge.streams.repair import Contact, Rung
from cachee_bridge.streams.stream import Inbox, Outbox, Packer, Verdict
from cachee_bridge.wire.messages import PAYLOAD_ALL, Beat, Calm, FinalHead, Frame
from cachee_shm.errors import BridgeError
from tests.simulation import fetching, world
from tests.simulation.leases import Leases
from tests.simulation.loading import Caller
from tests.simulation.truth import Broken
from tests.simulation.zombies import Held
from tests.stand_in.entries import FRESH, MISS, Entry
from tests.stand_in.segment import Segment
from tests.stand_in.wire import (
    APPLIED_AS,
    KEY,
    SET,
    WIRE_BUCKETS,
    WIRE_CLEAR,
    WIRE_KEY,
    WIRE_SET,
    WIRE_UNKNOWN,
)

Patch = tuple[Any, str, Any]


def _a_gap_is_applied_over() -> list[Patch]:
    verdict_of = Inbox.verdict_of

    def heedless(self: Inbox, frame: Frame) -> Verdict:
        verdict = verdict_of(self, frame)
        return Verdict.APPLIED if verdict is Verdict.GAP else verdict

    return [(Inbox, "verdict_of", heedless)]


def _old_frames_are_applied_again() -> list[Patch]:
    verdict_of = Inbox.verdict_of

    def heedless(self: Inbox, frame: Frame) -> Verdict:
        verdict = verdict_of(self, frame)
        return Verdict.APPLIED if verdict is Verdict.DUPLICATE else verdict

    return [(Inbox, "verdict_of", heedless)]


def _the_cursor_moves_before_the_eviction() -> list[Patch]:
    def hasty(self: Inbox, frame: Frame) -> Verdict:
        verdict = self.verdict_of(frame)
        if verdict is Verdict.APPLIED:
            self._keep(frame.last)
            if frame.payload:
                self._store.apply(self.index, frame.payload)
        return verdict

    return [(Inbox, "receive", hasty)]


def _nobody_asks_again() -> list[Patch]:
    return [(Receiving, "ask", lambda *arguments: None)]


def _a_lapped_peer_is_sent_nothing() -> list[Patch]:
    return [(Segment, "missed", lambda self, cursor: b"")]


def _a_lapped_peer_is_not_told_of_a_clear() -> list[Patch]:
    missed = Segment.missed

    def partly(self: Segment, cursor: int) -> bytes:
        said = missed(self, cursor)
        return bytes((WIRE_BUCKETS,)) if said == bytes((WIRE_CLEAR,)) else said

    return [(Segment, "missed", partly)]


def _a_map_says_nothing_of_tags() -> list[Patch]:
    def untagged(self: Segment, cursor: int) -> bytes:
        with patch.object(self, "own_tags", {}):
            return map_after(self, cursor)

    map_after = Segment.map_after
    return [(Segment, "map_after", untagged)]


def _a_map_counts_when_its_fences_are_up() -> list[Patch]:
    def hasty(self: Inbox) -> MapApplication | None:
        applying, self.applying = self.applying, None
        if applying is not None:
            self._keep(applying.last)
        return applying

    return [(Inbox, "apply_map", hasty)]


def _a_map_that_is_being_applied_is_overtaken() -> list[Patch]:
    verdict_of = Inbox.verdict_of

    def heedless(self: Inbox, frame: Frame) -> Verdict:
        applying, self.applying = self.applying, None
        try:
            return verdict_of(self, frame)
        finally:
            self.applying = applying

    return [(Inbox, "verdict_of", heedless)]


def _a_lapped_peer_is_told_what_was_not_announced() -> list[Patch]:
    return [(Segment, "missed", lambda self, cursor: PAYLOAD_ALL)]


def _a_new_incarnation_is_not_flushed() -> list[Patch]:
    contact = members.contact

    def trusting(known: tuple[int, int] | None, incarnation: int, tail: int, not_cut_off: bool) -> Contact:
        step = contact(known, incarnation, tail, not_cut_off)
        started_anew = known is not None and step.rung is Rung.FLUSH
        return Contact(Rung.FROM_BIRTH, 0) if started_anew else step

    return [(members, "contact", trusting)]


def _first_contact_is_not_flushed() -> list[Patch]:
    begin = Inbox.begin

    def trusting(self: Inbox, incarnation: int, cursor: int, flush: bool, known: bool = False) -> None:
        begin(self, incarnation, cursor, flush and self.incarnation != 0, known)

    return [(Inbox, "begin", trusting)]


def _a_host_that_was_cut_off_believes_in_births() -> list[Patch]:
    return [(Members, "_knew_all_sources", lambda self, now: True)]


def _who_has_written_nothing_is_believed() -> list[Patch]:
    contact = members.contact

    def believing(known: tuple[int, int] | None, incarnation: int, tail: int, not_cut_off: bool) -> Contact:
        return contact(known, incarnation, tail, not_cut_off or (known is None and tail == 0))

    return [(members, "contact", believing)]


def _what_is_unheard_does_not_isolate() -> list[Patch]:
    return [(Awaited, "unanswered", lambda self, met: [])]


def _time_ends_isolation() -> list[Patch]:
    extended = Horizon.extended

    def forgetful(self: Horizon, now: float, hindered: bool) -> float | None:
        for inbox in self._sources.values():
            if now - inbox.freshness.at > 1.5:
                inbox.freshness.at = now
        return extended(self, now, hindered)

    return [(Horizon, "extended", forgetful)]


def _a_beat_is_fresh_when_it_arrives() -> list[Patch]:
    take = Stamps.take

    def naive(self: Stamps, beat: Beat | Calm, now: float) -> float | None:
        take(self, beat, now)
        return now

    return [(Stamps, "take", naive)]


def _a_head_counts_before_it_is_applied() -> list[Patch]:
    def naive(self: Freshness, stamp: float, head: int, cursor: int) -> None:
        self.at = max(self.at, stamp)

    return [(Freshness, "head_heard", naive)]


def _the_head_is_the_pumps_position() -> list[Patch]:
    def late(known: dict[str, Members], name: str, namespaces: Iterable[str]) -> dict[str, Any]:
        found = positions_of(known, name, namespaces)
        for namespace, ((incarnation, _), cursor) in found.items():
            found[namespace] = (incarnation, known[namespace].store.pump_cursor), cursor
        return found

    return [(beats, "positions_of", late)]


def _a_calm_beat_is_believed_although_a_cursor_is_behind() -> list[Patch]:
    """At the sender too: what is not acknowledged is not said in a row of its own."""

    def unacknowledged(self: Ledger, link: Link, known: dict[str, Any], moved: set[str]) -> set[str]:
        return {namespace for namespace, at in known.items() if self.told.pairs.get(namespace) != at}

    return [
        (BeatsHeard, "_agrees", lambda self, link, named, calm: True),
        (Ledger, "news", unacknowledged),
    ]


def _leaving_counts_before_all_is_applied() -> list[Patch]:
    leaving = Members.leaving

    def hasty(self: Members, name: str, final: FinalHead) -> None:
        leaving(self, name, FinalHead(final.namespace, final.incarnation, 0))

    return [(Members, "leaving", hasty)]


def _a_restart_begins_at_the_head() -> list[Patch]:
    meet = Members.meet

    def hasty(self: Members, name: str, incarnation: int, tail: int, *when: Any) -> Contact:
        inbox = self.sources.get(name)
        if inbox is not None and inbox.incarnation == incarnation and inbox.cursor < tail:
            inbox._keep(tail)
        return meet(self, name, incarnation, tail, *when)

    return [(Members, "meet", hasty)]


def _empty_ranges_are_never_sent() -> list[Patch]:
    return [(Outbox, "empty", lambda self: None)]


def _healing_does_not_count() -> list[Patch]:
    extended = Horizon.extended

    def blind(self: Horizon, now: float, hindered: bool) -> float | None:
        self.home.at = now
        with patch.object(self.home, "head_heard", lambda *word: None):
            return extended(self, now, hindered)

    return [(Horizon, "extended", blind)]


def _applying_takes_no_position() -> list[Patch]:
    apply_one = Segment.apply_one

    def still(self: Segment, source: int, kind: int, key: int, digest: int) -> None:
        if APPLIED_AS[kind] not in (KEY, SET):
            apply_one(self, source, kind, key, digest)
            return
        entry = self.entries.get(key)
        kept = kind == WIRE_SET and entry is not None and self.digest(entry) == digest
        if not kept:
            self.kill_lower(key, (self.tail + 1) << 1, spare_local=True)

    return [(Segment, "apply_one", still)]


def _a_fills_version_is_its_store_time() -> list[Patch]:
    fill = Segment.fill

    def late(self: Segment, key: int, value: Any, token: int, *how: Any, **kept: Any) -> bool:
        return fill(self, key, value, self.tail, *how, **kept)

    return [(Segment, "fill", late)]


def _a_writer_that_lost_stores() -> list[Patch]:
    return [(Segment, "moved_since", lambda self, key, tags, token: False)]


def _a_removal_flushes_nothing() -> list[Patch]:
    return [(Segment, "evict_before", lambda self, position: None)]


def _an_answer_that_names_nobody_is_believed() -> list[Patch]:
    answered = Discovery.answered

    def credulous(self: Discovery, named: int, ttl_s: float, now: float) -> bool:
        return answered(self, named or 1, ttl_s, now)

    return [(Discovery, "answered", credulous)]


def _discovery_is_not_waited_for() -> list[Patch]:
    def impatient(self: Belonging, met: Callable[[str], bool]) -> list[str]:
        return self._book.awaited.unanswered(met)

    return [(Belonging, "unanswered", impatient)]


def _a_zombie_goes_on() -> list[Patch]:
    return [(Held, "check", lambda self: None)]


def _the_expired_is_served() -> list[Patch]:
    return [(Segment, "by_age", lambda self, entry: (FRESH, entry))]


def _stale_serves_what_was_invalidated() -> list[Patch]:
    find = Segment.find

    def lenient(self: Segment, key: int) -> tuple[int, Entry | None]:
        state, entry = find(self, key)
        held = self.entries.get(key)
        if entry is not None or held is None or self.withheld(held):
            return state, entry
        state, held = self.by_age(held)
        return (MISS, None) if state == FRESH else (state, held)

    return [(Segment, "find", lenient)]


def _stale_serves_what_is_capped() -> list[Patch]:
    withheld = Segment.withheld

    def lenient(self: Segment, entry: Entry) -> bool:
        return self.by_age(entry)[0] == FRESH and withheld(self, entry)

    return [(Segment, "withheld", lenient)]


def _a_failed_load_falls_back_without_looking() -> list[Patch]:
    return [(Caller, "_falls_back", lambda self: True)]


def _everybody_loads() -> list[Patch]:
    return [(Leases, "held", lambda self, key, fence, now, late_s: False)]


def _a_dead_loader_is_waited_for() -> list[Patch]:
    return [(Leases, "counts", lambda self, lease: not lease.late)]


def _a_late_loader_is_waited_for() -> list[Patch]:
    return [(Leases, "counts", lambda self, lease: not lease.holder.closed)]


def _a_waiter_does_not_look_at_the_fence() -> list[Patch]:
    def held(self: Caller) -> bool:
        return bool(self.segment.leases.running(self.key, self.world.now, self.world.lease_wait_s))

    return [(Caller, "_held", held)]


def _a_relays_word_is_fresh_when_it_arrives() -> list[Patch]:
    return [(Stamps, "age_of", lambda self, at: 0)]


def _a_lower_incarnation_goes_on_where_the_higher_one_was() -> list[Patch]:
    contact = members.contact

    def heedless(known: tuple[int, int] | None, incarnation: int, tail: int, not_cut_off: bool) -> Contact:
        step = contact(known, incarnation, tail, not_cut_off)
        return Contact(Rung.FROM_BIRTH, tail) if step.rung is Rung.IMPOSSIBLE else step

    return [(members, "contact", heedless)]


def _who_runs_backwards_loses_its_link() -> list[Patch]:
    make = Contacts.make

    def strict(self: Contacts, link: Link, members: Members, *told: Any) -> bool:
        followed = make(self, link, members, *told)
        if link.name in members.refused:
            raise BridgeError("a ring cannot run backwards; the link is closed")
        return followed

    return [(Contacts, "make", strict)]


def _nobody_draws_a_higher_incarnation() -> list[Patch]:
    return [(Incarnations, "outdone", lambda *arguments: False)]


def _a_farewell_leaves_no_mark() -> list[Patch]:
    return [(Segment, "bridge_leave", lambda self, left: None)]


def _who_left_goes_on_at_its_tail() -> list[Patch]:
    meet = Members.meet

    def hasty(self: Members, name: str, incarnation: int, tail: int, *when: Any) -> Contact:
        if self.departures.left.get(name, (0, 0))[0] == incarnation:
            self.departures.left[name] = incarnation, tail
        return meet(self, name, incarnation, tail, *when)

    return [(Members, "meet", hasty)]


def _a_namespace_that_is_gone_is_not_evicted() -> list[Patch]:
    drop_absent = Members.drop_absent

    def trusting(self: Members, name: str, now: float, earlier: Earlier = Earlier.NONE_MISSED) -> bool:
        with patch.object(self.store, "apply", lambda source, payload: 0, create=True):
            return drop_absent(self, name, now, earlier)

    return [(Members, "drop_absent", trusting)]


def _a_namespace_that_is_gone_is_waited_for() -> list[Patch]:
    return [(Members, "drop_absent", lambda self, name, now, earlier=None: False)]


def _a_boot_that_was_missed_wrote_nothing() -> list[Patch]:
    return [(Boots, "earlier", lambda self, name, instance: Earlier.NONE_MISSED)]


def _fills_in_doubt_are_not_capped() -> list[Patch]:
    return [(Segment, "doubted_until", lambda self, key: 0)]


def _an_unknown_outcome_is_announced_once() -> list[Patch]:
    return [(Segment, "pay_dues", lambda self: [])]


def _a_load_that_outlasts_the_doubt_is_stored() -> list[Patch]:
    fill = Segment.fill

    def lenient(
        self: Segment, key: int, value: Any, token: int, started_ms: int, *how: Any, **kept: Any
    ) -> bool:
        return fill(self, key, value, token, self.now_ms(), *how, **kept)

    return [(Segment, "fill", lenient)]


def _a_peer_takes_an_unknown_outcome_for_a_known_one() -> list[Patch]:
    apply_one = Segment.apply_one

    def forgetful(self: Segment, source: int, kind: int, key: int, digest: int) -> None:
        apply_one(self, source, WIRE_KEY if kind == WIRE_UNKNOWN else kind, key, digest)

    return [(Segment, "apply_one", forgetful)]


def _a_map_does_not_tell_of_unknown_outcomes() -> list[Patch]:
    """Nor does an ALL, or a STATE."""
    return [(Segment, "in_doubt", False)]


def _a_new_segment_knows_that_it_has_no_doubts() -> list[Patch]:
    return [(Segment, "in_doubt", property(lambda self: self.now_ms() < self.own_doubt_ms))]


def _a_host_gives_before_it_has_applied_as_much() -> list[Patch]:
    return [(Fetches, "_has_applied", lambda self, members, fetch: True)]


def _who_asks_does_not_say_what_it_has_announced() -> list[Patch]:
    return [(Packer, "announced", lambda self: 0)]


def _what_is_given_is_as_new_as_its_arrival() -> list[Patch]:
    return [(fetching, "token_of", lambda segment, token: segment.tail)]


RULES: dict[str, tuple[Callable[[], list[Patch]], str, int]] = {
    rule.__name__.strip("_").replace("_", "-"): (rule, shown_by, seed)
    for rule, shown_by, seed in (
        (_a_gap_is_applied_over, "lossy", 12),
        (_old_frames_are_applied_again, "lossy detours", 12),
        (_the_cursor_moves_before_the_eviction, "kill_bridge_while_it_applies", 0),
        (_nobody_asks_again, "lossy", 0),
        (_a_lapped_peer_is_sent_nothing, "block kill_bridge", 8),
        (_a_lapped_peer_is_not_told_of_a_clear, "lap", 0),
        (_a_map_says_nothing_of_tags, "lap", 22),
        (_a_map_counts_when_its_fences_are_up, "block kill_bridge", 68),
        (_a_map_that_is_being_applied_is_overtaken, "lossy block", 76),
        (_a_lapped_peer_is_told_what_was_not_announced, "block kill_bridge", 76),
        (_a_new_incarnation_is_not_flushed, "block crash", 28),
        (_first_contact_is_not_flushed, "block crash", 0),
        (_a_host_that_was_cut_off_believes_in_births, "estrange", 4),
        (_who_has_written_nothing_is_believed, "estrange", 4),
        (_what_is_unheard_does_not_isolate, "estrange", 4),
        (_time_ends_isolation, "block", 15),
        (_a_beat_is_fresh_when_it_arrives, "fill_buffers", 8),
        (_a_head_counts_before_it_is_applied, "stall_pump", 7),
        (_the_head_is_the_pumps_position, "stall_pump", 16),
        (_a_calm_beat_is_believed_although_a_cursor_is_behind, "lossy", 15),
        (_leaving_counts_before_all_is_applied, "leave lossy", 5),
        (_a_restart_begins_at_the_head, "kill_bridge", 0),
        (_empty_ranges_are_never_sent, "reset", 0),
        (_applying_takes_no_position, "", 0),
        (_a_fills_version_is_its_store_time, "", 0),
        (_a_writer_that_lost_stores, "", 0),
        (_healing_does_not_count, "stop_worker", 19),
        (_a_removal_flushes_nothing, "vanish", 20),
        (_an_answer_that_names_nobody_is_believed, "name_nobody cut_off", 18),
        (_a_zombie_goes_on, "zombie", 0),
        (_the_expired_is_served, "ttl", 0),
        (_stale_serves_what_was_invalidated, "ttl leases", 0),
        (_stale_serves_what_is_capped, "ttl leases block kill_bridge", 80),
        (_a_failed_load_falls_back_without_looking, "ttl leases", 0),
        (_everybody_loads, "leases", 0),
        (_a_dead_loader_is_waited_for, "leases", 5),
        (_a_late_loader_is_waited_for, "leases", 4),
        (_a_waiter_does_not_look_at_the_fence, "leases", 0),
        (_discovery_is_not_waited_for, "blind", 9),
        (_a_lower_incarnation_goes_on_where_the_higher_one_was, "clock_back crash", 14),
        (_who_runs_backwards_loses_its_link, "clock_back crash", 0),
        (_nobody_draws_a_higher_incarnation, "clock_back crash", 5),
        (_a_farewell_leaves_no_mark, "leave", 0),
        (_who_left_goes_on_at_its_tail, "leave", 73),
        (_a_namespace_that_is_gone_is_not_evicted, "lazy reborn", 1),
        (_a_namespace_that_is_gone_is_waited_for, "lazy crash", 0),
        (_a_boot_that_was_missed_wrote_nothing, "lazy unheard", 2),
        (_fills_in_doubt_are_not_capped, "unknown crash", 15),
        (_an_unknown_outcome_is_announced_once, "unknown", 1),
        (_a_load_that_outlasts_the_doubt_is_stored, "unknown crash", 346),
        (_a_peer_takes_an_unknown_outcome_for_a_known_one, "unknown crash", 1166),
        (_a_map_does_not_tell_of_unknown_outcomes, "unknown lap crash", 475),
        (_a_new_segment_knows_that_it_has_no_doubts, "unknown crash", 29),
        (_a_relays_word_is_fresh_when_it_arrives, "relays block cut_off", 48),
        (_a_host_gives_before_it_has_applied_as_much, "fills lossy detours", 0),
        (_who_asks_does_not_say_what_it_has_announced, "fills lossy detours", 0),
        (_what_is_given_is_as_new_as_its_arrival, "fills", 2),
    )
}
"""Each with the disasters that need it, and a seed that shows it (a change of the code may blind it)."""


@contextmanager
def without(name: str | None) -> Iterator[None]:
    """The code without one rule; None = as it is."""
    with ExitStack() as stack:
        for owner, attribute, value in RULES[name][0]() if name is not None else ():
            stack.enter_context(patch.object(owner, attribute, value))
        yield


def first_failure(name: str, seeds: int) -> str | None:
    """How the first of so many seeds fails without a rule, None if none does."""
    _, only, first = RULES[name]
    with without(name):
        for seed in range(first, first + seeds):
            try:
                world.run(seed, only=only)
            except Broken as broken:
                return str(broken)
    return None
