"""``cachee peers`` and ``cachee peers forget``: this host's bridge is asked, over the socket beside its
segments.

Where none answers nothing can be forgotten; what the segments know is shown all the same.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import pwd
import socket
import struct
import sys
from typing import Any

from cachee_shm import config
from cachee_shm.cache import Cache
from cachee_shm.errors import AccessDenied, BridgeError, NotForgotten
from cachee_shm.segment import bridge_socket, segment_path, spec_of

PATIENCE_S = 5.0
COLUMNS = ("PEER", "WHERE", "STATE", "FOR", "NAMESPACE", "LAG", "BEHIND", "FRESH", "")


def peers(options: argparse.Namespace) -> int:
    """Print who is known, where, and how far apart; 1 where no bridge answers."""
    host_config = config.load(options.config)
    try:
        told = _ask(host_config, {"do": "peers"})
    except BridgeError as error:
        print(f"cachee: {error}", file=sys.stderr)
        _print_segments(host_config)
        return 1
    if options.json:
        print(json.dumps(told))
    else:
        _print(told)
    return 0


def forget(options: argparse.Namespace) -> int:
    """Tell the bridge; ``BridgeError`` when it does not answer, ``NotForgotten`` when it changed nothing."""
    told = _ask(config.load(options.config), {"do": "forget", "who": options.who})
    if "error" in told:
        raise NotForgotten(told["error"])
    print(told["done"])
    return 0


# The bridge


def _ask(host_config: config.Config, request: dict[str, str]) -> dict[str, Any]:
    host, gid = host_config.host.name, host_config.host.gid()
    path = bridge_socket(host)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            _check_owner(sock, path, gid)
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        except (FileNotFoundError, ConnectionRefusedError):
            raise BridgeError(
                f"no bridge runs for host {host!r} (nobody listens at {path}); nothing was changed; start "
                "one: without, the host is isolated"
            ) from None
        except PermissionError:
            raise AccessDenied(
                f"{path} may not be opened by user {os.getuid()}; nothing was changed"
            ) from None
        except OSError as error:
            raise _no_answer(host, str(error)) from None
    if not answer.endswith(b"\n"):
        raise _no_answer(host, "it closed the socket")
    told: dict[str, Any] = json.loads(answer)
    return told


def _check_owner(sock: socket.socket, path: str, gid: int | None) -> None:
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


# For people


def _print(told: dict[str, Any]) -> None:
    namespaces = [line for row in told["namespaces"] for line in (_namespace_line(row), *_why_lines(row))]
    for line in (_discovery_line(told), *namespaces, _unmet_line(told)):
        if line:
            print(line)
    rows = [COLUMNS, *(row for peer in told["peers"] for row in _rows(peer))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _discovery_line(told: dict[str, Any]) -> str:
    asked = told["discovery"]
    if asked is None:
        return ""
    answered = _time(asked["answered_ago_s"])
    last = f"{asked['named']} addresses, {answered} ago" if answered else "no answer yet"
    return f"{asked['what']}: {last}" + (f"; since then: {asked['failure']}" if asked["failure"] else "")


def _namespace_line(row: dict[str, Any]) -> str:
    if not row["isolated"]:
        return f"namespace {row['namespace']}: not isolated"
    since = _time(row["isolated_for_s"])
    line = f"namespace {row['namespace']}: isolated {f'for {since}' if since else 'since the start'}"
    line += f", policy {row['policy']}"
    if row["silent"]:
        line += f"; nothing fresh from {', '.join(row['silent'])}"
    if row["removed_in_s"] is not None:
        line += f"; forgetting {', '.join(row['removing'])} in {_time(row['removed_in_s'])}"
    return line


def _why_lines(row: dict[str, Any]) -> list[str]:
    """What holds it isolated, and what would end that."""
    return [f"  waits for {why['who'] or 'itself'} ({why['reason']}): {why['end']}" for why in row["why"]]


def _unmet_line(told: dict[str, Any]) -> str:
    return "" if told["ready"] else f"not ready: not met yet: {', '.join(told['unmet'])}"


def _rows(peer: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for each namespace that is shared; the first says who it is."""
    state = f"relayed by {peer['through']}" if peer["through"] else peer["state"]
    who = (peer["name"] or "?", peer["address"] or "(it dials us)", state, _time(peer["for_s"]))
    streams = [
        (name, str(stream["lag"]), str(stream["behind"]), _time(stream["fresh_ago_s"]), _remark(peer, name))
        for name, stream in peer["namespaces"].items()
    ]
    first, *more = streams or [("", "", "", "", "")]
    return [(*who, *first), *(("", "", "", "", *stream) for stream in more)]


def _remark(peer: dict[str, Any], namespace: str) -> str:
    if namespace in peer["removed_from"]:
        return "is being forgotten"
    return "isolates this host" if namespace in peer["isolates"] else ""


def _time(seconds: float | None) -> str:
    """ "" is never."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


# Without a bridge


def _print_segments(host_config: config.Config) -> None:
    """Never the creator of one: a look by root must not leave a segment that only root may open."""
    before, after = segment_path(host_config.host.name, "\0").split("\0")
    for path in sorted(glob.glob(f"/dev/shm{glob.escape(before)}*{glob.escape(after)}")):
        namespace = path.removeprefix(f"/dev/shm{before}").removesuffix(after)
        if host_config.defaults is None and namespace not in host_config.namespaces:
            continue
        with Cache(spec_of(host_config, namespace)) as cache:
            until, now = cache.serve_until, cache.now_ms()
            names = ", ".join(name for _, name, _, _ in cache.sources()) or "nobody"
        print(f"namespace {namespace}: {_served(until, now)}; it has met {names}")


def _served(until_ms: int, now_ms: int) -> str:
    if not until_ms:
        return "isolated, as no bridge has ever told it otherwise"
    if until_ms < now_ms:
        return (
            f"isolated for {_time((now_ms - until_ms) / 1000)}, until a bridge runs and has heard every peer"
        )
    return f"not isolated for another {_time((until_ms - now_ms) / 1000)}"
