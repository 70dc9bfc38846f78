"""Writes whose outcome is unknown: the commit was sent, and its answer never came."""

import contextlib
import socket
import threading

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

import cachee_shm
import cachee_shm.sqlalchemy
from cachee_bridge.shell.doorbell import Doorbell
from cachee_shm.transactions import DUES_MAX, Transaction, is_refusal
from tests.cachee_shm.bridged import Bridge, attach, with_bridge
from tests.cachee_shm.processes import child, until
from tests.cachee_shm.test_sqlalchemy import (
    KEY,
    Base,
    User,
    name_in,
    update,
    url,
    watching,
)

KEY_UNKNOWN, EVERYTHING = 7, 5
WRITE = "UPDATE t SET a = 1"


@pytest.fixture(params=["0s", "300ms"], ids=["once", "twice"])
def unknown_ttl(request, config):
    """ "0s" is what happens without the rule."""
    config["namespaces"]["shop"]["unknown_ttl"] = request.param
    return request.param


class Proxy:
    """Between a client and PostgreSQL. It keeps a COMMIT, and hangs up; ``release`` sends it on."""

    def __init__(self, server):
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = {**server, "port": self.listener.getsockname()[1]}
        self.kept = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                database = socket.create_connection((self.server["host"], self.server["port"]))
                for pair in ((client, database), (database, client)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, come_from, go_to):
        with contextlib.suppress(OSError):
            while data := come_from.recv(1 << 16):
                if b"COMMIT" in data:
                    self.kept = (go_to, data)
                    come_from.shutdown(socket.SHUT_RDWR)
                    return
                go_to.sendall(data)
            if self.kept is None:
                go_to.shutdown(socket.SHUT_RDWR)

    def release(self):
        connection, data = self.kept
        connection.sendall(data)


@pytest.fixture
def proxy(postgres):
    one = Proxy(postgres)
    yield one
    one.listener.close()


def test_a_commit_that_comes_late_leaves_no_stale_row(postgres, proxy, unknown_ttl, config):
    through = sqlalchemy.create_engine(url(proxy.address, "postgres"))
    direct = sqlalchemy.create_engine(url(postgres, "postgres"))
    Base.metadata.drop_all(direct)
    Base.metadata.create_all(direct)
    with Session(direct) as session, session.begin():
        session.add(User(id=1, name="old"))
    with cachee_shm.attach(config=config) as cache, watching(through):
        with Session(through) as session:
            update(session)
            cache.delete(KEY)
            with pytest.raises(sqlalchemy.exc.OperationalError):
                session.commit()

        def read():
            with Session(direct) as session:
                return cache.get_or_load(KEY, name_in, session)

        assert read() == "old"  # the commit is on its way
        proxy.release()
        until(lambda: in_the_database(direct) == "new")
        if unknown_ttl == "0s":
            assert read() == "old"  # stale, and for ever
        else:
            until(lambda: read() == "new")
    through.dispose()
    direct.dispose()


def in_the_database(engine):
    with Session(engine) as session:
        return name_in(session)


# The cache's part


@pytest.fixture
def short(config):
    config["namespaces"]["shop"]["unknown_ttl"] = "300ms"
    return config


@pytest.fixture
def cache(short):
    with cachee_shm.attach(config=short) as attached:
        yield attached


def lost(cache, *invalidate):
    one = Transaction()
    one.statement(WRITE)
    for each, *args in invalidate:
        each(*args)
    one.committing()
    one.ended_by(ConnectionError())


def test_what_is_loaded_in_between_is_announced_again(cache):
    events = cache.events()
    lost(cache, (cache.delete, "a"))
    assert cache.get_or_load("a", lambda: "old") == "old"
    assert len(events.poll()) == 1
    until(lambda: cache.get("a") is None)
    until(lambda: cache.get("x") or events.poll())


def test_another_lifetime_does_not_outlast_the_doubt(cache):
    lost(cache, (cache.delete, "a"))
    cache.get_or_load("a", lambda: "old", stale=60)
    cache.touch("a", ttl=None)
    until(lambda: cache._find("a", False) == (0, None))


def test_what_this_host_set_itself_is_given_its_whole_lifetime_in_a_doubt(config):
    """A peer's map of buckets, or ALL, puts every key in doubt."""
    config["namespaces"]["shop"] |= {"unknown_ttl": "30s", "on_isolation": "serve"}
    bridge, here = Bridge(config), attach(config)
    now = here.now_ms()
    here._freeze(now)
    bridge.segment._freeze(now)
    bridge.segment.apply(bridge.segment.source_open("a"), bytes([EVERYTHING]))
    here.set("set", 1)
    here.set("draft", 1, local=True)
    with here.writing("written") as w:
        w.set(1)
    here.get_or_load("loaded", lambda: 1)
    for key in ("set", "draft", "written", "loaded"):
        assert here.touch(key, ttl=3600)
    here._freeze(now + 60_000)
    assert sorted(here.get_many(["set", "draft", "written", "loaded"])) == ["draft", "set", "written"]
    here._freeze(None)
    here.close()
    bridge.close()


