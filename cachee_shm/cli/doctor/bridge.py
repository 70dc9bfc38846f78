"""Checks of this host's bridge: it runs and answers, its address is its own and reachable, and its release is
the workers'."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import psutil

from cachee_shm import __version__
from cachee_shm.cli.addresses import is_own
from cachee_shm.cli.doctor.finding import Finding, Level, Patient
from cachee_shm.cli.processes import COMMAND_MAX
from cachee_shm.cli.terminal import shown
from cachee_shm.config import split_address
from cachee_shm.errors import AccessDenied

CONNECT_S = 2.0
ISOLATED = (
    "the host is isolated: readers follow on_isolation, and no other host hears of its writes until it runs"
)


def bridge(patient: Patient) -> Iterator[Finding]:
    """Checks that a bridge runs for this host, and that it answers."""
    _, error = patient.answer
    if error is None:
        return
    if isinstance(error, AccessDenied):
        mend = "run cachee doctor as root, or as a member of the [host] group"
        yield Finding("bridge", Level.UNKNOWN, str(error), "nothing is known of bridge and peers", mend)
    elif "does not answer" in str(error):
        mend = "systemctl restart cachee-bridge (its log first: journalctl -u cachee-bridge -n 50)"
        yield Finding("bridge", Level.PROBLEM, str(error), ISOLATED, mend)
    else:
        yield from _none(patient)


def _none(patient: Patient) -> Iterator[Finding]:
    who = _who_listens(patient)
    if who:
        address = _listen(patient)
        what = (
            f"no bridge runs for host {patient.host}, and another process listens on its address "
            f"{address}: {who}"
        )
        mend = (
            "stop that one; or, if it is another host's bridge on this machine, give each an address of "
            "its own "
            "(bridge.listen); then: systemctl restart cachee-bridge"
        )
        yield Finding("bridge", Level.PROBLEM, what, f"a bridge cannot start here; {ISOLATED}", mend)
        return
    mend = f"systemctl enable --now cachee-bridge, or: cachee-bridge --config {patient.path}"
    yield Finding("bridge", Level.PROBLEM, f"no bridge runs for host {patient.host}", ISOLATED, mend)


def _listen(patient: Patient) -> str:
    assert patient.config is not None and patient.config.bridge is not None
    return patient.config.bridge.listen


def _who_listens(patient: Patient) -> str:
    """The process that listens at the bridge's address; "" if there is none."""
    host, port = split_address(_listen(patient))
    if _can_bind(host, port):
        return ""
    try:
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pids = [each.pid for each in listening if each.laddr and each.laddr.port == port and each.pid]
        return ", ".join(
            f"{pid} ({shown(' '.join(psutil.Process(pid).cmdline()))[:COMMAND_MAX]})" for pid in pids
        )
    except psutil.Error:
        return "another user's: as root, `ss -ltnp` names it"


def _can_bind(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


# Its address


def own_address(patient: Patient) -> Iterator[Finding]:
    """Checks that this host's bridge answers at the address that peers dial."""
    if patient.config is None or patient.config.bridge is None or patient.told is None:
        return
    port = split_address(patient.config.bridge.listen)[1]
    for address in patient.config.bridge.peers:
        host, its_port = split_address(address)
        if its_port != port:
            continue
        for ip in _local(host, port):
            why = _refused(ip, port)
            if why:
                what = f"own address {address} ({ip}) cannot be reached on this machine: {why}"
                state = (
                    "peers that dial it do not find this host; they are linked only if this host reaches them"
                )
                mend = (
                    f"the bridge listens on {patient.config.bridge.listen!r}: let it listen on "
                    f'":{port}", or let '
                    f"{host} lead to the address that it has (/etc/hosts, DNS, firewall)"
                )
                yield Finding("own address", Level.PROBLEM, what, state, mend)


def _local(host: str, port: int) -> list[str]:
    """The IP addresses of `host` that belong to this machine."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []  # the check of peers says so
    return [str(address[0]) for family, _, _, _, address in found if is_own(family, str(address[0]))]


def _refused(ip: str, port: int) -> str:
    try:
        socket.create_connection((ip, port), CONNECT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


# Releases


def releases(patient: Patient) -> Iterator[Finding]:
    """Checks that bridge and workers have one release, and that peers speak a wire protocol with
    questions."""
    if patient.told is None:
        return
    of_bridge = patient.told.get("bridge", {})
    version = of_bridge.get("version", "an older one")
    if version != __version__:
        what = f"the bridge is of release {version}, and what is installed here is {__version__}"
        state = "an upgrade is not finished; with one segment layout they work together"
        yield Finding(
            "releases",
            Level.PROBLEM,
            what,
            state,
            "systemctl restart cachee-bridge, then restart the workers",
        )
    for peer in patient.told["peers"]:
        wire, newest = peer.get("wire", 0), of_bridge.get("wire", 0)
        if 0 < wire < newest:
            what = f"{peer['name']} speaks wire {wire}, this host {newest}: it has an older release"
            state = "they are coherent; `cachee explain` and the checker cannot ask it"
            yield Finding("releases", Level.NOTE, what, state, f"upgrade {peer['name']}")
