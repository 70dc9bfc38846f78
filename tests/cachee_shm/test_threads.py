"""Threads of one process share one attachment: one page, one roster slot, behind the interpreter's lock."""

import itertools
import sys
import threading

import pytest

import cachee_shm
from cachee_shm.errors import Closed, SegmentError

THREADS = 4
ROUNDS = 400


@pytest.fixture
def hurried():
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work):
    """Run ``work(number)`` in some threads at once; what any of them raised."""
    errors = []
    barrier = threading.Barrier(THREADS)

    def run(number):
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def value_of(number, turn):
    """Of every way to be stored: a scalar, a plain dict, one with extension types, and one cut into spans."""
    text = f"{number}-{turn}"
    return [text, {"of": text, "is": [text] * 20}, (text, {text}), (text * 20_000).encode()][turn % 4]


def test_what_threads_write_into_one_page_is_read_whole(cache, hurried):
    possible = [[value_of(number, turn) for turn in range(ROUNDS)] for number in range(THREADS)]

    def work(number):
        for turn in range(ROUNDS):
            cache.set(f"own-{number}", possible[number][turn])
            mine = cache.get(f"own-{number}")
            assert mine is None or mine == possible[number][turn]
            cache.set("shared", possible[number][turn])
            shared = cache.get("shared")
            assert shared is None or any(shared == values[t] for values in possible for t in range(ROUNDS))

    assert together(work) == []


def test_threads_that_miss_a_key_together_load_it_once(cache, hurried):
    loads = []

    def work(number):
        for turn in range(50):
            assert cache.get_or_load(f"key-{turn}", lambda turn=turn: loads.append(turn) or [turn]) == [turn]

    assert together(work) == []
    assert sorted(loads) == list(range(50))


def test_a_close_in_one_thread_is_closed_in_the_others_and_no_worse(config, hurried):
    for _ in range(20):
        cache = cachee_shm.attach(config=config)

        def work(number, cache=cache):
            for turn in itertools.count():
                if number == 0 and turn == 20:
                    cache.close()
                cache.set(f"{number}", value_of(number, turn % 3))
                cache.get_many(["0", "1", "2", "3"])

        errors = together(work)
        assert len(errors) == THREADS
        assert {type(error) for error in errors} == {Closed}


def test_an_interpreter_that_runs_without_its_lock_is_refused(config, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(SegmentError, match="PYTHON_GIL"):
        cachee_shm.attach(config=config)
