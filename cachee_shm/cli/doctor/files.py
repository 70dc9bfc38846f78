"""Checks of the configuration's group, and of the files that it names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from cachee_shm.cli.doctor.finding import Finding, Level, Patient
from cachee_shm.config import hash_key
from cachee_shm.errors import ConfigError

OTHERS = stat.S_IRWXO


def group(patient: Patient) -> Iterator[Finding]:
    """Checks that the group exists, that this user is in it, and that the hash key can be read."""
    if patient.config is None:
        return
    try:
        gid = patient.config.host.gid()
    except ConfigError as error:
        state = "no worker attaches, and no bridge starts"
        mend = f"groupadd --system {patient.config.host.group}"
        yield Finding("configuration", Level.PROBLEM, str(error), state, mend)
        gid = None
    if gid is not None and os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        what = (
            f"user {os.geteuid()} is not in group {patient.config.host.group}, which the segments belong to"
        )
        state = "processes of this user cannot attach"
        mend = (
            f"usermod -aG {patient.config.host.group} USER, and log in again; or run this as a worker's user"
        )
        yield Finding("configuration", Level.PROBLEM, what, state, mend)
    try:
        hash_key(patient.config, "any")
    except ConfigError as error:
        state = "no process of this user can attach"
        path = patient.config.host.hash_key_file
        mend = f"ls -l {path}; every process that attaches reads it: chgrp it to their group, chmod 640"
        yield Finding("configuration", Level.PROBLEM, str(error), state, mend)


def secrets(patient: Patient) -> Iterator[Finding]:
    """Checks that the files of secrets, tokens, keys and certificates exist, and that no other user can read
    the private ones."""
    if patient.config is None or patient.config.bridge is None:
        return
    bridge = patient.config.bridge
    named = {"bridge.secret_file": bridge.secret_file, "bridge.http_token_file": bridge.http_token_file}
    if bridge.tls is not None:
        named |= {"bridge.tls.key": bridge.tls.key}
        named |= {"bridge.tls.cert": bridge.tls.cert, "bridge.tls.ca": bridge.tls.ca}
    for key, path in named.items():
        if path is not None:
            yield from _secret(key, path, is_public=key.endswith(("cert", "ca")))


def _secret(key: str, path: str, is_public: bool) -> Iterator[Finding]:
    try:
        found = os.stat(path)
    except OSError as error:
        state = "the bridge does not start; one that runs goes on with what it has read"
        mend = f"copy the file from another host to {path} (`cachee init` makes a first one)"
        yield Finding("secrets", Level.PROBLEM, f"{key}: {path}: {error.strerror}", state, mend)
        return
    if found.st_mode & OTHERS and not is_public:
        what = (
            f"{key}: {path} may be opened by every user of this machine (mode "
            f"{stat.S_IMODE(found.st_mode):04o})"
        )
        state = "who reads it can pass for a host of this mesh; the cache works"
        yield Finding(
            "secrets", Level.PROBLEM, what, state, f"chmod o= {path}; if others had access, make a new one"
        )
