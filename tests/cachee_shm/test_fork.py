"""A forked child has a place of its own in the segment, however it was made and whatever it closed."""

import contextvars
import grp
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cachee_shm
from cachee_shm import waiting
from tests.cachee_shm.loaders import held
from tests.cachee_shm.processes import child, forked, in_fork, until


def slots(cache):
    """The roster slots of live processes, by pid."""
    return {pid: slot for slot, pid, *_, alive in cache.roster() if alive}


def test_a_forked_child_shares_the_values_and_has_a_slot_of_its_own(cache):
    cache.set("a", "parent")

    def work():
        assert cache.get("a") == "parent"
        cache.set("a", "child")
        assert slots(cache).keys() == {os.getpid(), os.getppid()}

    cache._freeze(cache.now_ms())  # it sweeps when it is told to
    in_fork(work)
    assert cache.get("a") == "child"
    assert cache.set("b", 1)
    assert cache.sweep() == 1
    assert slots(cache).keys() == {os.getpid()}


def test_parent_and_children_fill_pages_of_their_own(cache):
    def fill(name):
        for i in range(3000):
            assert cache.set(f"{name}-{i % 50}", (name * 300).encode())
            value = cache.get(f"{name}-{i % 50}")
            assert value is None or value == (name * 300).encode()

    cache.set("before", 1)
    pids = [forked(lambda name=name: fill(name)) for name in "abc"]
    fill("d")
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    for name in "abcd":
        for i in range(50):
            assert cache.get(f"{name}-{i}") in (None, (name * 300).encode())


def test_children_of_a_thread_work_while_other_threads_write(cache):
    stop = threading.Event()

    def write():
        while not stop.is_set():
            cache.delete("thread")  # a set would evict the children's values in no time

    def fork():
        for number in range(10):
            in_fork(lambda: cache.set(f"child-{number}", number) or os._exit(2))  # noqa: B023

    writers = [threading.Thread(target=write) for _ in range(2)]
    forker = threading.Thread(target=fork)
    for thread in (*writers, forker):
        thread.start()
    forker.join()
    stop.set()
    for thread in writers:
        thread.join()
    assert cache.get_many(f"child-{n}" for n in range(10)) == {f"child-{n}": n for n in range(10)}


def test_a_child_s_slot_outlives_its_parent_and_a_parent_s_does_not_outlive_the_parent(cache, config):
    code = """
pid = os.fork()
if pid == 0:
    cache.set('child', os.getpid())
    os.close(1)
    wait()
    os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
while 'child' not in cache: time.sleep(0.001)
say(pid)
time.sleep(3600)
"""
    with child(code, config=config) as parent:
        pid = int(parent.line())
        cache._freeze(cache.now_ms())  # it sweeps when it is told to
        assert slots(cache).keys() == {os.getpid(), parent.pid, pid}
        parent.kill()
        assert cache.sweep() == 1
        assert slots(cache).keys() == {os.getpid(), pid}
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in slots(cache))
        assert cache.sweep() == 1


def test_a_killed_child_is_swept_while_its_parent_lives(cache):
    pid = forked(lambda: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(pid, 0)
    assert cache.sweep() == 1
    assert cache.set("a", 1)


def test_a_block_that_was_open_at_the_fork_is_the_parent_s(cache, config):
    code = """
cache.set('a', 'old')
with cache.writing('a') as w:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    cache.sweep()
    say(cache.get('a'))
    die()
"""
    with child(code, config=config) as parent:
        assert parent.line() == "old"
        parent.died()
    assert cache.sweep() == 1
    assert "a" not in cache


def test_a_child_that_leaves_such_a_block_neither_announces_for_its_parent_nor_loses_its_own_intents(
    cache, config
):
    code = """
with cache.writing('a'):
    pid = os.fork()
    if pid == 0:
        pass
    else:
        os.waitpid(pid, 0)
        os._exit(0)
cache.writing('b').__enter__()
die()
"""
    cache.set_many({"a": 1, "b": 2})
    with child(code, config=config) as parent:
        parent.end()
    assert cache.get("a") is None
    cache.sweep()
    assert cache.get("b") is None


def test_a_lease_of_the_parent_is_not_the_child_s(cache):
    def loader():
        def work():
            assert cache._holds()[0] == 0
            assert cache.get_or_load("a", lambda: "its own", ttl=0) == "its own"  # it is in the loader, too
            assert contextvars.Context().run(held, cache, "a")

        in_fork(work)
        assert cache._holds()[0] == 1
        return "loaded"

    assert cache.get_or_load("a", loader) == "loaded"
    assert cache._holds()[0] == 0


def test_a_child_that_returns_from_its_parent_s_loader_leaves_the_lease_to_the_parent(cache):
    children = []

    def loader():
        children.append(os.fork())
        return "loaded"

    cache.get_or_load("a", loader, ttl=0)
    if children[0] == 0:
        os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    assert cache._holds()[0] == 0


def test_waiting_goes_on_in_a_forked_child(cache):
    entered, go = threading.Event(), threading.Event()

    def loader():
        entered.set()
        go.wait()
        return "loaded"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_load, "a", loader)
        entered.wait()
        try:
            second = pool.submit(cache.get_or_load, "a", loader)
            while not waiting.poll.watched:
                time.sleep(0.001)
            child = os.fork()
            if child == 0:
                os._exit(0 if cache.get_or_load("a", lambda: "twice") == "loaded" else 1)
            while cache.stats()["lease_waits"] < 2:
                time.sleep(0.001)
        finally:
            go.set()
        assert first.result() == second.result() == "loaded"
    assert os.waitpid(child, 0)[1] == 0


