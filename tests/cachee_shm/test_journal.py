"""The journal: what happened to keys, in which process, as this host kept it (core/journal.c)."""

import itertools
import os
import random
import struct

import pytest

import cachee_shm
from tests.cachee_shm.processes import child

WIRE_KEY, WIRE_KEY_SET, WIRE_CLEAR = 1, 2, 4
SAMPLE_ONE_IN = 256
ARMED_PLACES = 4 * 16


@pytest.fixture
def config_all(config):
    config["namespaces"]["shop"]["journal"] = "all"
    return config


@pytest.fixture
def journalling(config_all):
    with cachee_shm.attach(config=config_all, service="checkout") as cache:
        yield cache


@pytest.fixture
def quiet(config):
    """Nothing is sampled: only what is armed is journalled."""
    config["namespaces"]["shop"]["journal"] = "off"
    with cachee_shm.attach(config=config) as cache:
        yield cache


def rows(cache, key):
    return sorted(cache.journal(cache._hash(key)), key=lambda row: row["at"])


def told(cache, key):
    """(kind, why) of each row."""
    return [(row["kind"], row["why"]) for row in rows(cache, key)]


def from_peer(cache, *fields, form="<BQ"):
    return cache.apply(cache.source_open("web-2"), struct.pack(form, *fields))


def test_a_write_is_journalled_with_its_position_and_the_process_that_did_it(journalling):
    journalling.set("a", 1)
    (row,) = rows(journalling, "a")
    assert (row["kind"], row["why"], row["layer"]) == ("written", "", "segment")
    assert (row["sequence"], row["incarnation"]) == (journalling.tail, journalling.incarnation)
    assert (row["pid"], row["service"], row["source"]) == (os.getpid(), "checkout", journalling.spec.host)
    assert row["command"]


def test_each_thing_that_befalls_a_key_has_its_row(journalling):
    journalling.set("a", 1)
    journalling.delete("a")
    token = journalling.tail
    journalling.set("a", 2, ttl=0)
    journalling._fill("a", 3, token, 0, 60, 0, (), False)
    journalling.get_or_load("a", lambda: 4)
    journalling.set("a", 5, local=True)
    journalling.clear()
    assert told(journalling, "a") == [
        ("written", ""),
        ("deleted", ""),
        ("written", "stored nothing"),
        ("refused", "written since it was loaded"),
        ("filled", ""),
        ("written", "local"),
        ("deleted", "clear"),
    ]


def test_what_a_peer_announced_says_what_it_did_here(journalling):
    journalling.set("a", 1)
    from_peer(journalling, WIRE_KEY, journalling._hash("a"))
    from_peer(journalling, WIRE_KEY, journalling._hash("a"))
    from_peer(journalling, WIRE_CLEAR, form="<B")
    assert told(journalling, "a")[1:] == [
        ("received", "evicted a copy"),
        ("received", "not held"),
        ("received", "clear"),
    ]
    assert {row["source"] for row in rows(journalling, "a")[1:]} == {"web-2"}


def test_an_entry_that_falls_out_for_want_of_room_is_journalled(journalling):
    journalling.arm(journalling._hash("first"), 600)
    journalling.set("first", b"x" * 1000)
    for number in range(10_000):
        journalling.set(f"more:{number}", b"x" * 1000)
    assert ("evicted", "capacity") in told(journalling, "first")


def test_an_entry_that_expired_is_journalled_as_expired_when_its_page_goes(journalling):
    journalling.arm(journalling._hash("first"), 600)
    now = journalling.now_ms()
    journalling._freeze(now)
    journalling.set("first", b"x" * 1000, ttl=1)
    journalling._freeze(now + 2_000)
    for number in range(20_000):
        journalling.set(f"more:{number}", b"x" * 1000)
    assert ("evicted", "expired") in told(journalling, "first")


def test_a_stale_value_that_is_served_while_its_load_fails_is_journalled(journalling):
    now = journalling.now_ms()
    journalling._freeze(now)
    journalling.get_or_load("a", lambda: 1, ttl=1, stale=60)
    journalling._freeze(now + 2000)

    def fails():
        raise OSError("the origin is away")

    assert journalling.get_or_load("a", fails, ttl=1, stale=60) == 1
    assert ("stale_served", "its load failed") in told(journalling, "a")


def test_one_key_in_256_is_sampled_and_the_same_ones_in_every_process(config):
    config["namespaces"]["shop"]["memory"] = "32MiB"
    with cachee_shm.attach(config=config) as cache, cachee_shm.attach(config=config) as another:
        names = [f"key:{number}" for number in range(10_000)]
        wanted = {name for name in names if cache._hash(name) % SAMPLE_ONE_IN == 0}
        for name, by in zip(names, itertools.cycle((cache, another)), strict=False):
            by.set(name, 1)
        assert 10 < len(wanted) < 100
        assert {name for name in names if cache.journal(cache._hash(name))} == wanted


