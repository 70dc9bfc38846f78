"""Hosts that have a network of their own on this machine: a network namespace each.

        host a              host b              host c
      10.77.0.1           10.77.0.2           10.77.0.3
        eth0                eth0                eth0
         | veth              |                   |              two hosts: one cable between them
      ---+-------- switch ---+-------------------+---           more: a switch, in a namespace of its own

The addresses are nobody else's: none of these namespaces has a way out. /dev/shm, message queues and the
monotonic clock are the machine's, so segments, doorbells and measured trips work across them. What is made is
removed at the end; a name has the pid of its maker. For tests/hosts and the benches.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
FOLDER = "/run/netns"
NOBODY = "02:00:00:00:00:ff"  # an address of the cable that no host has

_libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    """One command of iproute2; OSError with its words when it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@functools.cache
def missing() -> str:
    """Why no such network can be made here, in one line; "" when it can."""
    for command in ("ip", "tc"):
        if shutil.which(command) is None:
            return f"no network namespaces: there is no {command!r} on the path (apt-get install iproute2)"
    try:
        with network(["a", "b", "c"]):
            return ""
    except OSError as error:
        return f"no network namespaces: {error} (it takes root's CAP_SYS_ADMIN and CAP_NET_ADMIN)"


class Place:
    """One host's network: its address, and what can be done to its cable."""

    def __init__(self, namespace: str, address: str, port: tuple[str, str] | None) -> None:
        """`port`: the switch's namespace and the name of its end of the cable; None without a switch."""
        self.namespace = namespace
        self.address = address
        self._port = port

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread's new sockets, and processes started by it, are this host's."""
        with open("/proc/thread-self/ns/net", "rb") as before:
            _enter(f"{FOLDER}/{self.namespace}")
            try:
                yield
            finally:
                _set(before.fileno())

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """The switch's end of the cable is down: nothing comes, nothing goes."""
        switch, port = self._switched()
        ip("-n", switch, "link", "set", port, "down")
        try:
            yield
        finally:
            ip("-n", switch, "link", "set", port, "up")

    @contextmanager
    def unheard_by(self, other: Place) -> Iterator[None]:
        """What this host sends to `other` is lost without a word; what comes from there arrives."""
        entry = (other.address, "dev", "eth0")
        ip("-n", self.namespace, "neigh", "replace", *entry, "lladdr", NOBODY, "nud", "permanent")
        try:
            yield
        finally:
            ip("-n", self.namespace, "neigh", "del", *entry)

    @contextmanager
    def throttled(self, rate: str) -> Iterator[None]:
        """What comes to this host comes at `rate` ("64kbit", as tc says it), and is lost if it waits."""
        switch, port = self._switched()
        qdisc = ["tc", "-n", switch, "qdisc"]
        shape = ["root", "tbf", "rate", rate, "burst", "4kb", "latency", "200ms"]
        subprocess.run([*qdisc, "add", "dev", port, *shape], check=True)
        try:
            yield
        finally:
            subprocess.run([*qdisc, "del", "dev", port, "root"], check=True)

    def _switched(self) -> tuple[str, str]:
        assert self._port is not None, "two hosts on one cable have no switch"
        return self._port


class Loopback:
    """Where no namespace can be made: the machine's own network for every host."""

    address = "127.0.0.1"

    def inside(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()


@contextmanager
def network(names: Sequence[str]) -> Iterator[list[Place]]:
    """A place for each name. OSError where it cannot be made, and nothing is left then."""
    prefix = f"cachee-{os.getpid()}-{os.urandom(2).hex()}"
    with contextlib.ExitStack() as stack:
        hosts = [_namespace(stack, f"{prefix}-{name}") for name in names]
        if len(hosts) == 2:
            ip(
                "-n",
                hosts[0],
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                hosts[1],
            )
            ports = [None, None]
        else:
            ports = _switch(_namespace(stack, f"{prefix}-switch"), hosts)
        addresses = [f"10.77.0.{number}" for number in range(1, len(hosts) + 1)]
        for host, address in zip(hosts, addresses, strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host, "link", "set", device, "up")
        yield [Place(*place) for place in zip(hosts, addresses, ports, strict=True)]


def _namespace(stack: contextlib.ExitStack, name: str) -> str:
    ip("netns", "add", name)
    stack.callback(ip, "netns", "del", name)
    return name


def _switch(switch: str, hosts: Sequence[str]) -> list[tuple[str, str] | None]:
    """A bridge with a port for each host; which one."""
    ip("-n", switch, "link", "add", "switch", "type", "bridge")
    ip("-n", switch, "link", "set", "switch", "up")
    ports: list[tuple[str, str] | None] = []
    for number, host in enumerate(hosts):
        port = f"port{number}"
        ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
        ip("-n", switch, "link", "set", port, "master", "switch", "up")
        ports.append((switch, port))
    return ports


def _enter(path: str) -> None:
    with open(path, "rb") as namespace:
        _set(namespace.fileno())


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
