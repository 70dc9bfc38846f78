"""Virtual time, and the adversary. A seed decides everything: size, configuration, delays, disasters.

A run is chaos, then rest: every link and host is repaired, no worker writes any more, and after SETTLE_S all
hosts must agree. Every read is checked, during chaos and at rest (truth.py).
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from unittest.mock import patch

from cachee_bridge.links import link as link_module
from cachee_bridge.membership import addresses as addresses_module
from cachee_bridge.membership import discovery as discovery_module
from cachee_bridge.protocol import link_ends as link_ends_module
from cachee_bridge.protocol import paths as paths_module
from cachee_bridge.protocol.mesh import Settings
from cachee_bridge.streams import buckets as buckets_module
from cachee_bridge.streams import stream as stream_module
from cachee_shm import loading as loading_module
from tests.simulation.fetching import BYTES_MAX
from tests.simulation.host import Host
from tests.simulation.loading import poll
from tests.simulation.network import Network
from tests.simulation.truth import Broken, Life, Truth
from tests.simulation.watched import KEYS, TAGS, Watched, key_hash, namespace_of, number_of, tag_hash

CHAOS_S = 8.0
SETTLE_S = 5.0
LOST_AFTER_S = 1.0
ISOLATION_TTL_S = 0.5
UNKNOWN_TTL_MS = 1000


class World:
    def __init__(self, seed: int, story: bool = False, only: str = "") -> None:
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.resting = False
        self.truth = Truth(ISOLATION_TTL_S, LOST_AFTER_S)
        self.network = Network(rng, lambda: self.now, self.at)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._story = story
        self._incarnation = 0
        self.names = [f"h{number}" for number in range(rng.randint(2, 6) if rng.random() < 0.5 else 3)]
        self.namespaces = ["a", "b"][: rng.choice((1, 1, 2))]
        if "lazy" in only.split():
            self.namespaces = ["a", "b"]
        self.keys = {
            ns: [key_hash(number, k) for k in range(1, KEYS + 1)]
            for number, ns in enumerate(self.namespaces, 1)
        }
        self.tags = {
            ns: [tag_hash(number, t) for t in range(TAGS)] for number, ns in enumerate(self.namespaces, 1)
        }
        self.everyone_is_configured = rng.random() < 0.7
        self.ring_slots = rng.choice((6, 30, 200))
        self.secrets = rng.choice(((), (b"0123456789abcdef",)))
        self.pack_records = rng.choice((1, 4, 4096))
        self.allowance_bytes = rng.choice((700, 256 * 1024))
        self.piece_bytes = {1: 2, 4: 5, 4096: 256 * 1024}[self.pack_records]
        self.evict_words = {700: 2, 256 * 1024: 1 << 18}[self.allowance_bytes]
        self.workers = rng.choice((1, 3))
        self.rate = rng.choice((2.0, 10.0))
        """Verbs a second and worker."""
        self.writes = rng.choice((0.1, 0.5))
        self.deaths = rng.choice((0.0, 0.1))
        self.load_time = rng.choice((0.002, 0.05, 0.3))
        self.trouble_s = rng.choice((0.1, 0.4, 1.5))
        """Mean time between two disasters."""
        disasters = self._all_disasters()
        self.disasters = rng.sample(disasters, rng.choice((1, 1, 2, 3, 12)))
        if only:
            self.disasters = [each for each in disasters if each.__name__.strip("_") in only.split()]
        """A few kinds for each seed: where all are mixed, one hides what another would show."""
        if self._lossy in self.disasters:
            self.secrets = ()
        self.longest_s = rng.choice((0.3, 2.5, 4.0))
        self.ever_left: set[str] = set()
        self._choose_membership(random.Random(f"membership {seed}"), only.split())
        self._choose_more(random.Random(f"more {seed}"), only.split())
        self._choose_fanout(random.Random(f"fanout {seed}"), only.split())
        self._choose_doubts(random.Random(f"doubts {seed}"), only.split())
        fills = random.Random(f"fills {seed}")
        asks = "fills" in only.split() or (not only and fills.random() < 0.3)
        self.fills = fills if asks else None
        """Readers ask another host before the origin."""
        self.takes_frames = not only and random.Random(f"frames {seed}").random() < 0.5
        """Whether segments take ordinary frames off a link's bytes, so that no bridge looks at each."""
        self.hosts = {name: Host(name, self) for name in self.names}

    def _choose_membership(self, rng: random.Random, only: list[str]) -> None:
        """By chances of its own, so that a seed's other choices are what they would be without."""
        more = [self._forget, self._vanish, self._unname, self._sleep, self._estrange]
        more += [self._blind, self._name_nobody, self._stop_worker, self._lap, self._reborn]
        more += [self._unheard] if "unheard" in only else []
        chosen = [each for each in more if each.__name__.strip("_") in only]
        self.disasters += chosen if only else rng.sample(more, rng.choice((0, 0, 1, 2)))
        names = {each.__name__ for each in self.disasters}
        self.discovers = bool(names & {"_vanish", "_unname", "_blind", "_name_nobody"}) or (
            not only and rng.random() < 0.1
        )
        self.everyone_is_configured |= self.discovers
        self.on_isolation = rng.choice(("cap",) * 6 + ("flush", "serve")) if not only else "cap"
        self.truth.may_be_stale = self.on_isolation == "serve"
        self.forget_after = rng.choice((None,) * 7 + (2.0,)) if not only else None
        self.truth.anybody_may_be_removed = self.forget_after is not None
        self.named = set(self.names)
        self.dns_fails = rng.choice((0.0, 0.3))
        """How often."""
        self._quiet_from = 0.0
        """When the last disaster of several acts is over, and its outcome was to be seen for a while."""
        self.blind: set[str] = set()
        """Hosts that get no answer from the DNS."""
        self.nobody_is_named = False

    def _choose_more(self, rng: random.Random, only: list[str]) -> None:
        """The same again."""
        if "zombie" in only or (not only and rng.random() < 0.15):
            self.disasters.append(self._zombie)
        self.more = rng
        self.expires = "ttl" in only or (not only and rng.random() < 0.3)
        """Whether entries have lifetimes."""
        self.leases = "leases" in only or (not only and rng.random() < 0.3)
        """Whether workers load by get_or_load, one at a time."""
        self.clock_back = "clock_back" in only or (not only and rng.random() < 0.15)
        """Whether a host may be booted under a clock that is behind the one it had."""
        self.lazy = "lazy" in only or (not only and rng.random() < 0.15)
        """Whether a host that is booted again has a second namespace only when a worker uses it."""
        self.sparse = "unheard" in only
        """Whether so has one that is booted for the first time."""
        self.stale_s = rng.choice((0.0, 0.5, 3.0))
        self.load_fails = rng.choice((0.0, 0.2, 0.9))
        """How often."""
        self.lease_wait_s = rng.choice((0.2, 5.0))

    def _choose_fanout(self, rng: random.Random, only: list[str]) -> None:
        """Whether there are relays, and regions: as many hosts more as these need."""
        relays, regions = (
            ("relays" in only, "regions" in only) if only else (rng.random() < 0.3, rng.random() < 0.15)
        )
        self.patience = 0.75 if not only or relays or regions or "detours" in only else float("inf")
        """By way of others comes what a broken rule would lack: where one is to be shown, it is left out."""
        self.fanout = rng.choice((1, 2, 3)) if relays else 32
        count = rng.randint(4, 9) if relays or regions else 0
        self.names += [f"h{number}" for number in range(len(self.names), count)]
        self.named = set(self.names)
        self.regions = {name: rng.choice("xy") if regions else "" for name in self.names}

    def _choose_doubts(self, rng: random.Random, only: list[str]) -> None:
        """Whether commits are lost. Of a tag, fills are capped at home alone: none is lost where a host may
        end with its due."""
        lost = "unknown" in only or (not only and rng.random() < 0.3)
        self.doubts = rng if lost else None
        names = {each.__name__ for each in self.disasters}
        self.doubts_tags = not names & {"_crash", "_leave", "_vanish", "_estrange", "_reborn", "_blind"}

    # Time

    def at(self, delay: float, call: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, call))

    def run(self) -> None:
        """To the end of chaos, then of rest. Broken names the invariant."""
        with self._small_limits():
            self.at(self.rng.expovariate(1.0) * self.trouble_s, self._trouble)
            self._until(CHAOS_S)
            self._apply_map()
            self._until(CHAOS_S + SETTLE_S)
        for host in self.hosts.values():
            for segment in host.segments.values():
                self.truth.at_rest(segment)

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, call = heapq.heappop(self._events)
            self.truth.now = self.now
            call()
        self.now = self.truth.now = end

    @contextmanager
    def _small_limits(self) -> Iterator[None]:
        """Frames and allowances so small that a few records exercise them; short patience, and few looks. No
        address comes to belong to another host here, so none is looked at for that."""
        with ExitStack() as limits:
            for module, name, value in (
                (stream_module, "PACK_RECORDS", self.pack_records),
                (link_module, "ALLOWANCE_BYTES", self.allowance_bytes),
                (buckets_module, "PIECE_BYTES", self.piece_bytes),
                (buckets_module, "EVICT_WORDS", self.evict_words),
                (addresses_module, "OWN_LOOK_S", 2 * (CHAOS_S + SETTLE_S)),
                (link_ends_module, "HANDSHAKE_S", 1.0),
                (paths_module, "REVIEW_S", 0.1),
                (paths_module, "PATIENCE", self.patience),
                (paths_module, "DISTRUST_S", 1.0),
                (paths_module, "DETOUR_S", 0.3),
                (paths_module, "LINGER_S", 0.5),
                (discovery_module, "TTL_S_MIN", 0.1),
                (discovery_module, "TTL_S_MAX", 0.4),
                (discovery_module, "HURRY_S", 0.1),
                (loading_module, "await_flight", poll),
            ):
                limits.enter_context(patch.object(module, name, value))
            yield

    def fingerprint(self) -> str:
        """Of its state. Every delay and each cut of a message take a random number: two worlds with the same
        fingerprint have had the same events."""
        random_numbers = self.rng.getstate(), self.more.getstate()
        segments = [
            (host.name, namespace, segment.incarnation, segment.tail, sorted(segment.entries))
            for host in self.hosts.values()
            for namespace, segment in host.segments.items()
        ]
        counts = sorted(self.truth.counts.items())
        said = repr((random_numbers, self._count, counts, segments, sorted(self.truth.floors.items())))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def say(self, text: str) -> None:
        if self._story:
            print(f"{self.now:8.3f}  {text}")

    # What hosts need to know

    def segment(self, host: Host, namespace: str, made_late: bool = False) -> Watched:
        """A new one. If it is `made_late`, nobody expects it before he has heard of it."""
        incarnation = self._draw_incarnation()
        life = Life(host.name, namespace, incarnation)
        expected = self.everyone_is_configured or host.name == self.names[0]
        if expected and host.name not in self.ever_left and not made_late:
            self.truth.configured[life] = self.now
        number = self.namespaces.index(namespace) + 1
        segment = Watched(self.truth, host.name, namespace, number, incarnation, self.ring_slots, host.clock)
        segment.unknown_ttl_ms = UNKNOWN_TTL_MS if self.doubts is not None else 0
        segment.born_ms = segment.now_ms()
        segment.takes_frames = self.takes_frames
        segment.on_isolation, segment.isolation_ttl_s = self.on_isolation, ISOLATION_TTL_S
        return segment

    def _draw_incarnation(self) -> int:
        """Of the wall clock, and never the same twice."""
        self._incarnation += 1
        behind = self.clock_back and self.more.random() < 0.5
        wall = self.more.randint(1, self._incarnation) if behind else self._incarnation
        return (wall << 40) + self._incarnation

    def address(self, name: str) -> str:
        return f"10.0.0.{self.names.index(name) + 1}:7946"

    def addresses_of(self, name: str) -> list[str]:
        """One identical configuration for all."""
        if self.discovers:
            return []
        names = self.names if self.everyone_is_configured else self.names[:1]
        return [self.address(name) for name in names]

    def name_at(self, who: str) -> str:
        """The host's name, if `who` is its address."""
        return self.names[int(who.split(":")[0].rpartition(".")[2]) - 1] if ":" in who else who

    def answer(self, name: str, empty: bool) -> list[str] | None:
        """What the DNS names; None: it fails. `empty`: it may say that there is nobody, which is as much of a
        fault."""
        if name in self.blind:
            return None
        if self.nobody_is_named and empty:
            return []
        if not self.resting and self.rng.random() < self.dns_fails:
            return self.rng.choice((None, [])) if empty else None
        return [self.address(name) for name in sorted(self.named)]

    def settings(self, name: str) -> Settings:
        return Settings(
            address=self.address(name),
            secrets=self.secrets,
            region=self.regions[name],
            fanout=self.fanout,
            heartbeat_s=0.1,
            lost_after_s=LOST_AFTER_S,
            forget_after_s=self.forget_after,
            backoff_first_s=0.05,
            backoff_max_s=0.8,
            peer_fill=dict.fromkeys(self.namespaces, BYTES_MAX) if self.fills is not None else {},
        )

    def tags_of(self, key: int) -> tuple[int, ...]:
        namespace = self.namespaces[namespace_of(key) - 1]
        return (self.tags[namespace][number_of(key) % TAGS],)

    def value(self, key: int) -> int:
        """A new value, or one that the key had before."""
        values = self.truth.values[key]
        return self.rng.choice(values) if self.rng.random() < 0.3 else max(values) + 1

    def ttl_ms(self) -> int:
        """Of one entry; 0: for ever."""
        return self.more.choice((0, 50, 400, 2000)) if self.expires else 0

    # The adversary

    def _all_disasters(self) -> list[Callable[[], None]]:
        return [
            self._block,
            self._cut_off,
            self._reset,
            self._kill_bridge,
            self._kill_bridge_while_it_applies,
            self._hang_bridge,
            self._stall_pump,
            self._crash,
            self._leave,
            self._lossy,
            self._slow,
            self._fill_buffers,
        ]

    def _trouble(self) -> None:
        if self.resting:
            return
        self.at(self.rng.expovariate(1.0) * self.trouble_s, self._trouble)
        if self.disasters:
            self.rng.choice(self.disasters)()

    def _some_host(self) -> Host:
        return self.hosts[self.rng.choice(self.names)]

    def _while(self) -> float:
        return self.rng.choice((0.05, 1.0)) * self.rng.uniform(0.2, 1.0) * self.longest_s

    def _block(self) -> None:
        one, other = self.rng.sample(self.names, 2)
        ways = {(one, other)} if self.rng.random() < 0.5 else {(one, other), (other, one)}
        self._blocked(ways, f"{one} {'-' if len(ways) == 1 else '='}x {other}", self._while())

    def _cut_off(self) -> None:
        one = self.rng.choice(self.names)
        ways = {way for other in self.names if other != one for way in ((one, other), (other, one))}
        self._blocked(ways, f"{one} is cut off", self._while())

    def _blocked(self, ways: set[tuple[str, str]], what: str, seconds: float) -> None:
        self.say(f"-- {what} for {seconds:.3f}")
        self.network.blocked |= ways
        self.at(seconds, lambda: self.network.blocked.difference_update(ways))

    def _reset(self) -> None:
        self.say("-- a link breaks")
        self.network.reset(self.rng)

    def _kill_bridge(self) -> None:
        host, seconds = self._some_host(), self._while()
        self.say(f"-- the bridge of {host.name} is killed for {seconds:.3f}")
        host.bridge_crash()
        self.at(seconds, host.start_bridge)

    def _kill_bridge_while_it_applies(self) -> None:
        host, seconds = self._some_host(), self._while()
        for segment in host.segments.values():
            segment.bridge_dies_in = self.rng.randrange(6)
        self.at(seconds, host.start_bridge)

    def _hang_bridge(self) -> None:
        host, seconds = self._some_host(), self._while()
        if host.bridge is not None and host.bridge.alive:
            self.say(f"-- the bridge of {host.name} hangs for {seconds:.3f}")
            host.bridge.hang(seconds)

    def _zombie(self) -> None:
        """A bridge hangs, and another takes its place."""
        host, seconds = self._some_host(), self._while()
        if host.bridge is not None and host.bridge.alive and (host.zombie is None or not host.zombie.alive):
            self.say(f"-- the bridge of {host.name} hangs for {seconds:.3f}, and another takes its place")
            host.bridge.hang(seconds)
            self.at(self.rng.uniform(0.0, 0.9) * seconds, host.take_over)

    def _stall_pump(self) -> None:
        """A bridge sends its beats, but does not look at its rings for a while."""
        host, seconds = self._some_host(), self._while()
        if host.bridge is not None and host.bridge.alive:
            self.say(f"-- the pump of {host.name} stalls for {seconds:.3f}")
            host.bridge.stall(seconds)

    def _stop_worker(self) -> None:
        """Stop a worker half way in a write, while the pump does not get its turn."""
        host, seconds = self._some_host(), self.rng.uniform(1.3, 2.2)
        if host.bridge is not None and host.bridge.alive and host.segments and self._stage(seconds):
            self.say(f"-- a worker of {host.name} stops, and its pump stalls for {seconds:.3f}")
            host.bridge.stall(seconds)
            segment = self.rng.choice(list(host.segments.values()))
            host.start(
                host.writing(segment, self.rng.choice(self.keys[segment.namespace]), "delete", "stops")
            )

    def _lap(self) -> None:
        """A host clears all or a tag while its bridge is dead, and then so much is written that its record is
        overwritten."""
        host, seconds = self._some_host(), self.rng.uniform(0.5, 1.2)
        if host.segments and host.working:
            self.say(f"-- the bridge of {host.name} is killed for {seconds:.3f}, and its ring goes round")
            host.bridge_crash()
            self.at(seconds, host.start_bridge)
            for segment in host.segments.values():
                tag = self.rng.choice(self.tags[segment.namespace])
                host.start(self.rng.choice((host.clear(segment), host.delete_tag(segment, tag))))
                fill = partial(host.fill_ring, segment, host.life)
                self.at(0.8 * seconds, fill)

    def _crash(self) -> None:
        """Crash a host that all others expect or know: no host can wait for a writer that it has not met."""
        host, seconds = self._some_host(), self._while()
        if self._may_be_lost(host):
            self.say(f"-- {host.name} loses power for {seconds:.3f}")
            host.crash()
            self.at(seconds, lambda: None if host.segments else host.boot())

    def _may_be_lost(self, host: Host) -> bool:
        lives = [Life(host.name, ns, segment.incarnation) for ns, segment in host.segments.items()]
        return all(self.truth.may_be_lost(life, self.names) for life in lives)

    def _leave(self) -> None:
        host, seconds = self._some_host(), self._while()
        if host.working and self.rng.random() < 0.5:
            self.say(f"-- {host.name} leaves")
            self.ever_left.add(host.name)
            if self.rng.random() < 0.5:
                self._lossy()
            if self.rng.random() < 0.5:
                host.burst()
            for life in [life for life in self.truth.configured if life.host == host.name]:
                del self.truth.configured[life]
            host.leave(lambda: self.at(0.1 if self.resting else seconds, lambda: self._return(host)))

    def _return(self, host: Host) -> None:
        """With the segment it had, or as a new machine."""
        if self.rng.random() < 0.5 and self._may_be_lost(host):
            host.crash()
        if host.segments:
            host.working = True
            self.at(0.0 if self.resting else self.more.choice((0.0, 0.0, 0.5)), host.start_bridge)
        else:
            host.boot()

    def _lossy(self) -> None:
        """Drop frames, but not of sealed links: a missing message must break such a link."""
        if self.secrets:
            return
        self.network.lossy = self.rng.choice((0.02, 0.3))
        self.say(f"-- {self.network.lossy:.0%} of frames are lost or repeated")
        self.at(self._while(), lambda: setattr(self.network, "lossy", 0.0))

    def _slow(self) -> None:
        self.network.slow = self.rng.choice((0.02, 0.1))
        self.say("-- the network is slow")
        self.at(self._while(), lambda: setattr(self.network, "slow", 0.002))

    def _fill_buffers(self) -> None:
        """What one host sends another takes long to arrive, and all of it does. Where that comes gradually,
        the link is never silent."""
        one, other = self.rng.sample(self.names, 2)
        seconds, steps = self.rng.uniform(0.5, 2.0), self.rng.choice((1, 20))
        self.say(f"-- {one} ~> {other} takes {seconds:.3f}, in {steps} steps")
        for step in range(steps):
            latency = seconds * (step + 1) / steps
            self.at(0.15 * step, partial(self._delay, one, other, latency))
        self.at(0.15 * steps + 2 * self._while(), partial(self.network.latency.pop, (one, other), None))

    def _delay(self, one: str, other: str, seconds: float) -> None:
        if not self.resting:
            self.network.latency[one, other] = seconds

    def _forget(self) -> None:
        """An operator forgets a host that is dead, or that only cannot be reached."""
        bridge = self._some_host().bridge
        if bridge is not None and bridge.alive:
            silent = bridge.mesh._belonging.unanswered(bridge.mesh._readiness.is_met)
            lost = [name for name in self.names if name != bridge.name and name not in bridge.mesh._links.up]
            who = self.rng.choice([*silent, *lost] or self.names)
            self.say(f"-- the operator of {bridge.name} forgets {who}")
            bridge.forget(who)

    def _vanish(self) -> None:
        """A host no longer hears another one, which writes and dies. The DNS drops it. After a long while
        there is a host of that name again."""
        one, other = self.rng.sample(self.names, 2)
        seconds = self.rng.choice((0.0, 0.3, 0.8))
        if self._stage(seconds + 3.0):
            if seconds:
                self._blocked({(one, other), (other, one)}, f"{one} =x {other}", seconds)
                self.hosts[other].read_all()
                self.at(0.5 * seconds, self.hosts[one].burst)
                self.at(seconds + 4.0, self.hosts[other].read_all)
            self.at(seconds, lambda: self._vanished(self.hosts[one]))

    def _vanished(self, host: Host) -> None:
        seconds = self.rng.uniform(5.0, 8.0)
        if host.segments and not self.resting and self._may_be_lost(host):
            self.say(f"-- {host.name} loses power for {seconds:.3f}, and its place in the DNS")
            host.crash()
            self.at(self.rng.uniform(0.0, 1.0), lambda: self._drop_name(host.name, seconds))
            self.at(seconds, lambda: None if host.segments else host.boot())

    def _estrange(self) -> None:
        """A host is made anew where it cannot reach another. That one dies, and is made anew within reach:
        its second life is the first that the one meets."""
        one, other = (self.hosts[name] for name in self.rng.sample(self.names, 2))
        seconds = self.rng.uniform(0.8, 2.0)
        if one.segments and self._may_be_lost(one) and self._stage(seconds):
            ways = {(one.name, other.name), (other.name, one.name)}
            self._blocked(ways, f"{one.name} is made anew, {other.name} =x it", seconds)
            one.crash()
            one.boot()
            self.at(seconds, lambda: self._make_anew(other))

    def _stage(self, seconds: float) -> bool:
        """Whether such a disaster may begin: one at a time, or the next one hides what the last has done."""
        if self.now < self._quiet_from:
            return False
        self._quiet_from = self.now + seconds + 2.0
        return True

    def _make_anew(self, host: Host) -> None:
        if host.segments and not self.resting and self._may_be_lost(host):
            self.say(f"-- {host.name} is made anew")
            host.crash()
            host.boot()

    def _reborn(self) -> None:
        """A host does not hear what another one writes before it dies and comes back at once."""
        one, other = self.rng.sample(self.names, 2)
        seconds = 0.8
        if self._stage(seconds):
            self._blocked({(one, other), (other, one)}, f"{one} =x {other}", seconds)
            self.hosts[other].read_all()
            self.at(0.5 * seconds, self.hosts[one].burst)
            self.at(seconds, lambda: self._make_anew(self.hosts[one]))
            self.at(seconds + 1.5, self.hosts[other].read_all)

    def _unheard(self) -> None:
        """A host that was met without a namespace uses it where it reaches nobody, and dies. It comes back
        without. (Only where asked for: a bridge that is restarted meanwhile forgets whom it has met.)"""
        host, seconds = self.rng.choice(list(self.hosts.values())), self.rng.uniform(0.2, 2.0)
        lacking = sorted(set(self.namespaces) - host.segments.keys())
        others = [other for other in self.hosts.values() if other is not host]
        if lacking and all(other.has_met(host) for other in others) and self._stage(seconds):
            ways = {way for other in others for way in ((host.name, other.name), (other.name, host.name))}
            self._blocked(ways, f"{host.name} reaches nobody, and uses {lacking[0]}", seconds)
            host.use(lacking[0], host.life)
            for other in others:
                other.read_all()
            self.at(0.5 * seconds, host.burst)
            self.at(seconds, host.crash)
            self.at(seconds, host.boot)
            for other in others:
                self.at(seconds + 1.5, other.read_all)

    def _blind(self) -> None:
        """A host is made anew where it reaches nobody, and no DNS."""
        host, seconds = self._some_host(), self.rng.uniform(1.2, 3.0)
        if host.segments and self._may_be_lost(host) and self._stage(seconds):
            ways = {way for name in self.names for way in ((host.name, name), (name, host.name))}
            self._blocked(ways, f"{host.name} is made anew, and reaches nobody", seconds)
            self.blind.add(host.name)
            host.crash()
            host.boot()
            self.at(seconds, lambda: self.blind.discard(host.name))

    def _name_nobody(self) -> None:
        """The DNS has lost its records."""
        seconds = self._while()
        self.say(f"-- the DNS names nobody for {seconds:.3f}")
        self.nobody_is_named = True
        self.at(seconds, lambda: setattr(self, "nobody_is_named", False))

    def _unname(self) -> None:
        """The DNS is mistaken: the host lives."""
        self._drop_name(self.rng.choice(self.names), self._while())

    def _drop_name(self, name: str, seconds: float) -> None:
        if self.resting:
            return
        self.say(f"-- the DNS does not name {name} for {seconds:.3f}")
        self.named.discard(name)
        self.ever_left.add(name)
        self.truth.no_more.setdefault(name, self.now)
        self.truth.may_remove("", name)
        self.at(seconds, lambda: self.named.add(name))

    def _sleep(self) -> None:
        """A virtual machine is paused, and its clock does not run meanwhile; or a machine is suspended."""
        host, seconds, suspended = self._some_host(), self._while(), self.rng.random() < 0.5
        self.say(f"-- {host.name} {'is suspended' if suspended else 'sleeps'} for {seconds:.3f}")
        host.sleep(seconds, suspended)

    def _apply_map(self) -> None:
        self.say("== rest")
        self.resting = True
        self.named = set(self.names)
        self.blind.clear()
        self.nobody_is_named = False
        self.network.blocked.clear()
        self.network.latency.clear()
        self.network.lossy, self.network.slow = 0.0, 0.002
        for host in self.hosts.values():
            for segment in host.segments.values():
                segment.bridge_dies_in = None
            if not host.segments:
                host.boot()
            self.at(0.1, host.start_bridge)
            self.at(1.0, host.start_bridge)


def run(seed: int, story: bool = False, only: str = "") -> Truth:
    """One seed, with `only` these kinds of disaster if any are named. Broken, or what it counted."""
    world = World(seed, story, only)
    try:
        world.run()
    except Broken as broken:
        again = f"python -m tests.simulation --seed {seed}" + (f" --only '{only}'" if only else "")
        broken.args = (f"seed {seed}: {broken} ({again})",)
        raise
    return world.truth


def fingerprint(seed: int) -> str:
    """Of the world in which a seed ends, whether anything is broken there or not."""
    world = World(seed)
    with suppress(Broken):
        world.run()
    return world.fingerprint()
