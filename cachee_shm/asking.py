"""A host's bridge is asked, over the socket beside its segments: one line of JSON, one line back."""

from __future__ import annotations

import json
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from typing import Any

from cachee_shm.errors import AccessDenied, BridgeError
from cachee_shm.segment import bridge_socket

__all__ = ["PATIENCE_S", "ask_bridge", "check_owner"]

PATIENCE_S = 5.0


def ask_bridge(
    host: str, gid: int | None, request: Mapping[str, Any], patience_s: float | None = None
) -> dict[str, Any]:
    """The answer; "error" in it says why nothing was done. ``gid``: the configured group's.

    ``BridgeError`` when none runs or it does not answer, ``AccessDenied`` when this user may not ask it, or
    it is a stranger's.
    """
    path = bridge_socket(host)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S if patience_s is None else patience_s)
        try:
            sock.connect(path)
            check_owner(sock, path, gid)
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        except (FileNotFoundError, ConnectionRefusedError):
            raise BridgeError(
                f"no bridge runs for host {host!r} (nobody listens at {path}); nothing was changed; start "
                "one: without, the host is isolated"
            ) from None
        except PermissionError:
            raise AccessDenied(
                f"{path} may not be opened by user {os.getuid()}; nothing was changed; ask as "
                "root, as the bridge's user, or as a member of the configured group"
            ) from None
        except OSError as error:
            raise _no_answer(host, str(error)) from None
    if not answer.endswith(b"\n"):
        raise _no_answer(host, "it closed the socket")
    told: dict[str, Any] = json.loads(answer)
    return told


def check_owner(sock: Any, path: str, gid: int | None) -> None:
    """``AccessDenied`` when a stranger listens there: anybody on the machine can make a file of that name.

    The kernel says who listens; a process of the configured group has it as its own or among its user's.
    """
    _, uid, listener_gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid in (0, os.geteuid()) or (gid is not None and gid in (listener_gid, *_groups_of(uid))):
        return
    raise AccessDenied(
        f"{path} is served by user {uid}, not by root, this user or the configured group. "
        f"Nothing was asked of it. Find out who it is, and remove the file by `rm {path}` as root."
    )


def _groups_of(uid: int) -> list[int]:
    try:
        user = pwd.getpwuid(uid)
        return os.getgrouplist(user.pw_name, user.pw_gid)
    except (KeyError, OSError):
        return []


def _no_answer(host: str, why: str) -> BridgeError:
    return BridgeError(
        f"the bridge of host {host!r} does not answer: {why}; it may hang, or be stopped; see its log"
    )
