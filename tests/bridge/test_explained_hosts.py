"""Real hosts explain which process served a stale read, what held the old copy, and for how long it was
stale. One of their bridges loses an invalidation."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cachee_shm import Cache
from cachee_shm.cli.main import main
from cachee_shm.explain import watch
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.test_explaining import ask
from tests.cachee_shm.processes import Child, child

KEY = "user:42"
LOSES = """
import os
from cachee_bridge.daemon import older
class Losing(older.Segment):
    def apply(self, source, payload):
        return 0 if os.path.exists({flag!r}) else super().apply(source, payload)
    def receive(self, source, incarnation, cursor, head, data, sealed, frames_max):
        return None
import cachee_bridge.daemon.segments as segments
segments.Segment = Losing
"""
"""While a file is there, suppresses each invalidation, and counts it as applied."""
READS = """
cache = cachee_shm.attach('shop', config=arguments['file'])
cache.get_or_load('user:42', lambda: 'old')
for _ in range(4): cache.get('user:42')
say('warm')
while wait(): say(cache.get('user:42'))
"""


class Scene:
    """B is about to lose what A announces; a service there has read the key, and its near cache has it."""

    def __init__(self, a: Host, b: Host, reader: Child, flag: Path) -> None:
        self.a, self.b, self.reader, self.flag = a, b, reader, flag
        self.at_a: Cache = a.attach()

    def read(self) -> str:
        self.reader.tell()
        return self.reader.line()

    def lose(self) -> None:
        """A writes, and B does not hear of it."""
        self.flag.touch()
        self.at_a.set(KEY, "new")
        assert self.read() == "old"

    def heal(self) -> None:
        """A writes once more, and B hears of that."""
        self.flag.unlink()
        self.at_a.delete(KEY)
        until(lambda: self.b.attach().get(KEY) is None, "the eviction at b")


@contextmanager
def scene(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> Iterator[Scene]:
    flag = folder / "loses"
    with hosts(folder, bridge=more) as (a, b):
        text = b.config.read_text()
        b.config.write_text(text.replace("[namespaces.shop]", '[namespaces.shop]\nnear_cache = "64KiB"'))
        a.start(), b.start(LOSES.format(flag=str(flag)))
        monkeypatch.setenv("CACHEE_SERVICE", "reports")
        with child(READS, file=str(b.config)) as reader:
            monkeypatch.setenv("CACHEE_SERVICE", "checkout")
            assert reader.line() == "warm"
            made = Scene(a, b, reader, flag)
            until(lambda: made.at_a.health().ok and b.attach().health().ok, "both have met")
            yield made


def test_a_lost_invalidation_is_explained_from_either_host_once_the_checker_has_armed_the_key(
    tmp_path, monkeypatch, capsys
):
    with scene(tmp_path, monkeypatch, 'check_every = "20ms"') as s:
        before = time.time()
        s.lose()
        written = time.time()

        def is_armed() -> bool:
            return any(row.kind == "held" and row.host == s.b.name for row in s.at_a.explain(KEY).rows)

        while not is_armed():  # the checker samples keys that were written lately
            s.at_a.set(KEY, "new")
            written = time.time()
            time.sleep(0.2)
        assert s.read() == "old"
        until(lambda: s.at_a.explain(KEY).why_stale().read, "the read at b")
        s.heal()
        after = time.time()
        for host in (s.a, s.b):
            why = host.attach().explain(KEY).why_stale()
            assert why.read is not None and why.write is not None and why.end is not None
            assert (why.read.host, why.read.service, why.read.pid) == (s.b.name, "reports", s.reader.pid)
            assert why.read.command.startswith("python")
            assert why.held == f"the near cache of {why.read.who} and the segment of {s.b.name}"
            assert why.write.host == s.a.name
            assert why.end.kind == "received" and why.end.why == "evicted a copy"
            assert why.stale_s is not None and why.stale_s <= after - before + 0.2
            assert why.end.at - why.read.at <= after - written + 0.2
        monkeypatch.setenv("CACHEE_CONFIG", str(s.a.config))
        assert main(["explain", KEY, "-n", "shop", "--why-stale"]) == 0
        served, held, lasted = capsys.readouterr().out.splitlines()
        assert re.fullmatch(
            rf"served by: reports \(pid {s.reader.pid}, python\S*\) on {s.b.name}, .* after the write", served
        )
        assert held.endswith(f"the segment of {s.b.name}")
        assert f"on {s.a.name}" in lasted or f"{s.a.name} has held" in lasted


def test_a_key_that_is_watched_beforehand_is_explained_to_the_millisecond(tmp_path, monkeypatch):
    with scene(tmp_path, monkeypatch) as s:
        until(lambda: len(s.at_a.explain(KEY).clocks) == 2, "a link")
        assert watch(s.at_a, KEY, 600) == {}
        assert s.read() == "old"  # the first read since then: of what is no old copy yet
        s.at_a._call("checkout")
        before = time.time()
        s.lose()
        assert watch(s.at_a, KEY, 600) == {}
        assert s.read() == "old"
        time.sleep(0.05)
        s.heal()
        after = time.time()
        found = s.at_a.explain(KEY)
        why = found.why_stale()
        assert why.write is not None and why.read is not None and why.end is not None
        assert (why.write.kind, why.write.service, why.write.pid) == ("written", "checkout", os.getpid())
        assert (why.read.service, why.end.host) == ("reports", s.b.name)
        wrong_s = found.uncertain_s(s.a.name, s.b.name)
        assert why.stale_s is not None and 0.05 - wrong_s <= why.stale_s <= after - before + wrong_s
        kinds = [(row.host, row.kind) for row in found.rows if row.at >= before]
        assert (s.a.name, "sent") in kinds and (s.b.name, "received") in kinds


def test_a_read_before_the_invalidation_was_due_is_no_stale_one(tmp_path, monkeypatch):
    with scene(tmp_path, monkeypatch) as s:
        until(lambda: len(s.at_a.explain(KEY).clocks) == 2, "a link")
        watch(s.at_a, KEY, 600)
        assert s.read() == "old"
        s.at_a.set(KEY, "new")
        until(lambda: s.read() != "old", "the eviction at b")
        assert s.at_a.explain(KEY).why_stale().lines == (
            "served by: not observed",
            "held by: not observed",
            "for how long: not observed",
        )


def test_what_cannot_be_watched_is_an_error_that_says_so(tmp_path):
    with hosts(tmp_path) as (a, _):
        a.start()
        for namespace, hashed, seconds in (
            ("none", 1, 60),
            ("shop", 0, 60),
            ("shop", 1, -1),
            ("shop", 1, "x"),
        ):
            told = ask(a, do="arm", namespace=namespace, hash=hashed, seconds=seconds)
            assert "serves no namespace" in told["error"] or "seconds: a number" in told["error"]


def test_a_host_that_is_not_linked_is_not_watched_and_that_is_said(tmp_path, monkeypatch):
    with scene(tmp_path, monkeypatch) as s:
        s.a.kill()
        assert "no bridge runs" in watch(s.at_a, KEY, 60)["the other hosts"]
        assert "no bridge runs" in s.at_a.explain(KEY).unheard["the other hosts"]