# Other ways to start


def in_process(config, number):
    with cachee_shm.attach(config=config) as cache:
        cache.set(f"process-{number}", number)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_share_the_segment(cache, config, method):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=in_process, args=(config, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert cache.get_many(f"process-{n}" for n in range(3)) == {f"process-{n}": n for n in range(3)}
    assert cache.stats()["attached"] == 1


def test_a_pool_made_after_attaching_works_on(cache):
    global pooled
    pooled = cache
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(in_pool, range(50)) == [True] * 50
    assert len(cache.get_many(f"pool-{n}" for n in range(50))) == 50


def in_pool(number):
    return pooled.set(f"pool-{number}", number)


def test_a_program_that_is_run_is_no_worker_and_leaves_no_slot(cache):
    subprocess.run(["true"], check=True)
    subprocess.run(["true"], check=True, preexec_fn=lambda: None, close_fds=True)
    cache.sweep()
    assert slots(cache).keys() == {os.getpid()}


PRELOADED = """
import json, os, pathlib
import cachee_shm
cache = cachee_shm.attach(config=json.loads(pathlib.Path("config.json").read_text()))
made_by = os.getpid()


def work(number):
    assert os.getpid() != made_by
    cache.set(f"worker-{number}", made_by)
"""


def test_workers_of_a_forkserver_that_preloaded_the_application_share_its_attachment_s_values(
    cache, config, tmp_path
):
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = """
import multiprocessing
import preloaded
context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(['preloaded'])
workers = [context.Process(target=preloaded.work, args=(n,)) for n in range(3)]
for worker in workers: worker.start()
for worker in workers: worker.join()
say([worker.exitcode for worker in workers], os.getpid())
"""
    with child(code, under=("env", f"--chdir={tmp_path}", f"PYTHONPATH={os.getcwd()}")) as started:
        codes, pid = started.line().rsplit(" ", 1)
        assert codes == "[0, 0, 0]"
        (maker,) = set(cache.get_many(f"worker-{n}" for n in range(3)).values())
        assert maker not in (os.getpid(), int(pid))


def test_a_program_that_an_attached_process_becomes_has_nothing_of_its_slot_nor_of_its_debts(cache, config):
    code = """
cache.set('a', 'before')
cache.set('owed', 1)
cache.writing('owed').__enter__()
program = '''
import json, os, sys, cachee_shm
with cachee_shm.attach(config=json.loads(sys.argv[1])) as cache:
    print(cache.get("a"), flush=True)
    sys.stdin.readline()
'''
os.execv(sys.executable, [sys.executable, '-c', program, json.dumps(arguments['config'])])
"""
    with child(code, config=config) as started:
        assert started.line() == "before"
        cache.sweep()
        assert "owed" not in cache
        assert sorted(pid for _, pid, *_, alive in cache.roster() if alive) == sorted(
            [os.getpid(), started.pid]
        )
        started.tell()
        started.end()


@pytest.mark.needs("other users")
def test_a_child_that_drops_its_privileges_works_on(cache):
    def work():
        become_nobody()
        assert cache.set("a", 1)
        assert cache.get_or_load("b", lambda: 2) == 2
        assert slots(cache).keys() == {os.getpid(), os.getppid()}

    in_fork(work)
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}


