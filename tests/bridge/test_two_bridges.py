"""Two bridges and more: real processes, real segments, real TCP, and what can go wrong between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import psutil
import pytest

from cachee_bridge.__main__ import EXIT_CONFIG, EXIT_FAILED, EXIT_RUNNING
from cachee_bridge.wire.frames import VERSION_MIN, encode
from cachee_bridge.wire.messages import MAGIC, Hello, State
from cachee_shm import Cache
from tests.bridge.hosts import WAIT_S, Host, hosts, until

Pair = list[Host]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two hosts, up and linked; neither serves by the isolation policy any more."""
    with hosts(tmp_path) as both:
        meet(*both)
        yield both


def meet(*all_hosts: Host) -> None:
    """Starts the bridges that do not run, and waits until nobody is isolated."""
    for host in all_hosts:
        if host.process is None or host.process.poll() is not None:
            host.start()
    for host in all_hosts:
        whole(host)


def whole(host: Host) -> None:
    cache = host.attach()
    until(lambda: not isolated(cache), f"{host.name} to be whole\n{host.log}")


def isolated(cache: Cache) -> bool:
    return cache.serve_until < cache.now_ms()


def fill(cache: Cache, keys: list[str]) -> None:
    """Stores without announcing, as a miss does."""
    for key in keys:
        assert cache.get_or_load(key, lambda: b"old") == b"old"
    assert cache.get_many(keys).keys() == set(keys)


def gone(cache: Cache, keys: list[str], what: str = "") -> None:
    until(lambda: not cache.get_many(keys), what)


def heard(cache: Cache, source: Host) -> int:
    """How far the ring of `source` has been applied to `cache`."""
    return next(cursor for _, name, _, cursor in cache.sources() if name == source.name)


def tell(writer: Host, reader: Host, key: str = "told") -> None:
    """One write at `writer` is known at `reader`."""
    cache = reader.attach()
    fill(cache, [key])
    writer.attach().delete(key)
    until(lambda: cache.get(key) is None, f"{key}\n{writer.log}\n{reader.log}")


def test_a_write_on_either_host_evicts_on_the_other(pair: Pair) -> None:
    tell(pair[0], pair[1])
    tell(pair[1], pair[0])


