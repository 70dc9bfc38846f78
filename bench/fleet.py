"""Many hosts of one mesh on this machine, each of which gets most writes of the others by relays.

The bridges are real processes. Nothing is measured before links that are not needed are closed, which takes
5 s. A bench may run bridges that note the time of what they do (traced_bridge.py), or that dial others by a
proxy (routed_bridge.py).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mesh import LOOPBACK, Host, Mesh, Proof, configured, wait_for

import cachee_shm
from cachee_shm.segment import bridge_socket

MEET_S = 170.0  # all at once on few cores
LOOK_S, STEADY_LOOKS = 1.5, 5  # longer than a link that nobody needs may last
FOLDER = Path(__file__).resolve().parent
Commands = Callable[[Sequence[Host]], Sequence[Sequence[str]]]
"""commands(hosts): the script of this folder that is run as each host's bridge, and what it is told."""
Extra = Callable[[int], tuple[str, str]]
"""extra(number): more lines of that host's [host], and of its [bridge]."""


class Fleet:
    """Its hosts, an attachment of this process to each, and where the traces will be."""

    def __init__(self, hosts: Sequence[Host], caches: Sequence[cachee_shm.Cache]) -> None:
        self.hosts, self.caches = list(hosts), list(caches)
        self.mesh = Mesh(self.hosts, self.caches)

    def meet(self) -> None:
        """Until nobody is isolated and all has been applied everywhere."""
        wait_for(lambda: all(c.serve_until > c.now_ms() for c in self.caches), MEET_S, "hosts did not meet")
        tails = self.mesh.tails()
        wait_for(lambda: self.mesh.is_settled(tails), MEET_S, "the hosts do not catch up")

    def part(self, looks: int = STEADY_LOOKS) -> dict[str, dict[str, int]]:
        """Until some hear others by way of others and no link has come or gone for so many looks; how many
        peers each host has of each state."""
        seen: list[dict[str, dict[str, int]]] = []
        deadline = time.monotonic() + MEET_S
        while time.monotonic() < deadline:
            seen.append({host.name: states(host) for host in self.hosts})
            settled = seen[-looks:]
            if any("relayed" in each for each in seen[-1].values()) and settled == [seen[-1]] * looks:
                return seen[-1]
            time.sleep(LOOK_S)
        raise SystemExit(f"the hosts did not part within {MEET_S:g} s: {seen[-1]}")


def watch(caches: Mapping[int, cachee_shm.Cache], key: str, begun: int, most_s: float) -> dict[int, int]:
    """After how many ns from `begun` each was seen to have `key` no more; those that still have it after
    `most_s` are left out. Looks every 0.1 ms or so: to spin would take a core from the bridges."""
    gone: dict[int, int] = {}
    left = dict(caches)
    while left and time.monotonic_ns() - begun < most_s * 1e9:
        for at, cache in list(left.items()):
            if key not in cache:
                gone[at] = time.monotonic_ns() - begun
                del left[at]
        time.sleep(50e-6)
    return gone


def states(host: Host) -> dict[str, int]:
    """How many peers are "up", "relayed", ..., as the bridge tells `cachee peers`."""
    counts: dict[str, int] = {}
    for peer in ask(host)["peers"]:
        if peer["name"] and peer["state"] != "self":
            counts[peer["state"]] = counts.get(peer["state"], 0) + 1
    return counts


def ask(host: Host) -> dict[str, Any]:
    """What `cachee peers --json` prints, without the start of a process."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30.0)
        sock.connect(bridge_socket(host.name))
        sock.sendall(b'{"do": "peers"}\n')
        told: dict[str, Any] = json.loads(b"".join(iter(lambda: sock.recv(1 << 16), b"")))
    return told


@contextmanager
def fleet(
    count: int,
    memory: str,
    proof: Proof,
    extra: Extra = lambda number: ("", ""),
    commands: Commands | None = None,
    cores: Callable[[int], frozenset[int]] | None = None,
) -> Iterator[Fleet]:
    """`count` hosts that have met. `proof` ends [bridge]; `cores(number)`: where a bridge may run."""
    names = [f"h{number:02}" for number in range(count)]
    with ExitStack() as stack:
        hosts = stack.enter_context(configured(names, [memory] * count, "1h", proof=proof))
        everywhere = frozenset(os.sched_getaffinity(0))
        for number, host in enumerate(hosts):
            add(host, *extra(number))
        scripts = commands(hosts) if commands is not None else [[]] * count
        for number, (host, script) in enumerate(zip(hosts, scripts, strict=True)):
            os.sched_setaffinity(0, cores(number) if cores is not None else everywhere)
            stack.enter_context(_scripted(host, *script) if script else host.bridged())
        os.sched_setaffinity(0, everywhere)
        found = Fleet(hosts, [stack.enter_context(host.attach()) for host in hosts])
        found.meet()
        yield found


def add(host: Host, to_host: str, to_bridge: str) -> None:
    path = Path(host.config)
    text = (
        path.read_text()
        .replace("[host]\n", f"[host]\n{to_host}")
        .replace("[bridge]\n", f"[bridge]\n{to_bridge}")
    )
    path.write_text(text)


@contextmanager
def _scripted(host: Host, script: str, *told: str) -> Iterator[None]:
    command = [sys.executable, str(FOLDER / script), *told, "--config", host.config]
    with host.log.open("ab") as file, LOOPBACK.inside():
        host.bridge = subprocess.Popen(command, stdout=file, stderr=file, cwd=host.log.parent)
    with host.running():
        yield


def traced(hosts: Sequence[Host]) -> list[list[str]]:
    """For `commands`."""
    return [["traced_bridge.py", str(trace_of(host))] for host in hosts]


def trace_of(host: Host) -> Path:
    """What its bridge has noted, once it has ended."""
    return Path(host.config).with_suffix(".trace")


def listens_at(host: Host) -> str:
    """Its address, "host:port"."""
    found = re.search('^listen = "(.+)"$', Path(host.config).read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)
