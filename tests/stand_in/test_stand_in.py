"""The model is held to the real segment: random sequences of every verb, every answer compared.

The real segment has 2 MiB, and its clock is frozen. The test plays its bridge and a worker.
"""

import itertools
import random
import struct
import subprocess
import sys
from collections.abc import Callable

import msgpack
import pytest

import cachee_shm
from cachee_bridge.wire.frames import encode, head_of
from cachee_bridge.wire.messages import Frame
from cachee_bridge.wire.seal import SEAL_BYTES
from cachee_shm import errors
from tests.cachee_shm.bridged import with_bridge
from tests.stand_in.entries import NotACounter
from tests.stand_in.ring import Shape
from tests.stand_in.segment import Segment
from tests.stand_in.wire import (
    GUARDED,
    SIZES,
    WIRE_BUCKETS,
    WIRE_SET,
    emit,
    framed,
    is_partly_known,
    parse,
    some_bits,
)

VERBS = 250
WHOLE = 1 << 30
TTLS = (None, None, 0, 0.05, 1, 100)
"""Seconds."""
VALUES = (1, 2, "one", "two", None, b"bytes")
ANSWERS = (ValueError, errors.SegmentError, errors.NotACounter, NotACounter)
LOG2 = (3, 7, 9, 13, 14)


def encoded(frame, sealed):
    """As a link brings it; nobody looks at the seal here."""
    return encode(frame) + bytes(SEAL_BYTES if sealed else 0)


def ms_of(ttl):
    """As verbs take it: 0 is for ever, and a lifetime of 0 s is the shortest."""
    return 0 if ttl is None else max(1, int(ttl * 1000))


