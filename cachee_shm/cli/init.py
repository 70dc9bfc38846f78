"""``cachee init``: writes a first configuration, a secret and a hash key; never over an existing file.

It asks no questions. It finds out itself whether the group `cachee` exists, how much memory /dev/shm has room
for, and whether this machine is among the named peers.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import secrets
import shutil
import socket

from cachee_shm.cli.addresses import is_own
from cachee_shm.config import MEMORY_BYTES_MIN, loads, split_address
from cachee_shm.errors import CacheeError, ConfigError
from cachee_shm.segment import SHARED_MEMORY

KEY_BYTES = 32
MEMORY_BYTES = 256 << 20
BRIDGE_USER = "cachee"

TEMPLATE = """\
# Cachee: one identical file on every host, with the files beside it. `cachee-bridge --check` checks it.

[host]
# name = "web-1"                # default: the machine's name; unique in the mesh
{group}
hash_key_file = "hash.key"      # the same on every host; every process that attaches reads it

[defaults]                      # what a namespace gets unless it says otherwise
{memory}# all of it: values, index, fences, ring
default_ttl = "5min"            # "never" keeps an entry until it is evicted
isolation_ttl = "10s"           # an entry's longest life while this host is cut off

# [namespaces.shop]
# memory = "1GiB"

{bridge}"""

BRIDGE = """\
[bridge]                        # one cachee-bridge a host: without one running, lifetimes are capped
listen = ":7946"
peers = [{peers}]
secret_file = "secret"          # the same on every host; the bridge alone reads it
"""

NO_BRIDGE = """\
# Several hosts: run cachee-bridge on each, and take the comments away.
# [bridge]
# listen = ":7946"
# peers = ["web-1:7946", "web-2:7946"]
# secret_file = "secret"        # the same on every host; the bridge alone reads it
"""


def init(options: argparse.Namespace) -> int:
    """Write those of the three files that are missing, and print which; 0 also if all were there."""
    path = os.path.abspath(options.path)
    folder = os.path.dirname(path)
    group = options.group or _found_group()
    gid = _gid(group)
    text = _configuration(group, options.peers, _memory_bytes())
    _check(text, path)
    try:
        os.makedirs(folder, exist_ok=True)
        _write(os.path.join(folder, "secret"), _key(), 0o600, uid=_bridge_uid())
        _write(os.path.join(folder, "hash.key"), _key(), 0o600 if gid is None else 0o640, gid=gid)
        _write(path, text, 0o644)
    except OSError as error:
        raise CacheeError(
            f"{error.filename}: cannot be written: {error.strerror}; nothing was overwritten"
        ) from None
    print("Copy all three to the other hosts as they are, with their owners and modes.")
    if gid is None:
        print(f"Without --group, only user {os.geteuid()} can attach: nobody else reads the hash key.")
    elif options.group is None:
        print(f"Members of group {group}, which this machine has, can attach (--group names another).")
    if options.peers and not any(map(_is_here, options.peers)):
        print(f"None of the peers is this machine ({socket.gethostname()}): is its own address missing?")
    if options.peers:
        print(f"Then, on each host: cachee-bridge --config {path}   and: cachee doctor")
    return 0


def _found_group() -> str | None:
    """The group `cachee`, if this machine has it. No other group is guessed."""
    try:
        return grp.getgrnam(BRIDGE_USER).gr_name
    except KeyError:
        return None


def _memory_bytes() -> int:
    """Memory of a namespace: MEMORY_BYTES, or less if half of /dev/shm is less (64 MiB in a container)."""
    half = shutil.disk_usage(SHARED_MEMORY).total // 2
    return max(MEMORY_BYTES_MIN, min(MEMORY_BYTES, 1 << half.bit_length() - 1))


def _is_here(peer: str) -> bool:
    """Whether the address leads to this machine. True also if the name cannot be resolved now."""
    try:
        found = socket.getaddrinfo(split_address(peer)[0], None, type=socket.SOCK_DGRAM)
    except OSError:
        return True
    return any(is_own(family, str(address[0])) for family, _, _, _, address in found)


def _gid(group: str | None) -> int | None:
    try:
        return None if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"--group: found {group!r}, which is no group of this machine; accepted: one that is "
            f"(groupadd --system {group} makes it); nothing was written"
        ) from None


def _bridge_uid() -> int | None:
    """The user that the bridge's systemd unit names. None if this is not root, which alone can give files
    away.

    Not the user with the group's name: that may be the workers' (www-data), who must not read the secret.
    """
    try:
        return pwd.getpwnam(BRIDGE_USER).pw_uid if os.geteuid() == 0 else None
    except KeyError:
        return None


def _key() -> str:
    return secrets.token_hex(KEY_BYTES) + "\n"


def _configuration(group: str | None, peers: list[str], memory_bytes: int) -> str:
    named = f"group = {json.dumps(group)}" if group else '# group = "cachee"'
    bridge = BRIDGE.format(peers=", ".join(map(json.dumps, peers))) if peers else NO_BRIDGE
    memory = f'memory = "{memory_bytes >> 20}MiB"'
    return TEMPLATE.format(
        group=f"{named:<32}# segments are 0660 to this group; without it 0600",
        memory=f"{memory:<32}",
        bridge=bridge,
    )


def _check(text: str, path: str) -> None:
    """``ConfigError`` if the configuration with these options (peers) would not be accepted."""
    loads(text.encode(), path)


def _write(path: str, text: str, mode: int, uid: int | None = None, gid: int | None = None) -> None:
    """Write the file under another name, then link it: no process reads half of it, and an existing file is
    kept."""
    draft = f"{path}.{os.getpid()}.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "w") as file:
            file.write(text)
            os.fchown(file.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
            os.fchmod(file.fileno(), mode)
        os.link(draft, path)
        print(f"wrote {path} ({mode:04o})")
    except FileExistsError:
        print(f"kept  {path}, which was there")
    finally:
        os.unlink(draft)
