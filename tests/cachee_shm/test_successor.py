"""A segment that was removed or replaced under its workers, and a worker that has none for a while."""

import asyncio
import errno
import logging
import os
import resource
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cachee_shm
from cachee_shm import segment
from cachee_shm.errors import (
    AccessDenied,
    Lapped,
    NoSpace,
    ProcessLimit,
    SegmentBusy,
    SegmentError,
)
from tests.cachee_shm.processes import child, children, in_fork, until


def file_of(config, namespace="shop"):
    return f"/dev/shm/cachee.{config['host']['name']}.{namespace}.{cachee_shm._core.LAYOUT}"


class Obstacle:
    """A file that nobody may believe stands where the successor would be."""

    def __init__(self, config, namespace="shop"):
        self.path = file_of(config, namespace)
        os.unlink(self.path)
        with open(self.path, "wb") as file:
            file.write(b"anybody's")
        os.chmod(self.path, 0o666)

    def remove(self):
        os.unlink(self.path)


@pytest.fixture
def obstacle(cache, config):
    """Between the cache and its next segment."""
    cache.set("before", 1)
    found = Obstacle(config)
    time.sleep(0.02)  # another tick of the coarse clock
    cache.set("noticed", 1)
    assert cache.detached
    return found


def attached_again(cache):
    return until(lambda: cache.get("any") is None and not cache.detached)


# Noticing


def unlinked(path):
    os.unlink(path)


def renamed(path):
    os.rename(path, path + ".old")


def replaced(path):
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o600), "wb"):
        pass
    os.rename(path + ".new", path)