def test_without_sampling_nothing_is_journalled_but_what_is_armed(quiet):
    for number in range(2_000):
        quiet.set(f"key:{number}", 1)
    assert not any(quiet.journal(quiet._hash(f"key:{number}")) for number in range(2_000))
    quiet.arm(quiet._hash("key:7"), 60)
    quiet.set("key:7", 2)
    quiet.set("key:8", 2)
    assert told(quiet, "key:7") == [("held", ""), ("written", "")]
    assert told(quiet, "key:8") == []


def test_the_next_reader_of_an_armed_key_says_so_and_no_other(quiet, config):
    with cachee_shm.attach(config=config, service="reader") as another:
        quiet.set("a", 1)
        assert quiet.arm(quiet._hash("a"), 60)
        assert (another.get("a"), quiet.get("a"), another.get("a")) == (1, 1, 1)
        held, read = rows(quiet, "a")
    assert (held["kind"], read["kind"], read["service"], read["layer"]) == (
        "held",
        "first_read",
        "reader",
        "segment",
    )
    assert (held["sequence"], held["digest"], held["since"]) == (
        read["sequence"],
        read["digest"],
        pytest.approx(read["since"], abs=0.2),
    )
    assert 0 <= held["at"] - held["since"] < 60


def test_the_first_reader_of_an_armed_key_says_whether_its_near_cache_had_it(config):
    config["namespaces"]["shop"] |= {"journal": "off", "near_cache": "64KiB"}
    with cachee_shm.attach(config=config) as near:
        near.set("a", "value")
        for _ in range(4):
            near.get("a")
        assert near.stats()["near_hits"]
        near.arm(near._hash("a"), 60)
        assert near.get("a") == near.get("a") == "value"
        assert rows(near, "a")[-1]["layer"] == "near"
        near.set("b", "value")
        near.arm(near._hash("b"), 60)
        near.get("b")
        assert rows(near, "b")[-1]["layer"] == "segment"


def test_a_value_that_is_stored_while_its_key_is_armed_is_armed_too(quiet):
    assert not quiet.arm(quiet._hash("a"), 60)
    quiet.get_or_load("a", lambda: 1)
    quiet.get("a")
    quiet.set("a", 2)
    quiet.get("a")
    assert told(quiet, "a") == [
        ("held", "not held"),
        ("filled", ""),
        ("first_read", ""),
        ("written", ""),
        ("first_read", ""),
    ]


def test_an_entry_that_is_touched_stays_armed(quiet):
    quiet.set("a", 1)
    quiet.arm(quiet._hash("a"), 600)
    assert told(quiet, "a") == [("held", "")]  # of the journal: it was written before it was armed
    quiet.touch("a", ttl=60)
    assert told(quiet, "a")[1:] == [("first_read", "")]  # touch has found it


def test_an_entry_that_is_carried_to_another_page_stays_armed(quiet):
    quiet.set("a", b"x" * 100)
    for _ in range(4):
        quiet.get("a")
    quiet.arm(quiet._hash("a"), 600)
    before = quiet.stats()["reinserted"]
    for number in range(10_000):
        quiet.set(f"more:{number}", b"x" * 1000)
    assert quiet.stats()["reinserted"] > before
    assert quiet.get("a") is not None
    assert told(quiet, "a") == [("held", ""), ("first_read", "")]


def test_a_peer_that_keeps_the_value_leaves_it_armed(quiet):
    quiet.set("a", 1)
    quiet.arm(quiet._hash("a"), 600)
    quiet.delete("b")
    assert quiet.get("a") == 1
    assert told(quiet, "a")[-1] == ("first_read", "")


def test_arming_ends(quiet):
    now = quiet.now_ms()
    quiet._freeze(now)
    quiet.arm(quiet._hash("a"), 2)
    quiet._freeze(now + 1_999)
    quiet.set("a", 1)
    quiet._freeze(now + 2_000)
    quiet.set("a", 2)
    assert told(quiet, "a") == [("held", "not held"), ("written", "")]


def test_arming_again_for_less_does_not_end_it_sooner(quiet):
    now = quiet.now_ms()
    quiet._freeze(now)
    quiet.arm(quiet._hash("a"), 10)
    quiet.arm(quiet._hash("a"), 1)
    quiet._freeze(now + 5_000)
    quiet.set("a", 1)
    assert ("written", "") in told(quiet, "a")


def test_where_too_many_keys_are_armed_the_one_that_ends_first_gives_way(quiet):
    names = [f"key:{number}" for number in range(ARMED_PLACES * 8)]
    for seconds, name in enumerate(names, 60):
        quiet.arm(quiet._hash(name), seconds)
    watched = [name for name in names if quiet.set(name, 1) and ("written", "") in told(quiet, name)]
    assert len(watched) == ARMED_PLACES
    assert names[-1] in watched and names[0] not in watched


def test_who_wrote_is_known_after_it_has_died(journalling, config_all):
    with child("cache.set('a', 1); say('done'); wait()", config=config_all) as writer:
        writer.line()
        writer.kill()
        (row,) = rows(journalling, "a")
        assert row["pid"] == writer.pid and row["command"]


def test_a_process_that_is_called_something_else_writes_under_its_new_name(journalling):
    journalling.set("a", 1)
    journalling._call("reports")
    journalling.set("a", 2)
    assert [row["service"] for row in rows(journalling, "a")] == ["checkout", "reports"]


