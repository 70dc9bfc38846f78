"""``cachee init``: a first configuration with its secret and its hash key, never over an existing file."""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import secrets

from cachee_shm.errors import CacheeError, ConfigError

KEY_BYTES = 32
BRIDGE_USER = "cachee"

TEMPLATE = """\
# Cachee: one identical file on every host, with the files beside it. `cachee-bridge --check` checks it.

[host]
# name = "web-1"                # default: the machine's name; unique in the mesh
{group}
hash_key_file = "hash.key"      # the same on every host; every process that attaches reads it

[defaults]                      # what a namespace gets unless it says otherwise
memory = "256MiB"               # all of it: values, index, fences, ring
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
    """Write what is missing of the three files and say so; 0 also when all of them were there."""
    path = os.path.abspath(options.path)
    folder = os.path.dirname(path)
    gid = _gid(options.group)
    text = _configuration(options.group, options.peers)
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
    return 0


def _gid(group: str | None) -> int | None:
    try:
        return None if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"--group: found {group!r}, which is no group of this machine; accepted: one that is "
            f"(groupadd --system {group} makes it); nothing was written"
        ) from None


def _bridge_uid() -> int | None:
    """The user that the bridge's systemd unit names; only root can give files to another user.

    Never the user of the group's name: that may be the workers' (www-data), who must not read the secret.
    """
    try:
        return pwd.getpwnam(BRIDGE_USER).pw_uid if os.geteuid() == 0 else None
    except KeyError:
        return None


def _key() -> str:
    return secrets.token_hex(KEY_BYTES) + "\n"


def _configuration(group: str | None, peers: list[str]) -> str:
    named = f"group = {json.dumps(group)}" if group else '# group = "cachee"'
    bridge = BRIDGE.format(peers=", ".join(map(json.dumps, peers))) if peers else NO_BRIDGE
    return TEMPLATE.format(
        group=f"{named:<32}# segments are 0660 to this group; without it 0600", bridge=bridge
    )


def _check(text: str, path: str) -> None:
    """``ConfigError`` if what was asked for (peers) makes no configuration that could be read again."""
    from cachee_shm import config

    config.loads(text.encode(), path)


def _write(path: str, text: str, mode: int, uid: int | None = None, gid: int | None = None) -> None:
    """Made complete under another name, then linked: nobody reads half of it, no existing file is touched."""
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