def cut(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("lose", [unlinked, renamed, replaced])
def test_no_write_that_is_reported_as_done_goes_where_a_newcomer_does_not_look(cache, config, lose):
    cache.set("k", "first")
    lose(file_of(config))
    with child(
        "print(cache.get_or_load('k', lambda: 'old row'), flush=True); wait(); say(cache.get('k'))",
        config=config,
    ) as new:
        assert new.line() == "old row"
        assert cache.set("k", "new row")
        new.tell()
        assert new.end() == ["new row"]
        for left in os.listdir("/dev/shm"):
            if left.startswith(os.path.basename(file_of(config)) + "."):
                os.unlink(f"/dev/shm/{left}")


def test_a_delete_a_tag_and_a_clear_reach_the_successor_too(cache, config):
    for forget in (lambda: cache.delete("k"), lambda: cache.delete_tags("t"), lambda: cache.clear()):
        cache.set("other", 1)
        os.unlink(file_of(config))
        with cachee_shm.attach(config=config) as new:
            new.set("k", "old row", tags=["t"])
            forget()
            assert new.get("k") is None
            assert not cache.detached


def test_a_worker_that_only_reads_what_expires_is_served_from_the_successor_at_its_first_read(cache, config):
    cache.set("k", "old", ttl=60)
    with cachee_shm.attach(config=config) as reader, cachee_shm.attach(config=config) as other:
        os.unlink(file_of(config))
        with cachee_shm.attach(config=config) as new:
            new.set("k", "new")
            assert reader.get("k") == "new"
            assert "k" in other


def test_a_file_that_somebody_cuts_is_left_at_the_next_look(cache, config):
    cache.set("k", 1, ttl=60)
    cut(file_of(config))
    time.sleep(1.1)  # who touches it before a look is due gets a SIGBUS from the kernel
    assert cache.set("k", 2)
    assert cache.get("k") == 2


FIRST_AFTER_A_CUT = """
keys = [f'k{i}' for i in range(40)]
def until_cut(*asked):
    say('ready')
    wait()
    return {key: 1 for key in asked[0]} if asked else 1
def held():
    with cache.host.lock('held') as lock:
        until_cut()
        return lock.held()
def released():
    lock = cache.host.lock('released').__enter__()
    until_cut()
    return lock.release()
say([lambda: until_cut() and cache.get_many(keys), held, released,
     lambda: cache.get_or_load('a', until_cut), lambda: cache.get_or_load_many(['b', 'c'], until_cut),
][arguments['number']]())
"""


def test_whatever_is_the_first_to_touch_a_cut_file_looks_before(cache, config):
    cache.set_many({f"k{i}": i for i in range(40)})
    with children(FIRST_AFTER_A_CUT, 5, config=config) as all_five:
        assert [each.line() for each in all_five] == ["ready"] * 5
        cut(file_of(config))
        time.sleep(1.1)
        for each in all_five:
            each.tell()
        said = [each.end() for each in all_five]
    assert said == [["{}"], ["False"], ["False"], ["1"], ["{'b': 1, 'c': 1}"]]


def test_a_daemon_s_successor_is_above_its_predecessor_though_the_wall_clock_was_set_back(cache, config):
    ahead = cache.incarnation + (3600 << 30)
    with open(file_of(config), "r+b") as file:
        data = file.read(4096)
        at = data.index(cache.incarnation.to_bytes(8, "little"))
        file.seek(at)
        file.write(ahead.to_bytes(8, "little"))
    assert cache.incarnation == ahead
    os.unlink(file_of(config))
    time.sleep(0.02)
    cache.set("a", 1)
    assert cache.incarnation == ahead + 1
    cache.retire()
    cache.close()
    with cachee_shm.attach(config=config) as again:
        assert again.incarnation == ahead + 2


# Somebody else makes it

STOPS = """
from cachee_shm import segment
at, made = segment._core.Segment._attach, segment._create_file
def create(path, group):
    fd = made(path, group)
    import fcntl, struct
    lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, segment._core.LOCK_BASE, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)  # as the core holds it while it makes the segment
    say('making'); os.kill(os.getpid(), signal.SIGSTOP)
    return fd
segment._create_file = create
cachee_shm.attach(config=arguments['wanted'])
"""


def test_a_creator_that_is_stopped_holds_up_neither_a_verb_nor_another_thread(cache, config, monkeypatch):
    monkeypatch.setattr(segment, "ATTACH_WAIT_S", 0.3)
    cache.set("k", 1)
    os.unlink(file_of(config))
    with child(STOPS, wanted=config) as creator:
        assert creator.line() == "making"
        os.waitid(os.P_PID, creator.pid, os.WSTOPPED | os.WNOWAIT)
        time.sleep(0.02)
        assert cache.set("k", 2) is False
        assert cache.get("k") is None
        assert "has not finished" in cache.health().error
        beats, done = [], threading.Event()

        def beat():
            while not done.is_set():
                beats.append(1)
                time.sleep(0.001)

        thread = threading.Thread(target=beat)
        thread.start()
        before = len(beats)
        with pytest.raises(SegmentBusy, match="stopped"):
            cachee_shm.attach(config=config)
        assert len(beats) > before + 10
        done.set()
        thread.join()
        creator.kill()
    attached_again(cache)
    assert cache.set("k", 3)
    assert cache.health().ok


def test_attach_is_interrupted_by_a_signal_while_it_waits(config):
    code = """
import cachee_shm.config
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try: cachee_shm.attach(config=arguments['wanted'])
except KeyboardInterrupt: say('interrupted')
"""
    with child(STOPS, wanted=config) as creator:
        creator.line()
        os.waitid(os.P_PID, creator.pid, os.WSTOPPED | os.WNOWAIT)
        with child(code, wanted=config) as waiting:
            assert waiting.end() == ["interrupted"]


@pytest.mark.needs("other users")
def test_another_user_s_retired_file_leaves_a_worker_as_a_cache_that_misses(config):
    import grp

    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, 65534))
    config["host"]["group"] = group.gr_name
    with cachee_shm.attach(config=config) as owner:

        def other():
            with cachee_shm.attach(config=config) as mine:
                os.setgroups([group.gr_gid])
                os.setgid(65534)
                os.setuid(65534)
                mine.retire()
                assert mine.get("a") is None
                assert mine.set("a", 1) is False
                assert "cachee segment rm" in mine.health().error

        in_fork(other)
        owner.set("a", 2)
        assert owner.get("a") == 2


# Without a segment


def test_reads_miss_and_writes_are_announced_first_when_there_is_one(cache, config, obstacle, caplog):
    events = cache.events()
    assert cache.get("before") is None
    assert cache.lookup("before") == (None, False)
    assert cache.get_many(["before"]) == {}
    assert "before" not in cache
    assert cache.set("a", 1) is False
    assert cache.add("a", 1) is False
    assert cache.set_many({"a": 1}) == ["a"]
    assert cache.touch("a") is False
    assert cache.delete("a") is False
    cache.delete_tags("t")
    assert cache.get("a") is None
    health = cache.health()
    assert not health.ok
    assert "may be opened by others" in health.error
    obstacle.remove()
    with cachee_shm.attach(config=config) as new:
        new.set_many({"a": "old row", "kept": 1})
        attached_again(cache)
        assert new.get("a") is None
        assert cache.health().ok
        assert cache.set("a", 2)
        assert new.get("a") == 2
    with pytest.raises(Lapped):
        events.poll()
    said = caplog.get_records("setup") + caplog.get_records("call")
    assert sum("cannot be attached" in record.getMessage() for record in said) == 1


