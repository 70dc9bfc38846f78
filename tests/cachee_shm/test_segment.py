"""Making a segment, finding it, refusing what is none, and following it when it is replaced."""

import grp
import importlib
import logging
import os
import random
import struct
import subprocess
import sys
import time

import posix_ipc
import pytest

import cachee_shm
from cachee_shm import attaching, segment
from cachee_shm import config as config_module
from cachee_shm.errors import (
    AccessDenied,
    ConfigError,
    LayoutMismatch,
    RosterFull,
    SegmentError,
    SegmentRetired,
)
from tests import machine
from tests.cachee_shm.processes import child, children, in_fork, until

NOBODY = 65534
HEADER = struct.Struct("<QQQ")  # magic, fingerprint, bytes in all


def in_small_memory(megabytes, code, options="", **arguments):
    """Run code where /dev/shm is a tmpfs of this size; what it said."""
    machine.require("mount namespaces")
    mount = f'mount -t tmpfs -o size={megabytes}m{options} tmpfs /dev/shm && exec "$0" "$@"'
    with child(code, under=("unshare", "-m", "sh", "-c", mount), **arguments) as one:
        return one.end()


def file_of(config, namespace="shop"):
    return f"/dev/shm/cachee.{config['host']['name']}.{namespace}.{cachee_shm._core.LAYOUT}"