def test_a_forked_child_writes_under_its_own_pid(journalling):
    journalling.set("a", 1)
    pid = os.fork()
    if pid == 0:
        journalling.set("a", 2)
        os._exit(0)
    os.waitpid(pid, 0)
    assert [row["pid"] for row in rows(journalling, "a")] == [os.getpid(), pid]


def test_more_processes_than_names_leave_the_living_with_theirs(journalling, config_all):
    journalling.set("a", 1)
    for _ in range(100):
        with cachee_shm.attach(config=config_all, service="short") as short:
            short.set("b", 1)
    journalling.set("a", 2)
    assert [row["service"] for row in rows(journalling, "a")][-1] == "checkout"


def test_the_journal_is_bounded_and_keeps_what_is_newest(journalling):
    for number in range(20_000):
        journalling.set("a", number)
    kept = rows(journalling, "a")
    assert 32 <= len(kept) <= 128
    assert kept[-1]["sequence"] == journalling.tail
    assert [row["sequence"] for row in kept] == list(
        range(journalling.tail - len(kept) + 1, journalling.tail + 1)
    )


def test_rows_of_armed_keys_outlive_any_number_of_sampled_ones(journalling):
    journalling.arm(journalling._hash("rare"), 600)
    journalling.set("rare", 1)
    for number in range(20_000):
        journalling.set(f"key:{number % 50}", number)
    assert told(journalling, "rare") == [("held", "not held"), ("written", "")]


def test_rows_of_a_users_key_outlive_any_number_of_canaries_that_were_lost(quiet):
    quiet.arm(quiet._hash("rare"), 600)
    for number in range(1, 1000):
        quiet.arm(number << 54, 600)
    assert told(quiet, "rare") == [("held", "not held")]
    assert [row["kind"] for row in quiet.journal(999 << 54)] == ["held"]


def test_the_last_that_attaches_says_what_is_sampled(config):
    with cachee_shm.attach(config=config) as cache:
        config["namespaces"]["shop"]["journal"] = "all"
        with cachee_shm.attach(config=config):
            cache.set("a", 1)
        assert told(cache, "a") == [("written", "")]


def test_a_journal_of_a_model_keeps_each_event_in_order(quiet):
    """Verbs at random on armed keys, beside a list of what they must have left."""
    chance = random.Random(14)
    names = [f"key:{number}" for number in range(4)]
    model = {name: [("held", "not held")] for name in names}
    holds = dict.fromkeys(names, False)
    for name in names:
        quiet.arm(quiet._hash(name), 600)
    for _ in range(24):
        name = chance.choice(names)
        verb = chance.choice(["set", "delete", "peer", "get", "get", "load"])
        if verb == "set":
            quiet.set(name, 1)
            model[name].append(("written", ""))
            holds[name] = True
        elif verb == "delete":
            quiet.delete(name)
            model[name].append(("deleted", ""))
            holds[name] = False
        elif verb == "peer":
            from_peer(quiet, WIRE_KEY, quiet._hash(name))
            model[name].append(("received", "evicted a copy" if holds[name] is not False else "not held"))
            holds[name] = False
        elif verb == "load":
            quiet.get_or_load(name, lambda: 2)
            if holds[name] is True:
                model[name].append(("first_read", ""))
                holds[name] = "read"
            elif holds[name] is False:
                model[name].append(("filled", ""))
                holds[name] = True
        elif quiet.get(name) is not None and holds[name] is True:
            model[name].append(("first_read", ""))
            holds[name] = "read"
        assert {each: told(quiet, each) for each in names} == model


@pytest.mark.parametrize("wrong", [-1, 1 << 64, "a", None, 1.5])
def test_a_hash_is_a_number_of_64_bits(cache, wrong):
    with pytest.raises((TypeError, OverflowError)):
        cache.journal(wrong)
    with pytest.raises((TypeError, OverflowError)):
        cache.arm(wrong, 1)


@pytest.mark.parametrize("wrong", [-1, float("nan"), "soon"])
def test_a_key_is_armed_for_a_period(cache, wrong):
    with pytest.raises((TypeError, ValueError)):
        cache.arm(1, wrong)


def test_a_journal_of_garbage_is_an_empty_one(journalling):
    """Of each row, one byte at a time is another: no row of wrong content is shown, and nothing breaks."""
    journalling.set("a", 1)
    (row,) = rows(journalling, "a")
    path = f"/dev/shm{journalling.name}"
    with open(path, "r+b") as file:
        data = file.read()
        at = data.index(struct.pack("<Q", journalling._hash("a")), 0)
        while data[at + 8 : at + 16] == bytes(8) or data[at - 8 : at] == bytes(8):
            at = data.index(struct.pack("<Q", journalling._hash("a")), at + 8)
        for offset in range(-8, 48):
            byte = data[at + offset]
            file.seek(at + offset)
            file.write(bytes([byte ^ 0x40]))
            file.flush()
            assert all(found == row for found in journalling.journal(journalling._hash("a")))
            file.seek(at + offset)
            file.write(bytes([byte]))
            file.flush()
    assert rows(journalling, "a") == [row]
