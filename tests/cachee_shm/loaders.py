"""What the tests of loading share: loaders, callers, and who is waited for."""

import threading
from contextlib import contextmanager

from cachee_shm import loading


class Origin:
    """A loader that counts its calls."""

    def __init__(self, value="loaded"):
        self.value = value
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@contextmanager
def running(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def held(cache, key):
    options = loading.Options(cache)
    return cache._waits(key, options.kept, *cache._arrive(key, (), False))