def become_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def check_told_once(cache, caplog):
    """What a process is like that may not open the segment's file: it misses, and says so once."""
    caplog.clear()
    for _ in range(3):
        assert cache.get("a") is None
        assert not cache.set("b", "never stored")
        assert cache.get_or_load("a", lambda: "loaded") == "loaded"
    assert cache.detached
    assert "may not be opened by user 65534" in cache.health().error
    assert "name a common group" in cache.health().error
    assert len(caplog.messages) == 1


# A roster slot is held by a lock, and the lock belongs to an open file description. A child needs one of its
# own, which it opens at the fork. So a process may drop its privileges after the fork that made it. Its own
# children cannot open the file any more, unless the segment has a group in common with them.


@pytest.mark.needs("other users")
def test_children_of_a_child_that_dropped_its_privileges_miss_and_say_so_once(cache, caplog):
    cache.set("a", 1)

    def pool():
        become_nobody()
        assert cache.get("a") == 1
        for _ in range(2):
            in_fork(lambda: check_told_once(cache, caplog))
        assert cache.set("c", 3)
        assert not cache.detached

    in_fork(pool)
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}
    assert slots(cache).keys() == {os.getpid()}


@pytest.mark.needs("other users")
def test_workers_of_a_master_that_dropped_its_privileges_after_it_attached_miss_and_say_so_once(
    config, caplog
):
    def master():
        cache = cachee_shm.attach(config=config)
        cache.set("a", 1)
        become_nobody()
        for _ in range(2):
            in_fork(lambda: check_told_once(cache, caplog))
        assert cache.get("a") == 1
        assert slots(cache).keys() == {os.getpid()}

    in_fork(master)


@pytest.mark.needs("other users")
def test_a_worker_that_attaches_after_its_master_dropped_privileges_works(config):
    def master():
        become_nobody()

        def work():
            with cachee_shm.attach(config=config) as cache:
                assert cache.set("a", 1)
                in_fork(lambda: cache.set("b", 2) or pytest.fail("it is detached"))
                assert cache.get("b") == 2

        in_fork(work)

    in_fork(master)


@pytest.mark.needs("other users")
def test_with_a_common_group_every_order_of_forks_and_dropped_privileges_works(config):
    config["host"]["group"] = grp.getgrgid(65534).gr_name
    with cachee_shm.attach(config=config) as cache:

        def work(generations):
            assert cache.get("a") == 1
            assert cache.set(f"b-{generations}", 1)
            assert not cache.detached
            if generations:
                in_fork(lambda: work(generations - 1))

        cache.set("a", 1)
        in_fork(lambda: (become_nobody(), work(2)))
        assert cache.get_many(["b-0", "b-1", "b-2"]) == {"b-0": 1, "b-1": 1, "b-2": 1}
        assert slots(cache).keys() == {os.getpid()}


def test_a_child_that_finds_the_roster_full_misses_until_there_is_room_and_announces_at_once_what_it_writes(
    config,
):
    config["namespaces"]["shop"]["memory"] = "2MiB"
    attached = [cachee_shm.attach(config=config) for _ in range(128)]
    attached[1].set_many({"a": 1, "b": 1})
    ready, go = os.pipe(), os.pipe()

    def work():
        assert attached[0].get("a") is None
        assert not attached[0].set("a", 2)
        assert attached[0].detached
        assert "as many processes attached as its roster holds" in attached[0].health().error
        os.write(ready[1], b"!")
        os.read(go[0], 1)
        until(lambda: attached[0].get("b") == 1)
        assert attached[0].health().ok
        assert attached[0].get("a") is None

    pid = forked(work)
    os.read(ready[0], 1)
    assert attached[1].get("a") is None  # also if the child ends now
    attached.pop().close()
    os.write(go[1], b"!")
    assert os.waitpid(pid, 0)[1] == 0
    assert attached[1].get_many(["a", "b"]) == {"b": 1}
    for cache in attached:
        cache.close()


# Daemons

DAEMON = """
def daemon():
    '''Detached, with every descriptor closed but the two it speaks through, and others in their places.'''
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
    os.closerange(3, 1024)
    return [open('/dev/null') for _ in range(20)]
"""