class Pair:
    """The real segment and its model: `both` compares one verb's answers, `check` all that can be read."""

    def __init__(self, seed, config):
        self.rng = random.Random(seed)
        policy = self.rng.choice(("cap", "cap", "flush", "serve"))
        options = {"memory": "2MiB", "on_isolation": policy, "isolation_ttl": "30s"}
        options["unknown_ttl"] = "0s"  # as in the model: the simulator switches doubts on
        self.real = cachee_shm.attach(config=with_bridge({**config, "namespaces": {"shop": options}}))
        assert self.real.bridge_acquire()
        self.model = Segment(Shape(), self.real.incarnation)
        self.model.on_isolation = policy
        self.digests, self.mirrored = {}, {}
        """Of the model's digests the real one's, and back."""
        self.tokens = []
        self.mending = None
        self.told = []
        self.frames = 0
        """That were taken in the fast way."""
        self.wait(self.real.now_ms())
        self.keys = self._neighbours([f"k{n}" for n in range(600)], self.real._hash, 51)
        self.tags = self._neighbours([f"t{n}" for n in range(160)], self._tag_hash, 55)

    def _neighbours(self, names, hash_of, shift):
        """Two that share a bucket, and two more; by name, their hashes."""
        known = {name: hash_of(name) for name in names}
        pairs = itertools.combinations(names, 2)
        close = next(pair for pair in pairs if known[pair[0]] >> shift == known[pair[1]] >> shift)
        return {name: known[name] for name in dict.fromkeys((*close, *names[:3]))}

    def _tag_hash(self, tag):
        self.real.delete_tags(tag)
        _, event = self.real.read_ring(self.real.tail - 1, 1)
        tag_hash = struct.unpack_from("<Q", event, 8)[0]
        self.model.delete_tag(tag_hash)
        return tag_hash

    # Comparing

    def both(self, what, real: Callable, model: Callable):
        """Both do it, and both answer the same or raise."""
        self.told.append(what)
        answers = [answer(real), answer(model)]
        assert answers[0] == answers[1], self.story(what)
        return answers[0]

    def story(self, what):
        return f"{what}; after {self.told[-12:]}"

    def check(self):
        assert (self.real.tail, self.real.pump_cursor) == (self.model.tail, self.model.pump_cursor), (
            self.story("positions")
        )
        for name, key in self.keys.items():
            state, entry = self.model.find(key)
            assert self.real._find(name, False) == (state, entry and entry.value), self.story(f"read {name}")
        self.check_bridge()

    def check_bridge(self):
        for cursor in (0, self.model.pump_cursor, self.rng.randint(0, self.model.tail + 2)):
            assert self.real.missed(cursor) == self.model.missed(cursor), self.story(f"missed {cursor}")
            pieces = [each.map_piece(cursor, 0, WHOLE) for each in (self.real, self.model)]
            assert pieces[0] == pieces[1], self.story(f"map after {cursor}")
        for index in range(1, 4):
            cursors = [each.source_cursor(index) for each in (self.real, self.model)]
            assert cursors[0] == cursors[1], self.story("source_cursor")
        for read in ("sources", "forgotten", "_peers", "incarnation", "_left", "sync_asked", "serve_until"):
            told = [getattr(each, read) for each in (self.real, self.model)]
            said = [each() if callable(each) else each for each in told]
            assert said[0] == said[1], self.story(read)

    def check_ring(self):
        first = max(0, self.model.tail - self.model.ring_slots)
        _, events = self.real.read_ring(first, 4096)
        for at in range(0, len(events), 24):
            position, key, kind, own, source, digest = struct.unpack_from("<QQBBHH", events, at)
            record = self.model.read(position)
            known = kind != GUARDED and bool(digest)  # what a guarded one has there, sets show
            said = (kind, key, bool(own), source, known)
            bits = record.kind != GUARDED and bool(record.digest)
            want = (record.kind, record.hash, record.own, record.source, bits)
            assert said == want, self.story(f"record {position}")

    def pack(self, cursor, records, room):
        """Digests differ, one to one."""
        self.told.append(f"pack({cursor}, {records}, {room})")
        real, model = (
            answer(lambda each=each: each.pack(cursor, records, room)) for each in (self.real, self.model)
        )
        if isinstance(real, tuple) and isinstance(model, tuple):
            for one, other in zip(parse(real[1]), parse(model[1]), strict=True):
                self.pair_digests(one[2], other[2])
            real, model = ((each[0], [record[:2] for record in parse(each[1])]) for each in (real, model))
        assert real == model, self.story("pack")

    def pair_digests(self, real, model):
        assert is_partly_known(real) == is_partly_known(model), self.story("how much of a digest is known")
        if is_partly_known(real):
            return
        assert self.digests.setdefault(model, real) == real, self.story("a digest means two values")
        assert self.mirrored.setdefault(real, model) == model, self.story("two digests mean one value")

    # Verbs

    def wait(self, ms):
        for each in (self.real, self.model):
            each._freeze(ms)

    def key(self):
        name = self.rng.choice(list(self.keys))
        return name, self.keys[name]

    def some_tags(self):
        names = self.rng.sample(list(self.tags), self.rng.choice((0, 0, 1, 2)))
        return tuple(names), tuple(self.tags[name] for name in names)

    def step(self):
        verbs = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        self.rng.choice(verbs)()
        self.check()

    def _write(self, verb):
        (name, key), value, ttl = self.key(), self.rng.choice(VALUES), self.rng.choice(TTLS)
        (tags, hashes), local = self.some_tags(), self.rng.random() < 0.25
        stores = ttl != 0
        self.both(
            f"{verb} {name}={value!r} ttl={ttl} {tags} {'local' if local else ''}",
            lambda: getattr(self.real, verb)(name, value, ttl=ttl, tags=tags, local=local),
            lambda: getattr(self.model, verb)(key, value, ms_of(ttl), hashes, local, stores),
        )

    def do_set(self):
        self._write("set")

    def do_set_again(self):
        self._write("set")

    def do_add(self):
        self._write("add")

    def do_delete(self):
        name, key = self.key()
        self.both(f"delete {name}", lambda: self.real.delete(name), lambda: self.model.delete(key))

    def do_delete_tag(self):
        tag = self.rng.choice(list(self.tags))
        self.both(
            f"tag {tag}", lambda: self.real.delete_tags(tag), lambda: self.model.delete_tag(self.tags[tag])
        )

    def do_clear(self):
        if self.rng.random() < 0.2:
            self.both("clear", self.real.clear, self.model.clear)

    def do_touch(self):
        (name, key), ttl = self.key(), self.rng.choice(TTLS)
        self.both(
            f"touch {name} {ttl}",
            lambda: self.real.touch(name, ttl=ttl),
            lambda: self.model.touch(key, ms_of(ttl), ttl == 0),
        )

    def do_incr(self):
        name, key = self.key()
        self.both(f"incr {name}", lambda: self.real._incr(name, 3), lambda: self.model.incr(key, 3))

    def do_canary(self):
        """Of this host, or another's that is filled."""
        hashed = self.real.canary_hash(self.rng.randint(0, 3))
        value = f"web-1 {self.rng.randint(0, 9)}".encode()
        if self.rng.random() < 0.5:
            self.both(f"canary {hashed}", *self.each(lambda it: it.canary_set(hashed, value)))
            return
        token = max(0, self.model.tail - self.rng.choice((0, 0, 1, 5, -1)))
        self.both(f"canary fill {token}", *self.each(lambda it: it.canary_fill(hashed, value, token)))

    def do_holding(self):
        keys = [*self.keys.values(), *map(self.model.canary_hash, range(4))]
        hashed = self.rng.choice(keys)
        self.told.append(f"holding {hashed}")
        real, model = self.real.holding(hashed), self.model.holding(hashed)
        assert (*real[:4], real[5]) == (*model[:4], model[5]), self.story("holding")
        if real[4]:
            self.pair_digests(real[4], model[4])

    def do_token(self):
        token, now = self.real._token()
        self.tokens.append((token, self.model.tail, now))

    def _token(self):
        return self.rng.choice(self.tokens[-4:]) if self.tokens else (*self.real._token()[:1], 0, 0)

    def do_fill(self):
        (name, key), value, ttl = self.key(), self.rng.choice(VALUES), self.rng.choice((None, 0.05, 1))
        (tags, hashes), local, grace = self.some_tags(), self.rng.random() < 0.2, self.rng.choice((0, 700))
        if self.rng.random() < 0.5 or not self.tokens:
            self.do_token()
        token, position, started = self._token()
        self.both(
            f"fill {name}={value!r} {position} ttl={ttl} grace={grace} {tags} {local}",
            lambda: self.real._fill(name, value, token, started, ttl, grace, tags, local),
            lambda: self.model.fill(key, value, position, started, ms_of(ttl), grace, hashes, local),
        )

    def do_set_fenced(self):
        (name, key), value, ttl, (tags, hashes) = self.key(), self.rng.choice(VALUES), 100, self.some_tags()
        if not self.tokens:
            self.do_token()
        token, position, started = self._token()
        self.both(
            f"fenced {name}={value!r} {position} {tags}",
            lambda: self.real._set_fenced(name, value, token, started, ttl, tags),
            lambda: self.model.set_fenced(key, value, position, started, ms_of(ttl), hashes),
        )

    def do_wait(self):
        ms = self.rng.choice((1, 60, 126, 500, 1126, 5000, 40_000))
        self.told.append(f"wait {ms}")
        self.wait(self.model.now_ms() + ms)

    def do_isolate(self):
        ms = self.rng.choice((1, max(2, self.model.now_ms() - 20_000), 1 << 50, 1 << 50))
        self.both(f"serve until {ms}", *self.each(lambda it: it.set_serve_until(ms)))

    def each(self, verb):
        """The same verb, of each."""
        return (lambda: verb(self.real)), (lambda: verb(self.model))

    def do_pack(self):
        cursor = self.rng.choice((0, self.model.pump_cursor, self.rng.randint(0, self.model.tail + 3)))
        self.pack(cursor, self.rng.choice((0, 1, 7, 4096)), self.rng.choice((16, 17, 40, 120, 1 << 17)))
        self.pack(max(0, self.model.tail - 300), 4096, 1 << 17)
        self.check_ring()

    def do_heal(self):
        cursor = self.rng.choice((self.model.pump_cursor, self.rng.randint(0, self.model.tail + 3)))
        most = self.rng.choice((0, 1, 5, 4096))
        after = max(0, cursor - self.rng.choice((0, 0, 1, 200, 70_000)))
        head = self.rng.randbytes(self.rng.choice((0, 9, 141)))
        self.told.append(f"heal({cursor}, {most}, {after})")
        real, model = (it.heal(cursor, most, after, head) for it in (self.real, self.model))
        assert real[:2] == model[:2], self.story("heal")
        assert self.frame(real[2], head) == self.frame(model[2], head), self.story("frame")

    def frame(self, frame, head):
        """Its range, and its records without their digests, which `pack` compares."""
        if not frame:
            return None
        fields = msgpack.Unpacker()
        fields.feed(frame[5 + len(head) :])
        first, last, payload = fields
        assert frame == framed(head, first, last, payload), self.story("a frame's bytes")
        return first, last, [record[:2] for record in parse(payload)]

    def _payload(self):
        """The real one's, the model's."""
        kind, key = self.rng.choice((1, 1, 2, 2, 2, 3, 4, 5, 7)), self.key()[1]
        if kind == 3:
            key = self.rng.choice(list(self.tags.values()))
        entry = self.model.entries.get(key)
        held = [self.model.digest(entry)] if entry is not None else []
        digest = self.rng.choice([each for each in held if each in self.digests] * 9 or [77_777])
        known = self.digests.get(digest, digest)
        if kind == 2 and digest in self.digests and self.rng.random() < 0.3:
            known, digest = some_bits(known), some_bits(digest)
        return emit(kind, key, known), emit(kind, key, digest)

    def do_apply(self):
        self.pack(max(0, self.model.tail - 300), 4096, 1 << 17)  # says digests of what is held
        parts = [self._payload() for _ in range(self.rng.randint(0, 4))]
        tail = self.rng.choice(
            (b"", b"", b"", b"\xff", b"\x01\0", bytes((WIRE_BUCKETS,)), b"\x00", b"\x0a" * 9)
        )
        source = self.rng.choice((0, 1, 1, 2, 4095, 4096))
        real, model = (b"".join(part[side] for part in parts) + tail for side in (0, 1))
        self.both(
            f"apply {source} {model.hex()}",
            lambda: self.real.apply(source, real),
            lambda: self.model.apply(source, model),
        )

    def do_receive(self):
        """What a link has brought: frames of a peer, mostly in order, some odd, cut and spoiled."""
        self.pack(max(0, self.model.tail - 300), 4096, 1 << 17)  # says digests of what is held
        source = self.rng.choice((1, 1, 1, 2, 2, 2, 0, 4096))
        incarnation, cursor = self.rng.choice((3, 4)), self.rng.randint(0, self.model.tail)
        head = head_of("shop", "web-2", incarnation)
        sealed, most = self.rng.random() < 0.5, self.rng.choice((64, 64, 64, 0, 1, 3))
        came, last = [], cursor
        for _ in range(self.rng.randint(0, 6)):
            frame, last = self._frame(incarnation, last)
            came.append(frame)
        real, model = (b"".join(encoded(each[side], sealed) for each in came) for side in (0, 1))
        cut = len(real) if self.rng.random() < 0.5 else self.rng.randint(0, len(real))
        real, model = self._spoilt(bytearray(real[:cut]), bytearray(model[:cut]))
        taken = self.both(
            f"receive {source} {incarnation} {cursor} {model.hex()} {sealed} {most}",
            lambda: self.real.receive(source, incarnation, cursor, head, real, sealed, most),
            lambda: self.model.receive(source, incarnation, cursor, head, model, sealed, most),
        )
        if isinstance(taken, tuple):
            self.frames += taken[2]

    def _frame(self, incarnation, last):
        """((first, last, payload) of the real one's and of the model's), and where the next begins."""
        odd = self.rng.random() < 0.1
        first = max(1, last + (self.rng.choice((-3, 2)) if odd else 1))
        parts = [self._payload() for _ in range(self.rng.randint(0, 3))]
        tail = self.rng.choice((b"",) * 18 + (b"\xff", b"\x01\0"))
        end = first + self.rng.randint(0, 3)
        if self.rng.random() < 0.03:
            incarnation += 1
        frames = [
            Frame("shop", "web-2", incarnation, first, end, b"".join(part[side] for part in parts) + tail)
            for side in (0, 1)
        ]
        return frames, max(last, end)

    def _spoilt(self, *both):
        """The same byte of each."""
        if both[0] and self.rng.random() < 0.1:
            at, byte = self.rng.randrange(len(both[0])), self.rng.randrange(256)
            for each in both:
                each[at] = byte
        return both

    def do_burst(self):
        """Often more than the ring holds."""
        if self.rng.random() < 0.8:
            return
        count, (name, key) = self.rng.choice((20, 511, 512, 513, 600)), self.key()
        if self.rng.random() < 0.5:
            payload = emit(1, key) * count
            self.both(f"{count} of a peer", *self.each(lambda it: it.apply(1, payload)))
        else:
            self.told.append(f"delete {name} {count} times")
            for _ in range(count):
                self.real.delete(name), self.model.delete(key)

    def _map(self):
        """One's own, or another size's with some bits; or none at all."""
        if self.rng.random() < 0.3:
            return self.model.map_after(self.rng.randint(0, self.model.tail + 1))
        if self.rng.random() < 0.1:
            return self.rng.choice((b"", b"\x03", b"\x03\x03\0", b"\x02\x03\0\0", b"\x03\x1d\0\0", bytes(99)))
        sizes = [self.rng.choice(LOG2), self.rng.choice(LOG2)]
        tables = [bytearray(1 << log2 >> 3) for log2 in sizes]
        for table, log2, known in zip(tables, sizes, (self.tags, self.keys), strict=True):
            for each in self.rng.sample(list(known.values()), 2):
                number = each >> (64 - log2)
                table[number // 8] |= 1 << number % 8
        return bytes(sizes) + tables[0] + tables[1]

    def do_fence_map(self):
        steps, source = self.rng.choice((0, 1, 100, 1000, WHOLE)), self.rng.choice((1, 2, 2, 4096))
        map_, version, at = self.mending or (self._map(), 0, 0)
        known = self.rng.random() < 0.5
        said = self.both(
            f"fence_map {source} {map_[:2].hex()} {version} {at} {steps}",
            *self.each(lambda it: it.fence_map(source, map_, version, at, steps, known)),
        )
        if isinstance(said, tuple):
            self.mending = (map_, *said)
        if isinstance(said, tuple) and said[1] == 0:
            self.mending = None
            self.evict(map_, said[0])

    def evict(self, map_, version):
        words = self.rng.choice((1000, WHOLE))
        self.both(
            f"evict_map {words}",
            *self.each(lambda it: evicted(it, map_, version, words)),
        )

    def do_evict_map(self):
        if self.rng.random() < 0.2:
            self.evict(self._map(), self.rng.randint(0, 2 * self.model.tail + 2))

    def do_line(self):
        line = self.both("draw_line", self.real.draw_line, self.model.draw_line)
        if self.rng.random() < 0.3:
            position = self.rng.choice((line, line + 1, line // 2))
            self.both(f"before {position}", *self.each(lambda it: it.evict_before(position)))

    def do_source(self):
        index = self.rng.choice((0, 1, 1, 2, 3, 63, 64, 5000))
        number = self.rng.randint(0, self.model.tail + 2)
        calls = {
            "source_open": (self.rng.choice(("", "a", "b", "é", "x" * 63, "x" * 64)),),
            "source_store": (index, self.rng.choice((3, 4)), number),
            "source_forget": (index,),
            "source_set_aside": (index,),
            "source_acked": (index, number),
            "source_tell": (index, self.rng.random() < 0.5, number),
            "raise_incarnation": (self.model.incarnation + self.rng.choice((-1, 0, 1)),),
            "bridge_leave": (self.rng.random() < 0.5,),
            "bridge_vouch": (number,),
        }
        verb = self.rng.choice(list(calls))
        self.both(
            f"{verb}{calls[verb]}",
            *self.each(lambda it: getattr(it, verb)(*calls[verb])),
        )


def answer(verb):
    """What it answers, or that it refuses."""
    try:
        return verb()
    except ANSWERS as error:
        return "no counter" if isinstance(error, ANSWERS[2:]) else "refused"


def evicted(segment, map_, version, words):
    """How many, in pieces; each segment has its own order of words."""
    total = at = 0
    while True:
        at, some = segment.evict_map(1, map_, version, at, words)
        total += some
        if not at:
            return total


@pytest.fixture
def pair(config):
    made = []

    def make(seed):
        made.append(Pair(seed, config))
        return made[-1]

    yield make
    for each in made:
        each.real.close()


@pytest.mark.parametrize("seed", range(40))
def test_model_and_segment_answer_alike_whatever_is_asked(pair, seed):
    both = pair(seed)
    for _ in range(VERBS):
        both.step()
    both.pack(max(0, both.model.tail - 512), 4096, 1 << 17)
    both.check_ring()
    assert both.real.stats()["evicted"] == 0  # the model has room for all: so must the segment have


@pytest.mark.parametrize("seed", range(20))
def test_model_and_segment_take_the_same_frames_off_a_link(pair, seed):
    both = pair(seed)
    for _ in range(60):
        both.do_set()
        both.do_receive()
        both.check()
    both.check_ring()
    assert both.frames > 20


def test_the_shape_is_that_of_the_smallest_segment(pair):
    both = pair(0)
    assert both.real.ring_slots == both.model.ring_slots
    assert both.real.map_bytes == both.model.map_bytes
    assert set(SIZES) == {1, 2, 3, 4, 5, 7, 8} and WIRE_SET in SIZES


IN_A_WORKER = """
import os
import cachee_shm
worker = cachee_shm.attach(config={config!r})
for name in {names!r}:
    worker._intend(name)
os._exit(0)
"""


def die_with(config, *names):
    """A worker attaches, opens a `writing` block of each name, and is killed."""
    code = IN_A_WORKER.format(config=config, names=names)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def mourned(config):
    """(configuration, the real segment, its model)."""
    config = with_bridge({**config, "namespaces": {"shop": {"memory": "2MiB", "unknown_ttl": "0s"}}})
    with cachee_shm.attach(config=config) as real:
        real._freeze(real.now_ms())
        model = Segment(Shape())
        model._freeze(real.now_ms())
        yield config, real, model


def test_a_sweep_announces_what_a_dead_worker_owed_although_a_lapped_heal_found_nothing(mourned):
    config, real, model = mourned
    key = real._hash("a")
    real.set("a", 1), model.set(key, 1)
    die_with(config, "a")
    model.debts.append(key)
    for _ in range(600):
        real.delete("b"), model.delete(real._hash("b"))
    assert real.heal(0, 4096, 0, b"") == model.heal(0, 4096, 0, b"")
    assert (real.get("a"), model.get(key)) == (1, 1)
    assert real.sweep() == 1
    model.sweep()
    assert (real.get("a"), model.get(key)) == (None, None)
    assert real.tail == model.tail
    assert real.pack(model.tail - 1, 1, 99) == model.pack(model.tail - 1, 1, 99)


def test_blocks_that_shared_a_bit_are_paid_by_a_range_which_has_no_form_on_the_wire(mourned):
    """Of blocks of one key, 128 are exact (INTENT_PROBES_MAX): one more shares a bit with its neighbours."""
    config, real, model = mourned
    debt = real._hash("a")
    names = (f"n{number}" for number in itertools.count())
    neighbour, local = itertools.islice((name for name in names if real._hash(name) >> 55 == debt >> 55), 2)
    for name, is_local in ((neighbour, False), (local, True), ("b", False)):
        real.set(name, 1, local=is_local), model.set(real._hash(name), 1, local=is_local)
    die_with(config, *["a"] * 129)
    model.debts, model.range_debts = [debt] * 128, [debt >> 55]
    assert real.sweep() == 1
    model.sweep()
    assert real.tail == model.tail
    for name, value in ((neighbour, None), (local, 1), ("b", 1)):
        key = real._hash(name)
        assert real.get(name) == model.get(key) == value
    assert real.pack(0, 4096, 9999) is None and model.pack(0, 4096, 9999) is None
    assert real.map_piece(0, 0, WHOLE) == model.map_piece(0, 0, WHOLE)
