"""A worker process of one host: reads rows through the cache, writes some, and notes what it was shown.

    python worker.py --config FILE --journal FILE --pause FILE [--writes-every SECONDS]

The origin is the shop's SQLite file ($SHOP_DATABASE): every host reaches it, whatever becomes of the network
between them. It is written only while nobody else holds the lock of the pause FILE, so whoever takes it knows
that no write is under way anywhere. A worker ends when its standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "examples" / "shop")]

import database  # noqa: E402

import cachee_shm  # noqa: E402
from cachee_shm.cli.demo.helper import asked_to_end  # noqa: E402
from cachee_shm.cli.demo.journal import Journal, Read, Write  # noqa: E402
from tests.hosts.observer import life_of  # noqa: E402

ROWS = 40
READ_EVERY_S = 0.004
now_ns = time.monotonic_ns


class Worker:
    def __init__(self, cache: cachee_shm.Cache, journal: Journal, pause: Path) -> None:
        self._cache = cache
        self._journal = journal
        self._pause = pause.open()
        self._host = life_of(cache)

    def read(self) -> None:
        id = random.randint(1, ROWS)
        start_ns = now_ns()
        row = self._cache.get_or_load(f"price:{id}", database.price, id)
        self._journal.add(Read(self._host, f"price:{id}", row["version"], row["cents"], start_ns, now_ns()))

    def write(self) -> None:
        id, cents = random.randint(1, ROWS), random.randrange(1 << 30)
        start_ns = now_ns()
        with self._cache.writing(f"price:{id}") as writing:
            row = database.set_price(id, cents)
            assert row is not None
            writing.set(row)
        self._journal.add(Write(self._host, f"price:{id}", row["version"], cents, start_ns, now_ns()))

    def run(self, writes_every_s: float) -> None:
        due = time.monotonic()
        while not asked_to_end():
            self.read()
            if time.monotonic() >= due + writes_every_s:
                due = time.monotonic()
                with self._allowed() as is_allowed:
                    if is_allowed:
                        self.write()
            time.sleep(READ_EVERY_S)

    @contextlib.contextmanager
    def _allowed(self) -> Iterator[bool]:
        """Whether a write may begin; whoever wants them to stop waits for its end."""
        try:
            fcntl.flock(self._pause, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        fcntl.flock(self._pause, fcntl.LOCK_UN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--pause", type=Path, required=True)
    parser.add_argument("--writes-every", type=float, default=math.inf)
    arguments = parser.parse_args()
    with cachee_shm.attach("shop", config=arguments.config) as cache, Journal(arguments.journal) as journal:
        Worker(cache, journal, arguments.pause).run(arguments.writes_every)


if __name__ == "__main__":
    main()