def test_tags_and_clear_are_announced_again(cache):
    events = cache.events()
    lost(cache, (cache.delete_tags, "team"), (cache.clear,))
    first = [event.kind for event in events.poll()]
    second = []
    until(lambda: cache.get("x") or len(second.extend(e.kind for e in events.poll()) or second) >= 2)
    assert sorted(first) == sorted(second)


def test_a_known_outcome_is_announced_once(cache):
    events = cache.events()
    one = Transaction()
    one.statement(WRITE)
    cache.delete("a")
    one.committing()
    one.committed()
    assert len(events.poll()) == 1
    cache.get_or_load("a", lambda: "new")
    for _ in range(60):
        assert cache.get("a") == "new"
        threading.Event().wait(0.02)


def test_a_large_transaction_that_was_committed_clears_nothing_later(cache):
    """Its dues would fill the table, and what has no place there is paid by a clear."""
    cache.set("untouched", 1)
    one = Transaction()
    one.statement(WRITE)
    for i in range(1000):
        cache.delete(f"k{i}")
    one.committing()
    one.committed()
    events = cache.events()
    for _ in range(60):
        assert cache.get("untouched") == 1
        threading.Event().wait(0.02)
    assert events.poll() == []


def test_a_due_of_the_same_key_in_the_place_of_another_that_was_paid_stays(cache):
    now = cache.now_ms()
    cache._freeze(now)
    first = cache._owe(0, b"a")
    cache._freeze(now + 1)
    cache._owe_no_more(0, b"a", first)
    second = cache._owe(0, b"a")
    assert second % (1 << 16) == first % (1 << 16)  # the place
    cache._owe_no_more(0, b"a", first)
    third = cache._owe(0, b"a")
    assert third % (1 << 16) != second % (1 << 16)
    for due in (second, third):
        cache._owe_no_more(0, b"a", due)
    cache._freeze(None)


@pytest.mark.parametrize("invalidates", ["cache.clear()", "[cache.delete(f'k{i}') for i in range(100)]"])
def test_a_death_loses_no_clear(short, invalidates):
    with cachee_shm.attach(config=short) as cache:
        cache.set("b", 1)
        with child(DIES.replace('cache.delete("a")', invalidates), config=short) as other:
            other.line()
            other.process.wait()
        until(lambda: cache.get("b") is None)


def test_a_death_with_as_many_dues_as_a_transaction_keeps_loses_these_keys_alone(short):
    keys = [f"k{i}" for i in range(DUES_MAX)]
    with cachee_shm.attach(config=short) as cache:
        cache.set_many(dict.fromkeys(["untouched", *keys], 1))
        with child(DIES.replace('cache.delete("a")', f"cache.delete_many({keys})"), config=short) as other:
            other.line()
            other.process.wait()
        until(lambda: not cache.get_many(keys))
        assert cache.get("untouched") == 1


def test_a_death_loses_no_second_announcement(short):
    short["namespaces"]["shop"]["unknown_ttl"] = "4s"  # longer than it takes to notice a death
    with cachee_shm.attach(config=short) as cache:
        events = cache.events()
        with child(DIES, config=short) as other:
            other.line()
            other.process.wait()
        until(lambda: cache.get("x") or events.poll())
        assert cache.get_or_load("a", lambda: "old") == "old"
        until(lambda: cache.get("x") or events.poll())
        assert cache.get("a") is None


DIES = """
from cachee_shm.transactions import Transaction
one = Transaction()
one.statement("UPDATE t SET a = 1")
cache.delete("a")
one.committing()
say("sent")
die()
"""


def test_more_dues_than_places_become_a_clear(cache):
    cache.set("untouched", 1)
    lost(cache, *((cache.delete, f"k{i}") for i in range(3000)))
    until(lambda: cache.get("untouched") is None)


def test_a_death_is_announced_as_an_unknown_outcome(short):
    short["namespaces"]["shop"]["unknown_ttl"] = "60s"
    bridge, here = Bridge(short), attach(short)
    start = bridge.segment.tail
    with child(DIES, config=with_bridge(short)) as other:
        other.line()
        other.process.wait()
    until(lambda: here.get("x") or bridge.segment.tail > start)
    _, payload = bridge.segment.pack(start, 100, 1 << 16)
    assert payload[0] == KEY_UNKNOWN
    here.close()
    bridge.close()


