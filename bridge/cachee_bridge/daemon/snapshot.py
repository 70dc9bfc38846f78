"""The bridge's snapshot: its peers and namespaces as plain values, for `cachee peers` and other clients.

All times are seconds before now; None is never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachee_bridge.ports.views import NamespaceView, Refusal
    from cachee_bridge.protocol.mesh import Mesh, PeerView, StreamView


def snapshot(host: str, mesh: Mesh, now: float) -> dict[str, Any]:
    """Everything, ready for JSON."""
    namespaces = mesh.views.namespaces(now)
    unmet = mesh.views.unmet()
    return {
        "host": host,
        "ready": not unmet,
        "unmet": unmet,
        "discovery": _discovery(mesh, now),
        "namespaces": [_namespace(view, now) for view in namespaces],
        "peers": [_peer(view, namespaces, now) for view in mesh.views.peers()],
    }


def refused(refusals: Iterable[Refusal], now: float) -> list[dict[str, Any]]:
    """Peers and clients whose links were closed because of an error of theirs."""
    return [
        {"who": each.who, "reason": each.reason, "times": each.times, "ago_s": _ago(each.at, now)}
        for each in refusals
    ]


def _ago(when: float, now: float) -> float | None:
    return round(now - when, 3) if math.isfinite(now - when) else None


def _discovery(mesh: Mesh, now: float) -> dict[str, Any] | None:
    view = mesh.views.discovery()
    if view is None:
        return None
    return {
        "what": view.what,
        "named": view.named,
        "answered_ago_s": _ago(view.answered_at, now),
        "failure": view.failure,
    }


def _namespace(view: NamespaceView, now: float) -> dict[str, Any]:
    isolated = now > view.until
    return {
        "namespace": view.namespace,
        "isolated": isolated,
        "isolated_for_s": _ago(view.until, now) if isolated else None,
        "policy": view.policy,
        "silent": view.silent,
        "why": [{"reason": why.reason.value, "who": why.who, "end": why.end} for why in view.why],
        "removing": view.removing,
        "removed_in_s": _ago(now, view.removed_at),
    }


def _peer(view: PeerView, namespaces: list[NamespaceView], now: float) -> dict[str, Any]:
    return {
        "name": view.name,
        "address": view.address,
        "region": view.region,
        "state": view.state,
        "for_s": _ago(view.since, now),
        "heard_ago_s": _ago(view.heard_at, now),
        "inbound": view.inbound,
        "through": view.through,
        "failure": view.failure,
        "wire": view.wire,
        "isolates": sorted(each.namespace for each in namespaces if view.name in each.silent),
        "removed_from": sorted(each.namespace for each in namespaces if view.name in each.removing),
        "namespaces": {name: _stream(stream, now) for name, stream in sorted(view.namespaces.items())},
    }


def _stream(stream: StreamView, now: float) -> dict[str, Any]:
    return {
        "incarnation": stream.incarnation,
        "cursor": stream.cursor,
        "head": stream.head,
        "behind": stream.head - stream.cursor,
        "acked": stream.acked,
        "lag": stream.lag,
        "lapped": stream.lapped,
        "repairs": asdict(stream.repairs),
        "fresh_ago_s": _ago(stream.fresh_at, now),
    }