def leave(config, data):
    """A file of this user's alone where the segment would be."""
    with open(os.open(file_of(config), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(data)


def bytes_of(config):
    with open(file_of(config), "rb") as file:
        return file.read()


def become(user, groups=()):
    os.setgroups(list(groups))
    os.setgid(user)
    os.setuid(user)


# Making it


def test_of_many_concurrent_creators_one_makes_the_segment_and_all_share_it(config):
    config["namespaces"]["shop"]["memory"] = "16MiB"  # every live writer holds a page or two
    code = """
import cachee_shm.config
start, go = os.pipe()
out, answers = os.pipe()
for number in range(64):
    if os.fork() == 0:
        os.close(go)
        os.read(start, 1)
        cache = cachee_shm.attach(config=arguments['wanted'])
        cache.set(f'key-{number}', number)
        os.write(answers, b'%d\\n' % cache.incarnation)
        os._exit(0)
os.close(start), os.close(go)
statuses = [os.wait()[1] for _ in range(64)]
say(len(set(os.read(out, 65536).split())), sum(statuses))
"""
    with child(code, wanted=config) as one:
        assert one.end() == ["1 0"]
    with cachee_shm.attach(config=config) as cache:
        assert cache.get_many(f"key-{n}" for n in range(64)) == {f"key-{n}": n for n in range(64)}


def test_all_its_memory_is_reserved_when_it_is_made(cache, config):
    found = os.stat(file_of(config))
    assert (found.st_size, found.st_blocks * 512) == (4 << 20, 4 << 20)


def test_an_existing_segment_of_another_size_wins_with_a_warning(cache, config, caplog):
    cache.set("a", 1)
    config["namespaces"]["shop"]["memory"] = "8MiB"
    with caplog.at_level(logging.WARNING), cachee_shm.attach(config=config) as second:
        assert second.get("a") == 1
        assert second.stats()["memory_bytes"] == 4 << 20
    assert "4194304 bytes, not the configured 8388608" in caplog.text


@pytest.mark.parametrize("left", [b"", bytes(5000), bytes(64 << 20)], ids=["nothing", "a page", "all of it"])
def test_a_segment_that_a_dead_creator_left_half_made_is_made_anew(config, left):
    leave(config, left)
    with cachee_shm.attach(config=config) as cache:
        assert cache.set("a", 1)
        assert os.stat(file_of(config)).st_size == 4 << 20


def test_creators_that_are_killed_leave_no_segment_that_nobody_can_use(config):
    config["namespaces"]["shop"]["memory"] = "64MiB"
    code = "say('ready'); wait(); cachee_shm.attach(config=arguments['wanted']).set('a', 1)"
    for round_ in range(6):
        with children(code, 2, wanted=config) as creators:
            for creator in creators:
                creator.line()
                creator.tell()
            time.sleep(random.Random(round_).random() * 0.03)
            for creator in creators:
                creator.kill()
        with cachee_shm.attach(config=config) as cache:
            assert cache.set("a", round_)
            cache.sweep()
            assert cache.stats()["attached"] == 1
        os.unlink(file_of(config))


def test_a_roster_that_is_full_refuses_one_more_until_one_leaves(config):
    config["namespaces"]["shop"]["memory"] = "2MiB"
    attached = []
    with pytest.raises(RosterFull, match="Attach fewer"):
        for _ in range(5000):
            attached.append(cachee_shm.attach(config=config))
    assert len(attached) == 128
    attached[7].close()
    with cachee_shm.attach(config=config) as one:
        assert one.set("a", 1)
        assert attached[3].get("a") == 1
    for cache in attached:
        cache.close()


def test_a_segment_never_gets_the_number_of_a_standard_stream_that_is_closed(cache, config):
    cache.set("a", b"1")
    code = f"""
import os
for stream in (0, 1, 2):
    os.close(stream)
import cachee_shm
cache = cachee_shm.attach(config={config!r})
for stream in (0, 1, 2):
    try:
        os.write(stream, b"what a library reports " * 100)
    except OSError:
        pass
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cache.get("a") == b"1"
    with cachee_shm.attach(config=config) as second:
        assert second.get("a") == b"1"


# Who may


def test_a_segment_is_its_user_s_alone(cache, config):
    assert os.stat(file_of(config)).st_mode & 0o777 == 0o600


def test_a_configured_group_may_attach_too(config):
    gid = os.getgroups()[0] if os.getgroups() else os.getgid()
    config["host"]["group"] = grp.getgrgid(gid).gr_name
    old = os.umask(0o077)
    try:
        with cachee_shm.attach(config=config):
            found = os.stat(file_of(config))
    finally:
        os.umask(old)
    assert (found.st_mode & 0o777, found.st_gid) == (0o660, gid)


@pytest.mark.needs("other users")
def test_another_user_of_the_group_shares_the_segment(config):
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, NOBODY))
    config["host"]["group"] = group.gr_name
    with cachee_shm.attach(config=config) as cache:
        cache.set("a", 1)

        def other():
            become(NOBODY, [group.gr_gid])
            with cachee_shm.attach(config=config) as mine:
                assert mine.get("a") == 1
                mine.set("a", 2)

        in_fork(other)
        assert cache.get("a") == 2


@pytest.mark.needs("other users")
def test_another_user_is_refused(cache, config):
    def other():
        cache.close()
        become(NOBODY)
        with pytest.raises(AccessDenied, match=r"may not be opened by user 65534.*\[host\]"):
            cachee_shm.attach(config=config)

    in_fork(other)
    assert cache.set("a", 1)


@pytest.mark.needs("other users")
def test_a_user_who_is_not_of_the_configured_group_is_refused_and_leaves_no_file(config):
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, NOBODY))
    config["host"]["group"] = group.gr_name

    def other():
        become(NOBODY)
        with pytest.raises(AccessDenied, match="Run as a member of the group"):
            cachee_shm.attach(config=config)

    in_fork(other)
    assert not os.path.exists(file_of(config))


@pytest.mark.needs("other users")
def test_where_no_file_may_be_made_access_is_denied(config):
    code = """
import cachee_shm.config
os.setgid(65534), os.setuid(65534)
try: cachee_shm.attach(config=arguments['wanted'])
except cachee_shm.CacheeError as error: say(type(error).__name__, error)
"""
    (said,) = in_small_memory(16, code, options=",mode=755", wanted=config)
    assert said.startswith("AccessDenied Segment") and "/dev/shm" in said


# What it needs


def test_too_little_shared_memory_is_an_error_at_once_and_reserves_nothing(config):
    code = """
from cachee_shm.errors import NoSpace
free = os.statvfs('/dev/shm').f_bavail
try: cachee_shm.attach(config=arguments['wanted'])
except NoSpace as error: say(error)
say(os.statvfs('/dev/shm').f_bavail == free and not os.listdir('/dev/shm'))
arguments['wanted']['namespaces']['shop']['memory'] = '2MiB'
say(cachee_shm.attach(config=arguments['wanted']).set('a', 1))
"""
    error, nothing_reserved, smaller_fits = in_small_memory(3, code, wanted=config)
    assert "Enlarge /dev/shm" in error
    assert (nothing_reserved, smaller_fits) == ("True", "True")


def test_a_cache_whose_successor_finds_no_room_yet_goes_on_when_there_is(config):
    code = """
import logging; logging.disable()
one, two = (cachee_shm.attach(config=arguments['wanted']) for _ in range(2))
one.retire()
for _ in range(2): say(one.set('a', 1), one.get('a'), one.closed, one.detached)
say(one.health().error)
two.close()
while not one.set('a', 1): time.sleep(.001)
say(one.get('a'), one.detached, one.health().ok)
one.close()
"""
    *twice, error, last = in_small_memory(6, code, wanted=config)
    assert twice == ["False None False True"] * 2
    assert "Enlarge /dev/shm" in error
    assert last == "1 False True"


@pytest.mark.needs("time namespaces")
def test_another_time_namespace_is_refused(cache, config):
    code = """
try: cachee_shm.attach(config=arguments['wanted'])
except cachee_shm.CacheeError as error: say(type(error).__name__)
"""
    with child(code, under=("unshare", "-T", "--fork"), wanted=config) as one:
        assert one.end() == ["TimeNamespace"]


def test_a_second_interpreter_of_one_process_is_refused(private_interpreter):
    assert "main interpreter only" in private_interpreter(
        "try:\n import cachee_shm\nexcept ImportError as error: say(error)"
    )


@pytest.fixture
def private_interpreter(tmp_path):
    new = sys.version_info >= (3, 13)
    machine.require("subinterpreters")
    subinterpreters = importlib.import_module("_interpreters" if new else "_xxsubinterpreters")

    def run(code):
        said = tmp_path / "said"
        identity = subinterpreters.create("legacy") if new else subinterpreters.create(isolated=False)
        subinterpreters.run_string(
            identity, f"def say(words): open({str(said)!r}, 'w').write(str(words))\n{code}"
        )
        subinterpreters.destroy(identity)
        return said.read_text()

    return run


# What is none


def damage(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"SQLite format 3\0", "not a cachee segment"),
        (8, b"\1" * 8, "another build"),
        (16, struct.pack("<Q", 1 << 40), "damaged"),
        (16, struct.pack("<Q", 3 << 20), "damaged"),
        (56, b"\xff" * 28, "damaged"),
        (24, b"another hash key", "hashes keys with another key"),
    ],
    ids=["magic", "fingerprint", "beyond the file", "other geometry", "counts", "hash key"],
)
def test_a_segment_of_another_build_or_damaged_is_refused_and_left_as_it_is(config, offset, data, message):
    cachee_shm.attach(config=config).close()
    damage(file_of(config), offset, data)
    before = bytes_of(config)
    with pytest.raises(LayoutMismatch, match=message):
        cachee_shm.attach(config=config)
    assert bytes_of(config) == before


@pytest.mark.parametrize("size", [1, 7, 100, 4095, 4096, 100_000])
def test_a_file_that_is_no_segment_is_refused_and_left_as_it_is(config, size):
    garbage = random.Random(size).randbytes(size - 1) + b"x"
    leave(config, garbage)
    with pytest.raises(LayoutMismatch, match=r"untouched.*cachee segment rm"):
        cachee_shm.attach(config=config)
    assert bytes_of(config) == garbage


def test_garbage_behind_a_good_header_gives_misses_or_clear_errors(config):
    rng = random.Random(1)
    for _ in range(20):
        with cachee_shm.attach(config=config) as cache:
            cache.set_many({f"key-{i}": i for i in range(500)})
        size = os.stat(file_of(config)).st_size
        for _ in range(200):
            damage(file_of(config), rng.randrange(4096, size - 4096), rng.randbytes(rng.randrange(1, 4096)))
        with cachee_shm.attach(config=config) as cache:
            cache.get_many(f"key-{i}" for i in range(500))  # whatever: values are not checksummed
            cache.set_many({f"key-{i}": -i for i in range(500)})
            cache.get_or_load("load", lambda: 1)
            cache.delete("key-1")
            cache.sweep()
            cache.stats()
            assert cache.get("key-1") is None
        os.unlink(file_of(config))


# Its life


def test_fields_that_bridges_of_other_layouts_read_are_where_every_layout_has_them(cache, config):
    """Numbers of layout.h that later releases read: they never change."""
    kept = struct.unpack_from("<8I", bytes_of(config), 4096 - 128)
    number, layout, roster_slots, _, ring_slots, _, fences_per_ring_slot, _ = kept
    assert (number, layout, fences_per_ring_slot) == (1, int(cachee_shm._core.LAYOUT), 16)
    assert roster_slots >= cache.stats()["attached"]
    assert ring_slots & (ring_slots - 1) == 0


def test_a_segments_life_is_named_by_the_wall_clock_and_by_chance_below_it(config):
    lives = []
    for _ in range(8):
        before = time.time_ns()
        with cachee_shm.attach(config=config) as cache:
            lives.append(cache.incarnation)
        os.unlink(file_of(config))
        assert before - (1 << 16) < lives[-1] < time.time_ns() + (1 << 16)
    assert lives == sorted(set(lives))
    assert len({life % (1 << 16) for life in lives}) > 1


def test_a_retired_segment_is_left_for_one_successor_by_all(cache, config, caplog):
    with cachee_shm.attach(config=config) as second:
        cache.set("a", 1)
        first_life = cache.incarnation
        second.retire()
        assert cache.get("a") is None
        assert cache.set("a", 2)
        assert second.get("a") == 2
        assert cache.incarnation == second.incarnation > first_life
    assert "was retired" in caplog.text


def test_many_processes_leave_a_retired_segment_for_one_successor(cache, config):
    code = """
import logging; logging.disable()
say('ready'); wait()
while not cache.set(f"key-{arguments['number']}", arguments['number']): pass
say(cache.incarnation)
wait()
"""
    with children(code, 8, config=config) as workers:
        for worker in workers:
            worker.line()
        cache.retire()
        until(lambda: cache.set("a", 1))
        for worker in workers:
            worker.tell()
        lives = {worker.line() for worker in workers}
        assert lives == {str(cache.incarnation)}
        assert len(cache.get_many(f"key-{n}" for n in range(8))) == 8


def test_an_unlinked_segment_is_noticed_and_left_for_its_successor(cache, config):
    cache.set("a", 1)
    posix_ipc.unlink_shared_memory(cache.name)
    with cachee_shm.attach(config=config) as second:
        assert until(lambda: second.set("a", 2) and cache.get("a") == 2)
        assert cache.incarnation == second.incarnation


def test_what_was_tagged_in_the_moment_of_the_change_is_found_by_its_tag(namespace):
    with cachee_shm.attach(namespace) as cache:
        cache.retire()
        cache.set("a", 1, tags=["t"])
        assert cache.get("a") == 1
        cache.delete_tags("t")
        assert cache.get("a") is None


def test_the_bridge_is_told_that_its_segment_was_retired(cache, config):
    held = segment.open_for_bridge(config_module.Config.parse(config), "shop")
    cache.retire()
    with pytest.raises(SegmentRetired, match="Attach again"):
        held.get("a")
    assert held.retired
    held.close()


def test_one_process_at_a_time_is_the_bridge_and_the_next_when_it_died(cache, config):
    code = "say(cache.bridge_acquire(), cache.bridge_generation()); wait()"
    assert cache.stats()["attached"] == 1
    with child(code, config=config) as bridge:
        assert bridge.line() == "True 1"
        assert cache.bridge_acquire() is False
        assert cache.attached_workers() == 1
        bridge.kill()
    assert cache.bridge_acquire() is True
    assert cache.bridge_generation() == 2


# Configurations and none


def test_without_a_configuration_there_is_an_embedded_one_of_32_mib_without_a_bridge(namespace):
    spec = attaching.spec_for(None, None, False)
    assert spec.path == f"/cachee.{os.getuid()}.default.{cachee_shm._core.LAYOUT}"
    assert (spec.namespace, spec.memory_bytes, spec.has_bridge, spec.group) == (
        "default",
        32 << 20,
        False,
        None,
    )
    with cachee_shm.attach(namespace) as cache, cachee_shm.attach(namespace) as second:
        cache.set("a", 1)
        assert second.get("a") == 1
        assert cache.stats()["memory_bytes"] == 32 << 20


def test_without_a_configuration_pydantic_is_not_imported():
    with child("cachee_shm.attach(private=True); say('pydantic' in sys.modules)") as one:
        assert one.end() == ["False"]


def as_toml(config):
    return f'[host]\nname = "{config["host"]["name"]}"\n[namespaces.shop]\nmemory = "4MiB"\n'


def test_a_configuration_is_a_path_a_dict_or_parsed(cache, config, tmp_path):
    path = tmp_path / "cachee.toml"
    path.write_text(as_toml(config))
    cache.set("a", 1)
    for given in (path, str(path), config, config_module.Config.parse(config)):
        with cachee_shm.attach("shop", config=given) as one, cachee_shm.attach(config=given) as same:
            assert one.get("a") == same.get("a") == 1


def test_the_environment_names_the_configuration_and_an_argument_wins(cache, config, tmp_path, monkeypatch):
    path = tmp_path / "cachee.toml"
    path.write_text(as_toml(config))
    cache.set("a", 1)
    monkeypatch.setenv("CACHEE_CONFIG", str(path))
    with cachee_shm.attach() as one:
        assert one.get("a") == 1
    config["namespaces"] = {"other": {"memory": "4MiB"}}
    with cachee_shm.attach(config=config) as other:
        assert (other.namespace, other.get("a")) == ("other", None)


def test_the_machine_s_file_is_read_where_there_is_one(cache, config, tmp_path, monkeypatch):
    path = tmp_path / "cachee.toml"
    path.write_text(as_toml(config))
    monkeypatch.setattr(attaching, "CONFIG_PATH", str(path))
    cache.set("a", 1)
    with cachee_shm.attach() as one:
        assert one.get("a") == 1
    path.write_text("nonsense")
    with pytest.raises(ConfigError):
        cachee_shm.attach()


def test_hosts_and_namespaces_do_not_share_a_segment(cache, config):
    cache.set("a", 1)
    other_host = {**config, "host": {"name": config["host"]["name"] + "x"}}
    config["namespaces"]["other"] = {"memory": "4MiB"}
    with (
        cachee_shm.attach("other", config=config) as one,
        cachee_shm.attach("shop", config=other_host) as two,
    ):
        assert one.get("a") is None
        assert two.get("a") is None
    os.unlink(file_of(other_host))


def test_a_private_segment_is_one_attachment_s_alone(config):
    before = set(os.listdir("/dev/shm"))
    with cachee_shm.attach(private=True) as one, cachee_shm.attach(config=config, private=True) as two:
        one.set("a", 1)
        assert two.get("a") is None
        assert (one.name, two.stats()["memory_bytes"]) == ("", 4 << 20)
        assert not {name for name in set(os.listdir("/dev/shm")) - before if config["host"]["name"] in name}


def test_segment_and_config_accept_the_same_names_of_namespaces():
    assert segment.NAMESPACE.pattern == config_module.NAMESPACE.pattern


def test_a_segment_that_is_retired_again_and_again_is_an_error(config, monkeypatch):
    def retired(self, fd):
        os.close(fd)
        raise SegmentRetired("retired")

    monkeypatch.setattr(segment.Segment, "_attach_file", retired)
    monkeypatch.setattr(segment, "ATTACH_WAIT_S", 0.05)
    with pytest.raises(SegmentError, match="again and again"):
        cachee_shm.attach(config=config)


# Huge pages


def kilobytes_on_huge_pages(path):
    with open("/proc/self/smaps") as lines:
        here, found = False, 0
        for line in lines:
            if "-" in line.split()[0]:
                here = path in line
            elif here and line.startswith("ShmemPmdMapped:"):
                found += int(line.split()[1])
    return found


@pytest.mark.needs("huge pages")
def test_a_segment_lies_on_huge_pages_whatever_the_machine_is_set_to(config):
    config["namespaces"]["shop"]["memory"] = "16MiB"
    with cachee_shm.attach(config=config) as cache:
        for number in range(20_000):
            cache.set(f"key:{number}", b"v" * 500)
        assert kilobytes_on_huge_pages(file_of(config)) >= 12 << 10