def test_what_is_remembered_is_bounded_and_beyond_that_all_is_evicted(config):
    """Of a forked child that finds no place: it has left nothing behind, so it owes its writes alone."""
    config["namespaces"]["shop"]["memory"] = "2MiB"
    attached = [cachee_shm.attach(config=config) for _ in range(128)]
    for number in (10, 2000):
        attached[1].set_many({"kept": 1, "w0": "old", f"w{number - 1}": "old"})
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            attached[0].get("a")
            for i in range(number):
                attached[0].set(f"w{i}", i)
            os.write(ready[1], b"!")
            os.read(go[0], 1)
            attached_again(attached[0])
            os._exit(0)
        os.read(ready[0], 1)
        left = attached.pop()
        left.close()
        os.write(go[1], b"!")
        assert os.waitpid(pid, 0)[1] == 0
        assert attached[1].get("w0") is None
        assert attached[1].get(f"w{number - 1}") is None
        assert attached[1].get("kept") == (1 if number == 10 else None)
        attached[1].sweep()
        attached.append(cachee_shm.attach(config=config))
    for cache in attached:
        cache.close()


def test_get_or_load_loads_for_everybody_and_keeps_nothing(cache, obstacle):
    loads = []

    def load():
        loads.append(1)
        return "row"

    assert [cache.get_or_load("k", load) for _ in range(3)] == ["row"] * 3

    async def aload():
        return load()

    async def both():
        return await asyncio.gather(*(cache.aget_or_load("k", aload) for _ in range(3)))

    assert asyncio.run(both()) == ["row"] * 3
    assert len(loads) == 6


def test_without_a_segment_nobody_waits_for_another_s_load(cache, obstacle):
    meet = threading.Barrier(2, timeout=4)  # a lease would let one of them in at a time

    def load():
        meet.wait()
        return "row"

    with ThreadPoolExecutor(2) as threads:
        loading = [threads.submit(cache.get_or_load, "k", load) for _ in range(2)]
        assert [one.result() for one in loading] == ["row", "row"]


def test_what_was_loaded_without_a_segment_is_not_stored_in_the_next(cache, obstacle):
    def load():
        obstacle.remove()
        attached_again(cache)
        return "of before"

    assert cache.get_or_load("k", load) == "of before"
    assert cache.get("k") is None


def test_a_count_without_a_segment_is_a_clear_error(cache, obstacle):
    for count in (lambda: cache.host.incr("n"), lambda: cache.host.incr("n", initial=0)):
        with pytest.raises(SegmentError, match="was not changed: this host's segment is gone"):
            count()
    obstacle.remove()
    attached_again(cache)
    assert cache.host.incr("n", initial=0) == 1


def test_nobody_is_synced_while_a_write_is_announced_nowhere(cache, obstacle):
    assert cache.wait_synced(0.05) is False
    obstacle.remove()
    attached_again(cache)
    assert cache.wait_synced(0.05) is True  # there is no bridge


def test_a_writing_block_without_a_segment_evicts_in_the_next(cache, config, obstacle):
    with cache.writing("k") as block:
        block.set("new row")
    assert block.stored is False
    obstacle.remove()
    with cachee_shm.attach(config=config) as new:
        new.set("k", "old row")
        attached_again(cache)
        assert new.get("k") is None


def test_a_death_in_a_block_that_was_open_through_it_all_evicts_the_key(cache, config):
    code = """
import logging; logging.disable()
cache.writing('k').__enter__()
say('inside'); wait()
cache.set('a', 1); say(cache.detached); wait()
while cache.detached: cache.get('a')
say('again'); wait()
"""
    with child(code, config=config) as writer:
        writer.line()
        obstacle = Obstacle(config)
        time.sleep(0.02)
        writer.tell()
        assert writer.line() == "True"
        obstacle.remove()
        writer.tell()
        assert writer.line() == "again"
        until(lambda: cache.set("a", 1))
        assert cache.get_or_load("k", lambda: "old row") == "old row"
        writer.kill()
        assert until(lambda: cache.sweep())
        assert cache.get("k") is None