@pytest.mark.parametrize("kind", [KEY_UNKNOWN, EVERYTHING], ids=["a key", "everything"])
def test_without_the_rule_no_peer_shortens_the_life_of_what_is_touched_or_filled(config, kind):
    """The bridge read the clock a tick after the worker did."""
    config["namespaces"]["shop"] |= {"unknown_ttl": "0s", "on_isolation": "serve"}
    bridge, here = Bridge(config), attach(config)
    now = here.now_ms()
    here._freeze(now)
    here.set("draft", "kept", ttl=None, local=True)
    bridge.segment._freeze(now + 10)
    record = bytes([kind]) + (here._hash("draft").to_bytes(8, "little") if kind == KEY_UNKNOWN else b"")
    bridge.segment.apply(bridge.segment.source_open("a"), record)
    assert here.touch("draft", ttl=60)
    assert here.get_or_load("row", lambda: "loaded", ttl=60) == "loaded"
    here._freeze(now + 20)
    assert here.get_many(["draft", "row"]) == {"draft": "kept", "row": "loaded"}
    here._freeze(None)
    here.close()
    bridge.close()


def test_the_kind_goes_over_the_wire_and_caps_the_fills_of_a_peer(short):
    short["namespaces"]["shop"]["on_isolation"] = "serve"  # no other cap
    bridge, here = Bridge(short), attach(short)
    start = bridge.segment.tail
    lost(here, (here.delete, "a"))
    here.delete("a")
    _, payload = bridge.segment.pack(start, 100, 1 << 16)
    assert [payload[0], payload[9]] == [KEY_UNKNOWN, 1]
    here.close()
    bridge.close()

    there = dict(short, host={"name": short["host"]["name"] + "-b"})
    bridge, peer = Bridge(there), attach(there)
    source = bridge.segment.source_open("a")
    bridge.segment.apply(source, payload[:9])
    hash_here = int.from_bytes(payload[1:9], "little")
    assert hash_here == peer._hash("a")
    assert peer.get_or_load("a", lambda: "old") == "old"
    until(lambda: peer.get("a") is None)
    peer.close()
    bridge.close()


def test_what_a_peer_read_before_the_doubt_ended_and_stores_after_it_is_not_kept(short):
    """Where the announcing host has died, no second announcement would end it."""
    short["namespaces"]["shop"]["on_isolation"] = "serve"
    bridge, peer = Bridge(short), attach(short)
    now = peer.now_ms()
    peer._freeze(now)
    source = bridge.segment.source_open("a")
    bridge.segment.apply(source, bytes([KEY_UNKNOWN]) + peer._hash("a").to_bytes(8, "little"))

    def load(ms):
        peer._freeze(peer.now_ms() + ms)
        return "row"

    assert peer.get_or_load("a", load, 1000) == "row"
    assert peer.get("a") is None
    assert peer.get_or_load("a", load, 1000) == "row"  # begun after the doubt
    assert peer.get("a") == "row"
    peer._freeze(None)
    peer.close()
    bridge.close()


@pytest.fixture
def bell(short):
    made = Doorbell.create(short["host"]["name"], None)
    yield made
    made.close()


def asleep(bridge, bell):
    """All is healed, and the next writer rings."""
    bridge.segment.heal(bridge.segment.pump_cursor, 1 << 12, 0, b"")
    bell.answer()
    assert bridge.segment.bridge_sleep(True)


@pytest.mark.needs("message queues")
def test_a_second_announcement_wakes_the_bridge(short, bell):
    bridge, here = Bridge(short), attach(short)
    lost(here, (here.delete, "a"))
    asleep(bridge, bell)
    until(lambda: here.get("x") or bell.rung() == ["shop"])
    here.close()
    bridge.close()


@pytest.mark.needs("message queues")
@pytest.mark.parametrize("keys", [1, 1000], ids=["an intent", "a bucket"])
def test_what_the_dead_owed_wakes_the_bridge(short, bell, keys):
    """The survivor only reads: no verb of its own would ring."""
    bridge, here = Bridge(short), attach(short)
    with child(OPEN_BLOCK.replace("KEYS", str(keys)), config=with_bridge(short)) as other:
        other.line()
        asleep(bridge, bell)
        other.process.kill()
        other.process.wait()
    until(lambda: here.get("x") or bell.rung() == ["shop"])
    here.close()
    bridge.close()


OPEN_BLOCK = """
blocks = [cache.writing(f"k{i}") for i in range(KEYS)]
for block in blocks:
    block.__enter__()
for block in blocks[:-1]:
    block.__exit__(None, None, None)
say("open")
wait()
"""


class Refused(Exception):
    def __init__(self, *args, sqlstate=None):
        super().__init__(*args)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Refused(sqlstate="40001"), True),
        (Refused(sqlstate="23505"), True),
        (Refused(sqlstate="40003"), False),
        (Refused(sqlstate="08006"), False),
        (Refused(sqlstate="57P01"), False),
        (Refused(1213, "Deadlock found"), True),
        (Refused(2013, "Lost connection"), False),
        (Refused(1053, "Server shutdown"), False),
        (Refused("server closed the connection unexpectedly"), False),
        (TimeoutError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_refusal_is_the_databases_own_answer(error, refused):
    assert is_refusal(error) is refused