def test_what_was_not_written_stays(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    keys = [f"k{number}" for number in range(500)]
    fill(reader, keys)
    for key in keys[::2]:
        writer.set(key, b"new")
    gone(reader, keys[::2])
    assert reader.get_many(keys).keys() == set(keys[1::2])


def test_a_burst_longer_than_the_ring_loses_nothing(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    keys = [f"k{number}" for number in range(200)]
    fill(reader, keys)
    for number in range(20 * writer.ring_slots):
        writer.delete(f"other{number}")
        if number % (20 * writer.ring_slots // len(keys)) == 0:
            writer.delete(keys[number * len(keys) // (20 * writer.ring_slots)])
    gone(reader, keys)


def test_a_host_that_only_applied_more_records_than_its_ring_holds_empties_no_peer(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    tell(pair[1], pair[0])
    keys = [f"k{number}" for number in range(200)]
    fill(writer, keys)
    pair[1].signal(signal.SIGSTOP)
    for number in range(2 * reader.ring_slots):
        reader.set(f"draft{number % 100}", number, local=True)
    pair[1].signal(signal.SIGCONT)
    until(lambda: heard(writer, pair[1]) == reader.tail)
    assert writer.get_many(keys).keys() == set(keys)


def lap(writer: Cache, keys: list[str]) -> None:
    """Deletes `keys`, and other keys until its ring has lost that."""
    writer.delete_many(keys)
    for lap_number in range(2):
        writer.delete_many([f"other{lap_number}:{number}" for number in range(writer.ring_slots)])


def test_a_lapped_host_evicts_what_was_written_and_little_else(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    reader.set("mine", 1, local=True)
    reader.get_or_load("tagged", lambda: 2, tags=["team:7"])
    keys = [f"k{number}" for number in range(1000)]
    fill(reader, keys)
    pair[1].kill()
    writer.delete_tags("team:7")
    lap(writer, keys[:100])
    pair[1].start()
    until(lambda: heard(reader, pair[0]) == writer.tail, f"{pair[0].log}\n{pair[1].log}")
    left = reader.get_many(keys)
    assert not left.keys() & set(keys[:100])
    assert len(left) > 650  # of 900; two laps are an eighth of the buckets
    assert (reader.get("tagged"), reader.get("mine")) == (None, 1)
    for log, line in (
        (0, "lapped; a map of buckets stands for"),
        (1, "lapped; what it may have written up to"),
    ):
        until(lambda log=log, line=line: line in pair[log].log)  # a thread writes it, after it is done
    tell(pair[0], pair[1])
    tell(pair[1], pair[0])


def test_a_host_that_is_lapped_again_while_it_repairs_misses_nothing(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    for round_number in range(5):
        keys = [f"{round_number}:{number}" for number in range(200)]
        fill(reader, keys)
        pair[1].kill()
        lap(writer, keys[::2])
        pair[1].start()
        lap(writer, keys[1::2])
        gone(reader, keys, f"round {round_number}")


def test_bridges_that_are_killed_while_they_repair_miss_nothing(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    for round_number in range(6):
        keys = [f"{round_number}:{number}" for number in range(200)]
        fill(reader, keys)
        pair[1].kill()
        lap(writer, keys)
        pair[1].start()
        time.sleep(0.003 * round_number)
        pair[round_number % 2].kill()
        pair[round_number % 2].start()
        gone(reader, keys, f"round {round_number}")


def test_the_other_host_may_store_again_at_once(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    for round_number in range(50):
        fill(reader, ["k"])
        writer.set("k", round_number)
        until(lambda: reader.get("k") is None)


def test_a_host_that_holds_the_written_bytes_keeps_them(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    fill(reader, ["same", "other"])
    writer.set("same", b"old")
    writer.set("other", b"new")
    until(lambda: reader.get("other") is None)
    assert reader.get("same") == b"old"


def test_local_keys_tags_and_clear_keep_their_word(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    reader.set("mine", 1, local=True)
    reader.get_or_load("tagged", lambda: 2, tags=["team:7"])
    writer.set("draft", 3, local=True)
    writer.delete_tags("team:7")
    until(lambda: reader.get("tagged") is None)
    fill(reader, ["k"])
    writer.clear()
    until(lambda: reader.get("k") is None)
    assert reader.get("mine") == 1


def test_a_namespace_made_on_first_use_is_relayed_too(pair: Pair) -> None:
    writer, reader = pair[0].attach("news"), pair[1].attach("news")
    until(lambda: not isolated(writer) and not isolated(reader))
    fill(reader, ["k"])
    writer.delete("k")
    until(lambda: reader.get("k") is None)


def test_one_reachable_peer_is_enough_to_meet_the_rest(tmp_path: Path) -> None:
    with hosts(tmp_path, 3) as (first, second, third):
        third.config.write_text(third.config.read_text().replace(f'"127.0.0.1:{second.port}", ', ""))
        second.config.write_text(second.config.read_text().replace(f', "127.0.0.1:{third.port}"', ""))
        meet(first, second, third)
        tell(third, second)
        tell(second, third)


def test_bytes_that_are_no_frame_close_that_link_only_and_are_logged_with_the_address(pair: Pair) -> None:
    with socket.create_connection(pair[0].address) as stranger:
        stranger.settimeout(WAIT_S)
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: cachee\r\n\r\n" * 100)
        host, port = stranger.getsockname()
        closed(stranger)
    until(lambda: f"{host}:{port}" in pair[0].log)
    tell(pair[0], pair[1])
    assert "the link to b" not in pair[0].log


def closed(sock: socket.socket) -> None:
    """Reads to the end of what the bridge sent."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass


class Impostor:
    """A peer that speaks the handshake and then whatever a test wants, over a blocking socket."""

    def __init__(self, host: Host, name: str) -> None:
        self.socket = socket.create_connection(host.address)
        self.socket.settimeout(WAIT_S)
        self.socket.sendall(encode(Hello(MAGIC, VERSION_MIN, name, 1, os.urandom(32), "none", "", "")))
        self.socket.sendall(encode(State(())))
        until(lambda: f"{name} is up" in host.log, f"{name}\n{host.log}")


def test_a_malformed_frame_closes_that_link_only_and_is_logged_with_the_peers_name(pair: Pair) -> None:
    impostor = Impostor(pair[0], "impostor-1")
    impostor.socket.sendall(struct.pack("<IB", 9, 5) + b"\xc1garbage")
    closed(impostor.socket)
    impostor.socket.close()
    until(lambda: "closing the link to impostor-1" in pair[0].log)
    tell(pair[0], pair[1])
    tell(pair[1], pair[0])


def test_a_peer_that_reads_nothing_delays_nobody(pair: Pair) -> None:
    impostor = Impostor(pair[0], "slow-1")
    writer, reader = pair[0].attach(), pair[1].attach()
    fill(reader, ["k"])
    assert pair[0].process is not None
    memory = psutil.Process(pair[0].process.pid).memory_full_info()
    for number in range(300_000):
        writer.delete(f"other{number}")
    writer.delete("k")
    until(lambda: reader.get("k") is None)
    grown = psutil.Process(pair[0].process.pid).memory_full_info().uss - memory.uss
    assert grown < 32 << 20
    impostor.socket.close()


def test_a_second_bridge_for_the_host_exits_and_the_first_goes_on(pair: Pair) -> None:
    assert pair[0].run().wait(WAIT_S) == EXIT_RUNNING
    assert f"'{pair[0].name}' has a bridge already" in pair[0].log
    tell(pair[0], pair[1])


def test_another_bridge_on_the_same_port_exits_with_a_clear_message(pair: Pair) -> None:
    text = pair[0].config.read_text().replace(pair[0].name, f"{pair[0].name}-too")
    other = Host(pair[0].folder, f"{pair[0].name}-too", pair[0].port, [])
    other.config.write_text(text)
    try:
        assert other.run().wait(WAIT_S) == EXIT_FAILED
        assert f"cannot listen on '127.0.0.1:{pair[0].port}'" in other.log
    finally:
        other.clean_up()


def test_what_was_written_while_the_bridge_was_dead_is_known_after_its_restart(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    keys = [f"k{number}" for number in range(100)]
    fill(reader, keys)
    pair[0].kill()
    for key in keys:
        writer.delete(key)
    pair[0].start()
    gone(reader, keys)


def test_what_was_written_while_the_readers_bridge_was_dead_is_known_after_its_restart(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    keys = [f"k{number}" for number in range(100)]
    fill(reader, keys)
    pair[1].kill()
    for key in keys:
        writer.delete(key)
    pair[1].start()
    gone(reader, keys)


def test_bridges_killed_under_load_lose_no_invalidation(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    for round_number in range(6):
        keys = [f"{round_number}:{number}" for number in range(300)]
        fill(reader, keys)
        victim = pair[round_number % 2]
        for number, key in enumerate(keys):
            writer.delete(key)
            if number == 100:
                victim.kill()
            if number == 200:
                victim.start()
        gone(reader, keys, f"{pair[0].log}\n{pair[1].log}")


def test_a_restart_evicts_nothing(pair: Pair) -> None:
    reader = pair[1].attach()
    keys = [f"k{number}" for number in range(100)]
    fill(reader, keys)
    fill(pair[0].attach(), keys)
    pair[0].kill()
    pair[0].start()
    tell(pair[0], pair[1])
    assert reader.get_many(keys).keys() == set(keys)
    assert pair[0].attach().get_many(keys).keys() == set(keys)


def test_a_dead_bridge_isolates_both_hosts_until_it_is_back(pair: Pair) -> None:
    caches = [pair[0].attach(), pair[1].attach()]
    pair[0].kill()
    until(lambda: all(isolated(cache) for cache in caches))
    pair[0].start()
    until(lambda: not any(isolated(cache) for cache in caches))


def test_a_bridge_that_hangs_isolates_both_hosts_until_it_goes_on(tmp_path: Path) -> None:
    with hosts(tmp_path) as pair:
        for host in pair:
            host.config.write_text(host.config.read_text().replace('"1h"', '"10ms"'))
        meet(*pair)
        writer, reader = pair[0].attach(), pair[1].attach()
        fill(reader, ["k"])
        pair[1].signal(signal.SIGSTOP)
        writer.delete("k")
        until(lambda: isolated(reader) and isolated(writer))
        time.sleep(0.1)  # isolation_ttl and a stamp's resolution
        assert reader.get("k") is None
        pair[1].signal(signal.SIGCONT)
        until(lambda: not isolated(reader) and not isolated(writer))
        assert reader.get("k") is None


def test_the_last_worker_gone_a_stop_is_a_leave_and_isolates_nobody(pair: Pair) -> None:
    reader = pair[1].attach()
    fill(reader, ["k"])
    pair[0].attach().delete("k")
    pair[0].detach()
    assert pair[0].stop() == 0
    assert "left for good" in pair[0].log
    gone(reader, ["k"])  # what was sent before the farewell may be applied a moment after it
    time.sleep(3)  # lost_after is 2 s
    assert not isolated(reader)


def test_what_is_written_after_a_farewell_is_warned_of_and_announced_when_the_bridge_is_back(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    left, other = pair
    fill(other.attach(), ["k"])
    left.detach()
    assert left.stop() == 0
    caplog.clear()
    cache = left.attach()
    assert [record.name for record in caplog.records if "has left the mesh" in record.message] == [
        "cachee_shm"
    ]
    assert (cache.health().ok, cache.health().bridge) == (False, "left")
    cache.delete("k")
    assert not cache.wait_synced(0)
    left.start()
    gone(other.attach(), ["k"], other.log)
    until(lambda: cache.health().ok, "health")


def test_a_namespace_that_a_booted_host_does_not_use_any_more_isolates_nobody(pair: Pair) -> None:
    """Nor does it hold back what the other host writes."""
    other, booted = pair
    jobs = other.attach("jobs")
    with contextlib.closing(booted.attach("jobs")) as cache:
        until(lambda: not isolated(jobs) and len(jobs.sources()) == 1, other.log)
        fill(jobs, ["k"])
        cache.set("x", 1)
    booted.detach()
    booted.kill()
    for path in Path("/dev/shm").glob(f"cachee.{booted.name}.*"):
        path.unlink()
    booted.start()
    until(lambda: not jobs.sources() and not isolated(jobs), other.log)
    assert jobs.get("k") is None
    fill(jobs, ["k"])
    booted.attach("jobs").delete("k")
    gone(jobs, ["k"], other.log)


def test_with_workers_attached_a_stop_is_no_leave(pair: Pair) -> None:
    reader = pair[1].attach()
    assert pair[0].stop() == 0
    assert "workers are attached" in pair[0].log
    until(lambda: isolated(reader))


@pytest.mark.needs("message queues")
def test_a_clean_stop_leaves_no_doorbell_and_the_next_bridge_is_rung(pair: Pair) -> None:
    writer = pair[0].attach()
    tell(pair[0], pair[1])
    pair[0].stop()
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(f"/cachee.{pair[0].name}")
    meet(pair[0])
    tell(pair[0], pair[1])
    rings = writer.stats()["doorbells"]
    time.sleep(0.05)
    tell(pair[0], pair[1])
    assert pair[0].attach().stats()["doorbells"] > rings


def test_without_a_doorbell_the_bridge_looks_by_itself_and_says_so(tmp_path: Path) -> None:
    with hosts(tmp_path) as both:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))"
        both[0].process = both[0].run(before=limit)
        both[1].start()
        for host in both:
            whole(host)
        assert "no doorbell" in both[0].log
        tell(both[0], both[1])


OTHER_IPC_NAMESPACE = """
import ctypes, sys, time
assert not ctypes.CDLL(None).unshare(0x08000000)
import cachee_shm
cache = cachee_shm.attach("shop", config=sys.argv[1])
for line in sys.stdin:
    cache.delete(line.strip())
"""


@pytest.mark.needs("IPC namespaces")
def test_writers_of_another_ipc_namespace_are_heard_and_told_of(pair: Pair) -> None:
    reader = pair[1].attach()
    keys = [f"k{number}" for number in range(30)]
    fill(reader, keys)
    command = [sys.executable, "-c", OTHER_IPC_NAMESPACE, str(pair[0].config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1) as writer:
        assert writer.stdin is not None
        for key in keys:
            writer.stdin.write(f"{key}\n")
            gone(reader, [key])
        writer.stdin.close()
    until(lambda: "without a ring" in pair[0].log)
    assert pair[0].log.count("without a ring") == 1


def test_the_service_manager_is_told_of_the_whole_life(tmp_path: Path) -> None:
    with hosts(tmp_path, 1) as (host,), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        host.process = host.run(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        told: list[str] = []
        while told.count("WATCHDOG=1") < 3:
            told += manager.recv(4096).decode().split("\n")
        host.signal(signal.SIGHUP)
        until(lambda: "read again" in host.log)
        assert host.stop() == 0
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                told += manager.recv(4096).decode().split("\n")
        assert told.index("READY=1") < told.index("STOPPING=1")


def test_a_segment_removed_under_its_workers_is_made_anew_for_all(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    os.unlink(f"/dev/shm{writer.name}")
    until(lambda: "attaching anew" in pair[0].log)
    until(lambda: not isolated(writer) and not isolated(reader), f"{pair[0].log}\n{pair[1].log}")
    assert os.path.exists(f"/dev/shm{writer.name}")
    fill(reader, ["k"])
    writer.delete("k")
    until(lambda: reader.get("k") is None)


def test_a_listener_beyond_loopback_without_a_secret_is_refused(tmp_path: Path) -> None:
    with hosts(tmp_path, 1) as (host,):
        host.config.write_text(host.config.read_text().replace('"127.0.0.1:', '":', 1))
        assert host.run().wait(WAIT_S) == EXIT_CONFIG
        assert "secret_file" in host.log


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("good", "new", "wrong"):
        path = tmp_path / name
        path.write_text(f"{name}: sixteen bytes and some more\n")
        path.chmod(0o600)
    return tmp_path


def with_secret(host: Host, *lines: str) -> None:
    host.config.write_text(host.config.read_text() + "\n".join(lines) + "\n")


def test_hosts_of_one_secret_agree(tmp_path: Path, secrets: Path) -> None:
    with hosts(tmp_path, bridge=f'secret_file = "{secrets / "good"}"') as both:
        meet(*both)
        tell(both[0], both[1])


def test_a_wrong_secret_is_refused_on_both_sides(tmp_path: Path, secrets: Path) -> None:
    with hosts(tmp_path, 3) as (first, second, wrong):
        for host in (first, second):
            with_secret(host, f'secret_file = "{secrets / "good"}"')
        with_secret(wrong, f'secret_file = "{secrets / "wrong"}"')
        for host in (first, second, wrong):
            host.start()
        until(lambda: "secret" in wrong.log and "secret" in first.log)
        writer, reader = wrong.attach(), first.attach()
        reader.set("k", b"old", ttl=None, local=False)
        writer.delete("k")
        time.sleep(0.5)
        assert writer.stats()["applied"] == 0
        assert isolated(writer)
        assert f"{wrong.name} is up" not in first.log
        assert f"{first.name} is up" not in wrong.log


def test_a_secret_is_rolled_host_by_host(tmp_path: Path, secrets: Path) -> None:
    with hosts(tmp_path) as (first, second):
        (secrets / "both").write_text((secrets / "new").read_text() + (secrets / "good").read_text())
        with_secret(first, f'secret_file = "{secrets / "both"}"')
        with_secret(second, f'secret_file = "{secrets / "good"}"')
        meet(first, second)
        tell(first, second)
