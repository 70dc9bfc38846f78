"""One host: its segments, its workers' verbs in steps, and a bridge, which is the real Mesh under a small
shell."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from cachee_bridge.ports.effects import (
    Brought,
    Close,
    Connect,
    Discover,
    GoOn,
    Log,
    Send,
    SendEach,
    ServeUntil,
    TickSoon,
)
from cachee_bridge.protocol.mesh import Mesh
from cachee_bridge.shell.performer import FOR_EVER_MS
from cachee_bridge.sources.boots import Earlier, instance_of
from cachee_bridge.wire.frames import NUMBERS, PREFIX, decode
from cachee_bridge.wire.messages import Fetched, Frame
from cachee_shm.errors import BridgeRunning, NotForgotten
from tests.simulation.fetching import given_to, stored
from tests.simulation.loading import Caller
from tests.simulation.truth import DEBT_S, Broken
from tests.simulation.watched import LOCAL, BridgeKilled, Halfway, Watched, key_hash, range_of
from tests.simulation.zombies import Held
from tests.stand_in.entries import FRESH
from tests.stand_in.wire import KEY

if TYPE_CHECKING:
    from tests.simulation.world import World

GO_ON_S = 0.02
"""A part of a map that is being applied takes some milliseconds; here more, so that more comes between."""
Steps = Generator[float, None, None]
"""A worker's verb; what it yields is how long the next step takes."""


