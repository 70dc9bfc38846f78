"""Two hosts of one mesh on this machine: two segments, two real bridges, and a reader process.

The reader is attached to the second host and spins on a key of it until its copy is gone; the caller writes
that key on the first host. Both read the machine's monotonic clock, so a trip is the difference. The reader
spins by SCHED_IDLE: on a core that nobody else wants at the moment.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mesh import JOIN_S, STOP_S, Proof, configured, secret
from namespaces import Loopback, Place

import cachee_shm

JOINED_AFTER = 5  # writes that arrived, 0.1 s apart
LOST_AFTER_S = 5.0  # of silence: what has not been evicted by then is counted as lost
OLD, NEW = b"the copy that the second host holds", b"what the first host writes"
PROCESSES = multiprocessing.get_context("spawn")
now_ns = time.monotonic_ns
LOST = -1


def read(config: str, pipe: Connection) -> None:
    """The reader's process: fills and watches keys, as it is told, until it is told nothing more."""
    cache = cachee_shm.attach("bench", config=config)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    gc.disable()
    try:
        while (order := pipe.recv()) is not None:
            verb, keys = order
            if verb == "fill":
                pipe.send(_fill(cache, keys))
            else:
                pipe.send(_watch(cache, keys, pipe if verb == "watch, telling" else None))
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        cache.close()


def _fill(cache: cachee_shm.Cache, keys: Sequence[str]) -> int:
    """Copies as a web service gets them: loaded after a miss, announced to nobody. How many are held."""
    for key in keys:
        cache.get_or_load(key, lambda: OLD)
    return sum(cache.get(key) == OLD for key in keys)


def _watch(cache: cachee_shm.Cache, keys: Sequence[str], pipe: Connection | None) -> list[int]:
    """When each key was gone, one after the other; LOST for one that stayed."""
    gone: list[int] = []
    deadline = now_ns() + int(JOIN_S * 1e9)
    for key in keys:
        while key in cache:
            if now_ns() > deadline:
                break
        gone.append(LOST if key in cache else now_ns())
        deadline = now_ns() + (0 if gone[-1] == LOST else int(LOST_AFTER_S * 1e9))
        if pipe is not None:
            pipe.send_bytes(b"x")
    return gone


@dataclass
class Trips:
    """Of one block of writes: what each took to be known over there, and what the writer paid, in ns."""

    trips_ns: list[int]
    calls_ns: list[int]
    lost: int
    per_second: float


class Watched:
    """The writer's side of a pipe, at whose other end a process holds copies and watches them go."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._blocks = 0

    def answer(self) -> object:
        try:
            if self._pipe.poll(2 * JOIN_S):
                return self._pipe.recv()
        except EOFError:
            pass
        raise SystemExit("the reader does not answer")

    def prepare(self, count: int) -> list[str]:
        """New keys, of which the second host now holds copies."""
        self._blocks += 1
        keys = [f"{self._blocks}:{number}" for number in range(count)]
        self._pipe.send(("fill", keys))
        held = self.answer()
        if held != count:
            raise SystemExit(f"the second host holds {held} of {count} keys: nothing to measure")
        return keys

    def one_at_a_time(self, write: Callable[[str], object], count: int, pause_s: float) -> Trips:
        """Each write after the one before has arrived, and not before `pause_s` has passed since it began."""
        keys = self.prepare(count)
        self._pipe.send(("watch, telling", keys))
        time.sleep(0.01)
        begun: list[int] = []
        done: list[int] = []
        for key in keys:
            if pause_s and begun:
                time.sleep(max(0.0, pause_s - (now_ns() - begun[-1]) / 1e9))
            begun.append(now_ns())
            write(key)
            done.append(now_ns())
            self._pipe.recv_bytes()
        return self._trips(begun, done)

    def steadily(self, write: Callable[[str], object], count: int, per_second: float) -> Trips:
        """`per_second` writes of distinct keys, whatever has arrived; what came due in a sleep, at once."""
        keys = self.prepare(count)
        self._pipe.send(("watch", keys))
        time.sleep(0.01)
        begun: list[int] = []
        done: list[int] = []
        start, period_ns = now_ns(), 1e9 / per_second
        for number, key in enumerate(keys):
            while now_ns() < start + number * period_ns:
                time.sleep(0.00005)
            begun.append(now_ns())
            write(key)
            done.append(now_ns())
        return self._trips(begun, done)

    def _trips(self, begun: list[int], done: list[int]) -> Trips:
        gone = self.answer()
        assert isinstance(gone, list)
        return Trips(
            trips_ns=[end - start for start, end in zip(begun, gone, strict=True) if end != LOST],
            calls_ns=[end - start for start, end in zip(begun, done, strict=True)],
            lost=gone.count(LOST),
            per_second=(len(begun) - 1) / max(1, begun[-1] - begun[0]) * 1e9,
        )

    def join(self, write: Callable[[str], object]) -> None:
        """Until writes here are known there. First contact evicts all, so one that arrives proves little."""
        deadline = time.monotonic() + JOIN_S
        for number in range(JOINED_AFTER):
            self._pipe.send(("fill", [f"join:{number}"]))
            self.answer()
            self._pipe.send(("watch, telling", [f"join:{number}"]))
            while not self._pipe.poll(0.1):
                if time.monotonic() > deadline:
                    raise SystemExit(f"what is written does not arrive within {JOIN_S:g} s")
                write(f"join:{number}")
            self._pipe.recv_bytes()
            self.answer()
            time.sleep(0.1)


class TwoHosts(Watched):
    """The writer's side of the two."""

    def __init__(self, writer: cachee_shm.Cache, pipe: Connection) -> None:
        super().__init__(pipe)
        self.cache = writer

    def set(self, key: str) -> object:
        return self.cache.set(key, NEW)

    @contextmanager
    def spinning(self) -> Iterator[None]:
        """The reader spins meanwhile, as it does while trips are measured: rivals get no quieter machine."""
        key = self.prepare(1)[0]
        self._pipe.send(("watch", [key]))
        yield
        self.cache.delete(key)
        self.answer()


@contextmanager
def two_hosts(
    places: Sequence[Place | Loopback], proof: Proof = secret, names: tuple[str, str] = ("a", "b")
) -> Iterator[TwoHosts]:
    """Both hosts, joined; all that they leave on the machine is removed at the end."""
    with ExitStack() as stack:
        ours, theirs = stack.enter_context(
            configured(list(names), ["64MiB"] * 2, "never", places=places, proof=proof)
        )
        for host in (ours, theirs):
            stack.enter_context(host.bridged())
        writer = stack.enter_context(ours.attach())
        hosts = TwoHosts(writer, stack.enter_context(reader(read, theirs.config)))
        hosts.join(hosts.set)
        yield hosts


@contextmanager
def reader(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """A process of `target(*arguments, pipe)`; our end of the pipe, by which it also learns of the end."""
    pipe, far_end = PROCESSES.Pipe()
    process = PROCESSES.Process(target=target, args=(*arguments, far_end), daemon=True)
    process.start()
    far_end.close()  # its death is our end of the pipe
    try:
        yield pipe
    finally:
        _stop_reader(process, pipe)


def _stop_reader(reader: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
    with suppress(OSError):
        pipe.send(None)
    reader.join(STOP_S)
    if reader.is_alive():
        reader.terminate()
        reader.join()