def test_a_death_in_the_segment_that_the_others_have_left_evicts_in_the_successor(cache, config):
    code = "cache.writing('k').__enter__(); say('inside'); wait()"
    with child(code, config=config) as writer:
        writer.line()
        os.unlink(file_of(config))
        time.sleep(0.02)
        assert until(lambda: cache.set("a", 1))
        with cachee_shm.attach(config=config) as new:
            assert new.get_or_load("k", lambda: "old row") == "old row"
            writer.kill()
            until(lambda: cache.get("a") is None)  # it sees the death at its next look, and clears
            assert new.get("k") is None


def test_a_death_without_a_segment_evicts_what_it_has_written_meanwhile(cache, config):
    code = """
import logging; logging.disable()
say('ready'); wait()
say(cache.set('k', 'new row'), cache.detached); wait()
"""
    with child(code, config=config) as writer:
        writer.line()
        obstacle = Obstacle(config)
        time.sleep(0.02)
        writer.tell()
        assert writer.line() == "False True"
        cache.get("a")
        obstacle.remove()
        until(lambda: cache.set("a", 1))
        cache.set("k", "old row")
        writer.kill()
        until(lambda: cache.get("k") is None)


def test_a_segment_that_was_left_is_unmapped_when_no_process_is_in_it(cache, config):
    def mapped():
        with open("/proc/self/maps") as lines:
            return sum(os.path.basename(file_of(config)) in line and "(deleted)" in line for line in lines)

    with child("say('ready'); wait()", config=config) as idle:
        idle.line()
        os.unlink(file_of(config))
        time.sleep(0.02)
        until(lambda: cache.set("a", 1))
        assert mapped()
        idle.kill()
        until(lambda: cache.get("b") is None and not mapped())
    os.unlink(file_of(config))
    time.sleep(0.02)
    until(lambda: cache.set("a", 1))
    assert not mapped()


def test_a_child_that_is_forked_without_a_segment_gets_one_as_its_parent_does(cache, obstacle):
    def work():
        assert cache.get("a") is None
        attached_again(cache)
        assert cache.set("a", 1)
        assert cache.get("a") == 1

    obstacle.remove()
    in_fork(work)
    attached_again(cache)
    assert cache.set("a", 2)


def test_the_last_try_is_at_close_and_a_vain_one_is_said(cache, config, obstacle, caplog):
    cache.set("k", 1)
    with caplog.at_level(logging.WARNING):
        cache.close()
    assert "no host is told" in caplog.text
    assert cache.closed


def test_what_was_written_is_announced_at_close_where_it_can_be(cache, config, obstacle):
    cache.set("k", 1)
    obstacle.remove()
    with cachee_shm.attach(config=config) as new:
        new.set("k", "old row")
        cache.close()
        assert new.get("k") is None


# Whose file


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "group", "good"),
    [
        (0o600, "me", 5, None, True),
        (0o600, 0, 5, None, True),
        (0o660, "me", 7, 7, True),
        (0o660, 1234, 7, 7, True),
        (0o600, 1234, 5, None, False),
        (0o600, 1234, 5, 7, False),
        (0o606, "me", 5, None, False),
        (0o604, "me", 5, None, False),
        (0o660, "me", 5, None, False),
        (0o660, "me", 5, 7, False),
        (0o666, 0, 7, 7, False),
    ],
)
def test_a_file_is_root_s_this_user_s_or_the_group_s_and_open_to_nobody_else(mode, uid, gid, group, good):
    uid = os.geteuid() if uid == "me" else uid
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    if good:
        segment.check_owner(found, "/cachee.x.shop.3", group)
    else:
        with pytest.raises(
            AccessDenied, match=r"/dev/shm/cachee\.x\.shop\.3.*cachee segment rm /cachee\.x\.shop"
        ):
            segment.check_owner(found, "/cachee.x.shop.3", group)


def test_what_is_no_file_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "ACCESS_WAIT_S", 0.0)
    os.mkfifo(file_of(config))
    with pytest.raises(AccessDenied, match="not a regular file"):
        cachee_shm.attach(config=config)
    os.unlink(file_of(config))
    os.symlink(tmp_path / "elsewhere", file_of(config))
    with pytest.raises(AccessDenied, match="symbolic link"):
        cachee_shm.attach(config=config)
    assert not (tmp_path / "elsewhere").exists()