def test_a_daemon_that_closed_all_descriptors_works_on_and_keeps_its_slot(cache, config):
    code = (
        DAEMON
        + """
kept = daemon()
cache.set('daemon', os.getpid())
say(os.getpid())
wait()
[file.read() for file in kept]
cache.close()
[file.read() for file in kept]
say('closed')
"""
    )
    with child(code, config=config) as started:
        pid = int(started.line())
        started.process.wait()
        assert cache.get("daemon") == pid
        cache.sweep()
        until(lambda: slots(cache).keys() == {os.getpid(), pid})  # the one between them is on its way out
        started.tell()
        assert started.line() == "closed"
        until(lambda: slots(cache).keys() == {os.getpid()})


def test_a_daemon_that_closed_all_descriptors_forks_workers_that_work(cache, config):
    code = (
        DAEMON
        + """
kept = daemon()
pid = os.fork()
if pid == 0:
    cache.set('worker', os.getpid())
    cache.writing('old').__enter__()
    die()
os.waitpid(pid, 0)
say(cache.get('worker') == pid, cache.sweep() > 0, cache.get('old'))
"""
    )
    cache.set("old", 1)
    with child(code, config=config) as started:
        assert started.line() == "True True None"


def test_a_daemon_that_closed_all_descriptors_notices_that_its_segment_was_unlinked(cache, config):
    code = (
        DAEMON
        + """
import logging; logging.disable()
kept = daemon()
os.unlink('/dev/shm' + cache.name)
other = cachee_shm.attach(config=arguments['config'])
other.set('a', 'successor')
while cache.get('a') is None: other.set('a', 'successor')  # whoever leaves may have to clear
say(cache.get('a'))
"""
    )
    with child(code, config=config) as started:
        assert started.line() == "successor"


# gunicorn --preload

APPLICATION = """
import json, os
import cachee_shm
with open(os.environ["SHOP_CONFIG"]) as file:
    cache = cachee_shm.attach(config=json.load(file))
cache.set("preloaded", os.getpid())


def application(environ, start_response):
    verb, _, value = environ["PATH_INFO"].strip("/").partition("/")
    if verb == "set":
        cache.set("a", value)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {cache.get('a')} {cache.get('preloaded')}".encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(path, what):
    """(worker's pid, the value, the pid that preloaded the application)"""
    connection = UnixConnection(path)
    try:
        connection.request("GET", what)
        pid, value, preloaded = connection.getresponse().read().decode().split()
        return int(pid), value, int(preloaded)
    finally:
        connection.close()


def test_workers_of_a_preloaded_gunicorn_share_what_one_sets_also_after_a_kill(cache, config, tmp_path):
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = str(tmp_path / "socket")
    gunicorn = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "-w", "3", "-b", f"unix:{path}", "shop"],
        cwd=tmp_path,
        env={**os.environ, "SHOP_CONFIG": str(tmp_path / "config.json")},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: os.path.exists(path))

        def workers():
            return slots(cache).keys() - {os.getpid(), gunicorn.pid}

        until(lambda: len(workers()) == 3)
        assert gunicorn.pid in slots(cache)
        setter, _, preloaded = ask(path, "/set/one")
        assert preloaded == gunicorn.pid
        for expected in ("one", "two"):
            seen = set()

            def all_answered(seen=seen, expected=expected):
                pid, value, _ = ask(path, "/get")
                assert value == expected
                seen.add(pid)
                return len(seen) > 1

            until(all_answered)
            if expected == "one":
                os.kill(setter, signal.SIGKILL)
                until(lambda: setter not in slots(cache) and len(workers()) == 3)
                cache.set("a", "two")
        assert cache.sweep() <= 1
    finally:
        gunicorn.terminate()
        gunicorn.wait()
    cache.sweep()
    assert slots(cache).keys() == {os.getpid()}


def test_a_child_that_leaves_its_parent_s_writing_block_keeps_what_its_own_block_owes(cache):
    cache._freeze(cache.now_ms())  # it sweeps when it is told to
    with cache.writing("parent"):
        child = os.fork()
        if child == 0:
            own = cache.writing("child").__enter__()
            # It takes the place in the child's slot that "parent" has in its parent's
            cache._settle(own._intent - 1)  # what the end of the parent's block does in the child
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    cache["child"] = 1
    assert cache.sweep() == 1
    assert "child" not in cache