class Bridge:
    """One life of a bridge process."""

    def __init__(self, host: Host, world: World) -> None:
        self.host, self.name, self.world = host, host.name, world
        self.alive = True
        self.hung_until = self.stalled_until = 0.0
        self._waiting: list[Callable[[], object]] = []
        self._ticks_at = -1.0
        self._said: list[str] = []
        self.brought: dict[int, Fetched | None] = {}
        """What came of questions for values, by number."""
        settings = world.settings(host.name)
        self._heartbeat_s = settings.heartbeat_s
        self.held = {namespace: Held(segment) for namespace, segment in host.segments.items()}
        self.mesh = Mesh(host.name, self.held, settings, random.Random(world.rng.getrandbits(64)), host.life)
        self._do(lambda: self.mesh.start(self.now))
        self._do(lambda: self.mesh.set_peers(world.addresses_of(host.name), self.now))
        if world.discovers:
            self._do(lambda: self.mesh.discover("dns", self.now))
        self._tick()

    @property
    def now(self) -> float:
        return self.host.clock()

    @property
    def powered(self) -> bool:
        return bool(self.host.segments)

    # What the network calls

    def opened(self, link: int, address: str | None) -> None:
        self._do(lambda: self.mesh.link_opened(link, address, self.now, "10.0.0.1"))

    def failed(self, address: str) -> None:
        self._do(lambda: self.mesh.connect_failed(address, "refused", self.now))

    def received(self, link: int, data: bytes) -> None:
        self._do(lambda: self.mesh.received(link, data, self.now))
        if self.mesh.fetches.is_busy:
            self._do(lambda: self.mesh.fetches.look(self.now))
        self.world.at(self.world.rng.uniform(0.0, 0.005), self.pump)

    def drained(self, link: int) -> None:
        self._do(lambda: self.mesh.writable((link,), self.now))

    def closed(self, link: int) -> None:
        self._do(lambda: self.mesh.link_closed(link, "reset", self.now))

    # What its process does

    def find_namespaces(self) -> None:
        """Those that workers have made since it began."""
        for namespace in sorted(self.host.segments.keys() - self.held.keys()):
            self.held[namespace] = Held(self.host.segments[namespace])
            self.mesh.add_namespace(namespace, self.held[namespace], self.now)

    def pump(self) -> None:
        """Heal at home, then send."""
        for namespace, segment in self.host.segments.items():
            if segment.pump_cursor != segment.tail and namespace in self.held:
                self._do(partial(self._pump, namespace, self.held[namespace]))

    def stall(self, seconds: float) -> None:
        """The pump does not come to its turn; the mesh does."""
        self.stalled_until = self.world.now + seconds
        self.world.at(seconds + 1e-9, self.pump)

    def _pump(self, namespace: str, segment: Held) -> None:
        if self.world.now < self.stalled_until:
            return
        segment.check()  # an ousted bridge throws no dice
        self.mesh.ring_moved(namespace, self.now, self.world.rng.choice((2, 4096)))
        if segment.pump_cursor != segment.tail:
            self.world.at(0.001, self.pump)

    def sweep(self) -> None:
        self._do(self.host.sweep)
        self.pump()

    def hang(self, seconds: float) -> None:
        """Or longer, if it hangs already."""
        self.hung_until = max(self.hung_until, self.world.now + seconds)
        self.world.at(self.hung_until - self.world.now + 1e-9, self._wake)

    def die(self) -> None:
        """Killed: the kernel ends its links."""
        self.alive = False
        self.world.network.forget(self)
        if self.world.network.listening.get(self.world.address(self.name)) is self:
            del self.world.network.listening[self.world.address(self.name)]

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._do(call)

    def _tick(self) -> None:
        self._do(self._tick_now)

    def _tick_now(self) -> None:
        due = self.mesh.tick(self.now) + self.host.offset
        if self._ticks_at <= self.world.now:
            self._ticks_at = max(due, self.world.now + 0.001)
            self.world.at(self._ticks_at - self.world.now, self._tick)

    def _do(self, call: Callable[[], object]) -> None:
        if not self.alive:
            return
        if self.world.now < self.hung_until:
            self._waiting.append(call)
            return
        try:
            call()
            while effects := self.mesh.effects():
                for effect in effects:
                    self._perform(effect)
        except BridgeKilled:
            self.world.say(f"{self.name}: the bridge is killed in the middle of applying")
            self.host.bridge_crash()
        except BridgeRunning as error:
            self.world.say(f"{self.name}: {error}; this one stops")
            self.world.truth.refused(self.name, any(held.is_ousted for held in self.held.values()))
            self.die()

    def _perform(self, effect: Any) -> None:
        network = self.world.network
        if isinstance(effect, Send):
            self._check(effect.data)
            network.send(effect.link, effect.data)
        elif isinstance(effect, SendEach):
            for link, data in zip(*effect, strict=True):
                self._perform(Send(link, data))
        elif isinstance(effect, Connect):
            network.connect(self, effect.address)
        elif isinstance(effect, Discover):
            self.world.at(self.world.rng.uniform(0.0, 0.3), self._answer)
        elif isinstance(effect, Close):
            network.close(effect.link)
        elif isinstance(effect, GoOn):
            self.world.at(GO_ON_S, lambda: self._do(lambda: self.mesh.go_on(self.now)))
        elif isinstance(effect, TickSoon):
            self._ticks_at = self.world.now + self.world.rng.uniform(0.0, self._heartbeat_s)
            self.world.at(self._ticks_at - self.world.now, self._tick)
        elif isinstance(effect, Brought):
            self.brought[effect.number] = effect.fetched
        elif isinstance(effect, ServeUntil):
            self._serve_until(effect)
        elif isinstance(effect, Log):
            self._log(effect)

    def _log(self, effect: Log) -> None:
        self.world.say(f"{self.name}: [{effect.level}] {effect.text}")
        two = bool(self.world.truth.counts["zombies"]) and "named" in effect.text
        if effect.level == "error" and not two:
            raise Broken(f"{self.name}: {effect.text}")
        address, given_up, _ = effect.text.partition(" is no longer a member: forget_after has passed")
        if given_up and ":" in address:  # nobody has ever answered there, so nobody of it was met
            self.world.truth.may_remove(self.name, self.world.name_at(address))

    def _answer(self) -> None:
        """What the DNS says by now."""
        discovery = self.mesh._belonging.discovery
        named = self.world.answer(self.name, empty=discovery is not None and discovery.named > 0)
        if named is None:
            self._do(lambda: self.mesh.discovery_failed("no server", self.now))
        else:
            self._do(lambda: self.mesh.discovered(named, 0.2, self.now))

    def forget(self, who: str) -> None:
        """The operator's command, whether it helps or not."""
        self._do(lambda: self._forget(who))

    def _forget(self, who: str) -> None:
        try:
            self.world.say(f"{self.name}: {self.mesh.forget(who, self.now)}")
        except NotForgotten as error:
            self.world.say(f"{self.name}: {error}")
        else:
            self.world.truth.may_remove(self.name, self.world.name_at(who))

    def _check(self, data: bytes) -> None:
        length, number = PREFIX.unpack_from(data)
        message = decode(number, data[PREFIX.size : 4 + length]) if number == NUMBERS[Frame] else None
        if isinstance(message, Frame):
            self.world.truth.sent(message)
            self.world.truth.counts["relayed"] += message.source != self.host.name

    def _serve_until(self, effect: ServeUntil) -> None:
        ms = FOR_EVER_MS if math.isinf(effect.until) else int(effect.until * 1000)
        for namespace in effect.namespaces:
            self.held[namespace].set_serve_until(ms)