# Limits of the process


def test_a_limit_on_the_size_of_files_is_said_and_leaves_no_file(config):
    code = """
import resource
from cachee_shm.errors import ProcessLimit
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for private in (False, True):
    try: cachee_shm.attach(config=arguments['wanted'], private=private)
    except ProcessLimit as error: say('ulimit -f' in str(error))
"""
    with child(code, wanted=config) as limited:
        assert limited.end() == ["True", "True"]
    assert not os.path.exists(file_of(config))


def test_a_limit_on_open_files_is_said_at_any_of_the_descriptors_that_attaching_takes(config):
    cachee_shm.attach(config=config).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    refused = 0
    try:
        for free in range(6):
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (high + free + 1, hard))
            while len(taken) < 500:
                try:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            for fd in taken[len(taken) - free :] if free else []:
                os.close(fd)
                taken.remove(fd)
            try:
                cachee_shm.attach(config=config).close()
            except ProcessLimit as error:
                refused += 1
                assert "ulimit -n" in str(error)
            finally:
                for fd in taken:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused >= 2


def test_a_worker_that_runs_out_of_descriptors_goes_on_and_comes_back(cache, config):
    cache.set("a", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.unlink(file_of(config))
    time.sleep(0.02)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        assert cache.set("a", 2) is False
        assert "ulimit -n" in cache.detached_because
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    attached_again(cache)
    assert cache.set("a", 3)


@pytest.mark.needs("mount namespaces")
def test_without_proc_it_says_so(cache, config):
    code = """
for private in (False, True):
    try: cachee_shm.attach(config=arguments['wanted'], private=private)
    except cachee_shm.CacheeError as error: say(type(error).__name__, '/proc' in str(error))
"""
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /proc && exec "$0" "$@"')
    with child(code, under=hidden, wanted=config) as without:
        assert without.end() == ["SegmentError True", "SegmentError True"]


@pytest.mark.parametrize(
    ("why", "kind", "words"),
    [
        (errno.EACCES, AccessDenied, "common group"),
        (errno.EPERM, AccessDenied, "forbidden"),
        (errno.EROFS, AccessDenied, "read-only"),
        (errno.EMFILE, ProcessLimit, "this process has as many files open"),
        (errno.ENFILE, ProcessLimit, "this machine has as many files open"),
        (errno.ENOMEM, ProcessLimit, "ulimit -v"),
        (errno.ENOSPC, NoSpace, "another file"),
        (errno.ENOSYS, SegmentError, "system call that is missing"),
        (errno.EIO, SegmentError, "Input/output error"),
    ],
)
def test_each_errno_of_attaching_has_a_class_and_words_of_its_own(config, monkeypatch, why, kind, words):
    def refused(*_):
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(segment, "_open_file", refused)
    monkeypatch.setattr(segment, "ACCESS_WAIT_S", 0.0)
    with pytest.raises(SegmentError, match=words) as caught:
        cachee_shm.attach(config=config)
    assert type(caught.value) is kind
    assert "Nothing was attached" in str(caught.value)


# Sizes


def test_a_changed_memory_applies_when_the_last_process_has_left(cache, config, caplog):
    with cachee_shm.attach(config=config) as other:
        config["namespaces"]["shop"]["memory"] = "8MiB"
        life = cache.incarnation
        with cachee_shm.attach(config=config) as late:
            assert late.stats()["memory_bytes"] == 4 << 20
        assert "until the last process has left it" in " ".join(caplog.messages)
        cache.close()
        assert other.set("a", 1)
    with cachee_shm.attach(config=config) as new:
        assert new.stats()["memory_bytes"] == 8 << 20
        assert new.incarnation > life
        assert new.get("a") is None
    with cachee_shm.attach(config=config) as again:
        assert again.stats()["memory_bytes"] == 8 << 20


# Private


def test_a_private_cache_is_a_forked_child_s_own():
    with cachee_shm.attach(private=True) as cache:
        cache.set("a", "parent")

        def work():
            assert cache.get("a") is None
            assert cache.set("a", "child")
            assert cache.get("a") == "child"

        in_fork(work)
        assert cache.get("a") == "parent"
        assert len(cache.roster()) == 1
