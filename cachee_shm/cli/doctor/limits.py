"""Checks of limits: when certificates expire, and how much memory the container may use."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timezone

from cachee_shm.cli.doctor.finding import Finding, Level, Patient
from cachee_shm.cli.terminal import ago, size

SOON_DAYS = 14
DAY_S = 86_400
END = "-----END CERTIFICATE-----"
SEQUENCE, EXPLICIT_0, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
"""Tags of DER."""
CGROUPS = (
    ("/sys/fs/cgroup", "", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"),
)
"""Version 2, then version 1: where it is mounted, its controller's name in /proc/self/cgroup, its file."""


# Certificates


def certificates(patient: Patient) -> Iterator[Finding]:
    """Checks that no certificate has expired, and that none will within two weeks."""
    tls = patient.config.bridge.tls if patient.config is not None and patient.config.bridge else None
    for key, path in () if tls is None else (("bridge.tls.cert", tls.cert), ("bridge.tls.ca", tls.ca)):
        try:
            with open(path, encoding="latin-1") as file:
                ends = [not_after(pem + END) for pem in file.read().split(END)[:-1]]
        except OSError:
            continue  # the check of secrets says so
        except ValueError as error:
            what = f"{key}: {path}: {error}"
            state = "it is not known until when it is good"
            yield Finding("certificates", Level.UNKNOWN, what, state, f"openssl x509 -in {path} -dates")
            continue
        yield from _ending(key, path, min(ends, default=float("inf")) - time.time())


def _ending(key: str, path: str, left_s: float) -> Iterator[Finding]:
    if left_s > SOON_DAYS * DAY_S:
        return
    mend = f"have a new one issued and written to {path}; the bridge reads it when the file changes"
    if left_s <= 0:
        what = f"{key}: {path} expired {ago(-left_s)} ago"
        state = "no link to a peer comes up any more, and every host is isolated from this one"
    else:
        what = f"{key}: {path} expires in {ago(left_s)}"
        state = "it works until then; after that, no link comes up, and hosts are isolated from this one"
    yield Finding("certificates", Level.PROBLEM, what, state, mend)


def not_after(pem: str) -> float:
    """When a certificate expires, in seconds of the wall clock. ``ValueError`` if it cannot be read."""
    try:
        begin = pem.index("-----BEGIN CERTIFICATE-----")
        _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(pem[begin:]))
        _, fields, _ = _element(certificate)
        tag, _, rest = _element(fields)
        if tag == EXPLICIT_0:  # the version; then serial number, algorithm, issuer, validity
            _, _, rest = _element(rest)
        for _ in ("algorithm", "issuer"):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, rest = _element(validity)
        tag, end, _ = _element(rest)
        pattern = {UTC_TIME: "%y%m%d%H%M%SZ", GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}[tag]
        return datetime.strptime(end.decode("ascii"), pattern).replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"it has no certificate that can be read ({error})") from None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its content, and what follows. ``ValueError`` if it is cut short."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise ValueError("it is cut short")
    return tag, data[at : at + length], data[at + length :]


# Memory of a container


def container(patient: Patient) -> Iterator[Finding]:
    """Checks that the segments fit the control group's limit. They count: the group of the process that first
    writes a page is charged for it."""
    limit = memory_limit()
    needed = _memory(patient)
    if limit is None or needed <= limit:
        return
    what = (
        f"this command's control group may use {size(limit)}, and the namespaces of the configuration have "
        f"{size(needed)}"
    )
    state = "the kernel kills a process of the group before the segments are full, a worker or the bridge"
    mend = (
        f"give the container more than {size(needed)} (Docker: --memory; Kubernetes: "
        "resources.limits.memory; systemd: MemoryMax=), or the namespaces less `memory`"
    )
    yield Finding("container", Level.PROBLEM, what, state, mend)


def _memory(patient: Patient) -> int:
    names = patient.config.namespaces if patient.config is not None else ()
    tables = [patient.settings(name) for name in {*names, *patient.namespaces}]
    return sum(table.memory for table in tables if table is not None)


def memory_limit() -> int | None:
    """The smallest limit of this process's control group and of those above it; None: there is none."""
    found: list[int] = []
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    groups = {each: path for controllers, path in lines for each in controllers.split(",")}
    for mount, controller, name in CGROUPS:
        folder = os.path.normpath(mount + "/" + groups.get(controller, "/"))
        while folder.startswith(mount):
            found += _limit(os.path.join(folder, name))
            folder = os.path.dirname(folder)
    return min(found, default=None)


def _limit(path: str) -> list[int]:
    """The limit in this file; None: there is none. Version 1 writes "no limit" as a number larger than any
    memory."""
    try:
        with open(path, encoding="ascii") as file:
            said = file.read().strip()
    except OSError:
        return []
    return [int(said)] if said.isdigit() and int(said) < 1 << 60 else []
