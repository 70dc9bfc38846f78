"""What a worker without a segment has written is not lost, however its process goes on or ends."""

import contextlib
import errno
import logging
import os
import time

import pytest

import cachee_shm
from cachee_shm.errors import RosterFull, Unserializable
from tests.cachee_shm.processes import child, until
from tests.cachee_shm.test_successor import Obstacle, attached_again

HELD = "import threading; threading.Thread(target=lambda c=cache: time.sleep(100), daemon=True).start()"


@pytest.mark.parametrize(
    "end", ["sys.exit()", "pass", "raise ValueError", HELD, "del cache; say('gone'); wait()"]
)
def test_a_process_that_ends_without_close_announces_what_it_wrote(config, end):
    code = f"cache.get('k'); say(''); wait(); cache.delete('k'); say(cache.detached); wait(); {end}"
    with child(code, config=config) as worker:
        worker.line()
        obstacle = Obstacle(config)
        time.sleep(0.02)  # another tick of the coarse clock
        worker.tell()
        assert worker.line() == "True"
        obstacle.remove()
        with cachee_shm.attach(config=config) as new:  # it never was in the segment that the worker left
            new.set("k", "old row")
            worker.tell()
            if "gone" in end:
                assert worker.line() == "gone"
            else:
                worker.process.wait()
            assert new.get("k") is None


def test_a_log_that_fails_ends_no_verb(cache, config, capsys):
    class Full(logging.Handler):
        def emit(self, record):
            raise OSError(errno.EMFILE, "too many open files")

    logger, handler = logging.getLogger("cachee_shm"), Full()
    logger.addHandler(handler)
    try:
        obstacle = Obstacle(config)
        time.sleep(0.02)
        assert cache.delete("k") is False
    finally:
        logger.removeHandler(handler)
    assert cache.detached
    assert "too many open files" in capsys.readouterr().err
    obstacle.remove()


class TimeLimit(Exception):
    """As a signal handler raises it."""


def in_a_block(cache, pause):
    block = cache.writing("k")
    block.__enter__()
    pause()
    block.__exit__(None, None, None)


WRITES = {
    "set": lambda cache, pause: pause() or cache.set("k", 1),
    "set of what no codec takes": lambda cache, pause: pause() or cache.set("k", object()),
    "delete": lambda cache, pause: pause() or cache.delete("k"),
    "delete_tags": lambda cache, pause: pause() or cache.delete_tags("t"),
    "clear": lambda cache, pause: pause() or cache.clear(),
    "the end of a writing block": in_a_block,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_is_interrupted_while_it_attaches_is_announced_all_the_same(
    cache, config, monkeypatch, write
):
    obstacle = Obstacle(config)
    assert until(
        lambda: cache.get("k") is None and cache.detached
    )  # and it has not written: no clear is owed

    def interrupted():
        raise TimeLimit

    def pause():
        """Until the next try is due."""
        time.sleep(0.2)
        monkeypatch.setattr(cache, "_reattach", interrupted)

    with pytest.raises((TimeLimit, Unserializable)):
        write(cache, pause)
    monkeypatch.undo()
    obstacle.remove()
    with cachee_shm.attach(config=config) as new:
        new.set("k", "old row", tags=["t"])
        attached_again(cache)
        assert new.get("k") is None


def test_a_forked_child_that_found_the_roster_full_lets_the_segment_go_when_it_closes(config):
    config["namespaces"]["shop"]["memory"] = "2MiB"
    name = f"cachee.{config['host']['name']}.shop."

    def mappings():
        with open("/proc/self/maps") as maps:
            return maps.read().count(name)

    with cachee_shm.attach(config=config) as cache, contextlib.ExitStack() as others:
        with pytest.raises(RosterFull):
            while True:
                others.enter_context(cachee_shm.attach(config=config))
        child_pid = os.fork()
        if child_pid == 0:
            before = after = 0
            try:
                cache.delete("a")
                before = mappings() if cache.detached else 0
                cache.close()
                after = mappings()
            finally:
                os._exit(0 if after == before - 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]) == 0


def test_a_forked_child_that_finds_the_roster_full_announces_at_once_however_it_ends(config):
    config["namespaces"]["shop"]["memory"] = "2MiB"
    with cachee_shm.attach(config=config) as cache:
        others = [cache]
        with pytest.raises(RosterFull):
            while True:
                others.append(cachee_shm.attach(config=config))
        for key in ("deleted", "set", "tagged", "cleared"):
            cache.set(key, "old", tags=["t"] if key == "tagged" else [])
        writes = {
            "deleted": lambda: cache.delete("deleted"),
            "set": lambda: cache.set("set", "new"),
            "tagged": lambda: cache.delete_tags("t"),
            "cleared": lambda: cache.clear(),
        }
        for key, write in writes.items():
            assert cache.get(key) == "old"
            child_pid = os.fork()
            if child_pid == 0:
                try:
                    write()
                finally:
                    os._exit(0 if cache.detached else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]) == 0
            assert cache.get(key) is None
        for other in others[1:]:
            other.close()