class Host:
    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world
        self.segments: dict[str, Watched] = {}
        self.bridge: Bridge | None = None
        self.zombie: Bridge | None = None
        self.offset = 0.0
        """Its clock is the world's minus this: the clocks of two hosts have nothing in common."""
        self.working = False
        self.asleep_until = 0.0
        self.busy = 0
        """Verbs under way."""
        self.life = 0
        self.boot()

    def clock(self) -> float:
        return self.world.now - self.offset

    # Lives

    def boot(self) -> None:
        """A new machine: new segments, a new clock."""
        self.offset = -self.world.rng.uniform(0.0, 1000.0)
        self.life += 1
        self.busy = 0
        self.asleep_until = 0.0
        self.working = True
        first, *others = self.world.namespaces
        self.segments = {first: self.world.segment(self, first)}
        for namespace in others:
            if self.world.lazy and (self.life > 1 or self.world.sparse):
                delay = self.world.more.choice((0.2, 1.0, 5.0, 30.0))
                self.world.at(delay, partial(self.use, namespace, self.life))
            else:
                self.segments[namespace] = self.world.segment(self, namespace)
        self.world.at(self.world.rng.choice((0.0, 0.0, 0.5)), self.start_bridge)
        for _ in range(self.world.workers):
            self.world.at(self.world.rng.uniform(0.0, 0.3), partial(self._work, self.life))

    def use(self, namespace: str, life: int) -> None:
        """A worker attaches to a namespace that the host does not have; its bridge finds it a while later."""
        if life == self.life and not self.world.resting and namespace not in self.segments:
            self.segments[namespace] = self.world.segment(self, namespace, made_late=True)
            self.world.at(0.1, self._find_namespaces)

    def _find_namespaces(self) -> None:
        bridge = self.bridge
        if bridge is not None and bridge.alive:
            bridge._do(bridge.find_namespaces)

    def start_bridge(self) -> None:
        if self.world.now < self.asleep_until:
            self.world.at(self.asleep_until - self.world.now + 1e-9, self.start_bridge)
        elif self.segments and (self.bridge is None or not self.bridge.alive):
            for segment in self.segments.values():
                segment.bridge_leave(False)
                self.world.truth.is_back(segment)
            self.bridge = Bridge(self, self.world)
            self.world.network.listening[self.world.address(self.name)] = self.bridge
            self.world.at(0.0, self.bridge.sweep)
            self.world.at(0.0, self.bridge.pump)

    def take_over(self) -> None:
        """Somebody starts a second bridge; the first is hung, and does not know."""
        if self.bridge is not None and self.bridge.alive and self.segments:
            self.world.truth.counts["zombies"] += 1
            self.zombie, self.bridge = self.bridge, None
            self.start_bridge()

    def bridge_crash(self) -> None:
        if self.bridge is not None:
            self.bridge.die()
        for segment in self.segments.values():
            segment.bridge_dies_in = None

    def crash(self) -> None:
        """The power goes."""
        if self.bridge is not None and self.bridge.alive:
            self.world.network.power_off(self.bridge)
            self.bridge_crash()
        if self.zombie is not None and self.zombie.alive:
            self.world.network.power_off(self.zombie)
            self.zombie.die()
        self.world.truth.crashed(self.name, self.segments.values())
        self.segments = {}
        self.working = False
        self.life += 1

    def sleep(self, seconds: float, clock_runs: bool) -> None:
        """The machine stands still. The clock of a virtual machine that is paused stands still too; that of
        a machine that is suspended runs on."""
        if self.world.now < self.asleep_until:
            return
        self.asleep_until = self.world.now + seconds
        if not clock_runs:
            self.world.at(seconds, partial(self._wake, self.life, seconds))
        if self.bridge is not None and self.bridge.alive:
            self.bridge.hang(seconds)
        if self.zombie is not None and self.zombie.alive:
            self.zombie.hang(seconds)

    def _wake(self, life: int, seconds: float) -> None:
        if life == self.life:
            self.offset += seconds
            self.world.truth.woke(self.name)

    def leave(self, returns: Callable[[], None]) -> None:
        """Stop the workers, announce what is owed, leave, and come back some time: `returns` says how."""
        self.working = False
        bridge = self.bridge
        if bridge is None or not bridge.alive or not self.segments:
            self.working = bool(self.segments)
        elif self.busy:
            self.world.at(0.05, lambda: self.leave(returns))
        else:
            bridge.sweep()
            bridge._do(lambda: self._say_leave(bridge, returns))

    def _say_leave(self, bridge: Bridge, returns: Callable[[], None]) -> None:
        bridge.find_namespaces()
        for namespace, segment in self.segments.items():
            bridge.mesh.ring_moved(namespace, bridge.now, segment.tail)
            self.world.truth.leaves(segment)
            bridge.held[namespace].bridge_leave(True)
        bridge.mesh.leave(bridge.now)
        self._await_leave(bridge, self.world.now + 3.0, returns)

    def _await_leave(self, bridge: Bridge, end: float, returns: Callable[[], None]) -> None:
        if not bridge.alive:
            self.working = bool(self.segments)
        elif not bridge.mesh.left() and self.world.now < end:
            self.world.at(0.05, lambda: self._await_leave(bridge, end, returns))
        else:
            self.world.say(
                f"{self.name}: left, {'heard by all' if bridge.mesh.left() else 'not heard by all'}"
            )
            bridge._do(lambda: bridge.mesh.stop(bridge.now))
            bridge.die()
            returns()

    def has_met(self, other: Host) -> bool:
        """And knows so: its bridge was up ever since."""
        if self.bridge is None or not self.bridge.alive:
            return False
        boots = self.bridge.mesh._session.boots
        return boots.earlier(other.name, instance_of(other.life, 0)) is Earlier.NONE_MISSED

    def burst(self) -> None:
        """Many deletes at once: more than the socket takes."""
        for segment in self.segments.values():
            for key in self.world.keys[segment.namespace] * 3:
                self.start(self.writing(segment, key, "delete", ""))

    def read_all(self) -> None:
        """Each key once."""
        for segment in self.segments.values():
            for key in self.world.keys[segment.namespace]:
                self.start(self.reading(segment, key))

    # Workers

    def _work(self, life: int) -> None:
        if life != self.life or not self.segments:
            return
        if self.world.now < self.asleep_until:
            self.world.at(self.asleep_until - self.world.now + 1e-9, lambda: self._work(life))
            return
        rng = self.world.rng
        self.world.at(rng.expovariate(self.world.rate), lambda: self._work(life))
        if self.working:
            segment = self.segments.get(rng.choice(self.world.namespaces))
            if segment is not None:
                self.start(self.verb(rng, segment))

    def start(self, steps: Steps) -> None:
        """A verb."""
        self.busy += 1
        self.run(steps, self.life)

    def run(self, steps: Steps, life: int) -> None:
        """One step; the next after what it yields, unless the host has died meanwhile."""
        if life != self.life:
            return
        if self.world.now < self.asleep_until:
            self.world.at(self.asleep_until - self.world.now + 1e-9, lambda: self.run(steps, life))
            return
        delay = next(steps, None)
        if self.bridge is not None:
            self.world.at(self.world.rng.uniform(0.0001, 0.01), self.bridge.pump)
        if delay is None:
            self.busy -= 1
        else:
            self.world.at(delay, lambda: self.run(steps, life))

    def verb(self, rng: random.Random, segment: Watched) -> Steps:
        key = rng.choice(self.world.keys[segment.namespace])
        dice = rng.random()
        if dice > self.world.writes or self.world.resting:
            return self.reading(segment, key)
        how = rng.choice(("set", "set", "set", "delete", "nothing"))
        if dice < self.world.writes * 0.05:
            return self.clear(segment)
        if dice < self.world.writes * 0.15:
            return self.delete_tag(segment, rng.choice(self.world.tags[segment.namespace]))
        if dice < self.world.writes * 0.25:
            return self.local(segment)
        if self.world.doubts is not None and self.world.doubts.random() < 0.3:
            return self.unsure(self.world.doubts, segment, key)
        dies = rng.choice(("before", "half", "stops")) if rng.random() < self.world.deaths else ""
        return self.writing(segment, key, how, dies)

    def reading(self, segment: Watched, key: int) -> Steps:
        if self.world.expires and self.world.more.random() < 0.1:
            segment.touch(key, self.world.ttl_ms())
        return Caller(self, segment, key).run() if self.world.leases else self.read(segment, key)

    def read(self, segment: Watched, key: int) -> Steps:
        """get_or_load: what is served is checked; what was loaded is stored if its token still holds."""
        state, entry = segment.find(key)
        if entry is not None and state == FRESH:
            self.world.truth.served(segment, key, entry.value)
            self.world.truth.lives(segment, key, entry.expires_ms)
            return
        token, started_ms = segment.tail, segment.now_ms()
        if self.world.fills is not None:
            fetched = yield from given_to(self.world.fills, self, segment, key)
            if fetched is not None:
                self.world.truth.counts["given"] += 1
                if stored(segment, key, fetched, token, started_ms, self.world.ttl_ms()):
                    self.world.truth.at_least_floor(segment, key, int(fetched.value))
                return
        yield self._load_time()
        value = self.world.truth.current(key)
        yield self._load_time()
        tags, ttl_ms = self.world.tags_of(key), self.world.ttl_ms()
        if segment.fill(key, value, token, started_ms, ttl_ms, tags=tags):
            self.world.truth.at_least_floor(segment, key, value)

    def writing(self, segment: Watched, key: int, how: str, dies: str) -> Steps:
        """Token, origin, announcement. `dies`: "before" the announcement, or "half" way in it: the worker's
        slot in the roster says what is owed. Or it only "stops" half way: then the bridge has to heal."""
        truth, tags = self.world.truth, self.world.tags_of(key)
        token, started_ms = segment.tail, segment.now_ms()
        yield self._load_time()
        value = self.world.value(key)
        version = truth.commit(key, value)
        if dies == "before":
            self._owe(segment, key)
            return
        yield self._load_time()
        segment.gets_halfway = dies in ("half", "stops")
        try:
            if how == "set":
                segment.set_fenced(key, value, token, started_ms, self.world.ttl_ms(), tags)
            else:
                segment.delete(key)
        except Halfway:
            position = segment.tail
            truth.announce(segment, position, {key: version}, owed=dies == "half")
            if dies == "half":
                self._owe(segment, key)
                return
            yield self.world.more.choice((0.5, 3.0))
            segment.kill_lower(key, position << 1)
            truth.returned(self.name, key, version)
        else:
            self._announced(segment, {key: version})

    def unsure(self, rng: random.Random, segment: Watched, key: int) -> Steps:
        """A commit is sent, and never answered. It takes effect up to unknown_ttl later, in a database that
        outlives this host. The first announcement is made now, the second when it is due."""
        yield self._load_time()
        truth, ttl_s = self.world.truth, segment.unknown_ttl_ms / 1000
        (tag,), keys = self.world.tags_of(key), [key]
        wide = self.world.doubts_tags and rng.random() < 0.3
        if wide:
            keys = [each for each in self.world.keys[segment.namespace] if tag in self.world.tags_of(each)]
            segment.delete_tag_unknown(tag)
        else:
            segment.delete_unknown(key)
        for each in keys:
            doubt = truth.doubt(segment, each, self.world.value(each), segment.tail, wide)
            self.world.at(rng.uniform(0.0, ttl_s), partial(truth.takes_effect, doubt))
        self._announced(segment, {each: truth.version(each) for each in keys})
        self.world.at(ttl_s, partial(self._keep_house, segment, self.life))

    def _keep_house(self, segment: Watched, life: int) -> None:
        """As any process of the host does now and then."""
        if life != self.life:
            return
        if self.world.now >= self.asleep_until:
            for position, kind, key in segment.pay_dues():
                tagged = [
                    each for each in self.world.keys[segment.namespace] if key in self.world.tags_of(each)
                ]
                versions = {
                    each: self.world.truth.version(each) for each in ([key] if kind == KEY else tagged)
                }
                self.world.truth.announce(segment, position, versions)
                for each, version in versions.items():
                    self.world.truth.returned(self.name, each, version)
            if self.bridge is not None:
                self.bridge.pump()
        if segment.dues:
            self.world.at(0.05, lambda: self._keep_house(segment, life))

    def delete_tag(self, segment: Watched, tag: int) -> Steps:
        keys = [key for key in self.world.keys[segment.namespace] if tag in self.world.tags_of(key)]
        versions = {key: self.world.truth.commit(key, self.world.value(key)) for key in keys}
        yield self._load_time()
        segment.delete_tag(tag)
        self._announced(segment, versions)

    def clear(self, segment: Watched) -> Steps:
        keys = self.world.keys[segment.namespace]
        versions = {key: self.world.truth.commit(key, self.world.value(key)) for key in keys}
        yield self._load_time()
        segment.clear()
        segment.local_value = None
        self._announced(segment, versions)

    def local(self, segment: Watched) -> Steps:
        """A local value: its record has a position that is never sent, and no peer evicts it."""
        key = key_hash(segment.number, LOCAL)
        if segment.local_value is not None and segment.get(key) != segment.local_value:
            raise Broken(f"I12 {self.name} {segment.namespace}: the local value is gone")
        segment.local_value = segment.tail
        segment.set(key, segment.local_value, local=True)
        yield self._load_time()

    def fill_ring(self, segment: Watched, life: int) -> None:
        """With records that no peer is sent."""
        for _ in range(segment.ring_slots if life == self.life else 0):
            self.start(self.local(segment))

    def _owe(self, segment: Watched, key: int) -> None:
        """A worker has died: a later verb of somebody on this host pays its debts, within two seconds."""
        rng, shared = self.world.more, self.world.more.random() < 0.2
        (segment.range_debts if shared else segment.debts).append(range_of(key) if shared else key)
        self.world.at(rng.uniform(0.0, DEBT_S), partial(self._pay, self.life))

    def _pay(self, life: int) -> None:
        if life != self.life:
            return
        if self.world.now < self.asleep_until:
            self.world.at(self.asleep_until - self.world.now + 1e-9, lambda: self._pay(life))
            return
        self.sweep()
        if self.bridge is not None:
            self.bridge.pump()

    def sweep(self) -> None:
        """The debts of dead workers are announced."""
        for segment in self.segments.values():
            owed: list[tuple[int, ...]] = [(key,) for key in segment.debts]
            for bits in sorted(set(segment.range_debts)):
                keys = self.world.keys[segment.namespace]
                owed.append(tuple(key for key in keys if range_of(key) == bits))
            first = segment.tail + 1
            segment.sweep()
            for position, due in enumerate(owed, first):
                versions = {key: self.world.truth.version(key) for key in due}
                self.world.truth.announce(segment, position, versions)

    def _announced(self, segment: Watched, versions: dict[int, int]) -> None:
        """By the verb that has just appended its record, and returns."""
        self.world.truth.announce(segment, segment.tail, versions)
        for key, version in versions.items():
            self.world.truth.returned(self.name, key, version)

    def _load_time(self) -> float:
        return self.world.rng.expovariate(1.0) * self.world.load_time
