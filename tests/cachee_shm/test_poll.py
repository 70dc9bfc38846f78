"""The poll that looks for those who wait: nobody who joins it is lost."""

import pytest

from cachee_shm import waiting


class At(dict):
    """Does something once, in the middle of a use: as another thread would between two bytecodes."""

    def __init__(self, use, does):
        super().__init__()
        self.use, self.does = use, does

    def now(self, use):
        if use == self.use:
            self.use = None
            self.does()

    def __len__(self):
        found = super().__len__()
        self.now("len")
        return found

    def setdefault(self, key, default):
        found = super().setdefault(key, default)
        self.now("setdefault")
        return found

    def pop(self, key, default=None):
        found = super().pop(key, default)
        self.now("pop")
        return found


@pytest.mark.parametrize("use", ["len", "setdefault", "pop"])
def test_a_waiter_that_comes_as_its_key_is_dropped_is_looked_for_all_the_same(monkeypatch, use):
    """Of the waiters before it, none is left: the poll's thread is about to look at the key no more."""
    poll, question, waiter = waiting.Poll(), waiting.While(lambda: False), []
    monkeypatch.setattr(poll, "run", lambda: None)  # this test is the thread
    before = question.name, waiting.Watched(question)

    def watch():
        poll.watch(question, lambda: waiter.append("woken"))

    if use == "len":  # it has looked for waiters, and found none
        before[1].wakes = At(use, watch)
        poll.watched.update([before])
        poll.look()
    elif use == "pop":  # it has dropped the key, and has not looked for waiters again
        poll.watched = At(use, watch)
        poll.watched.update([before])
        poll.look()
    else:  # the waiter has found the key, and not yet joined
        poll.watched = At(use, poll.look)
        poll.watched.update([before])
        watch()
    poll.look()
    assert waiter == ["woken"]
