"""`explain` on the operator socket: two real bridges, each asked about a key that both know."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import cachee_shm
from cachee_bridge.daemon.explaining import Explaining
from cachee_shm.segment import bridge_socket
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.shells import Side, run
from tests.bridge.shells import until as shells_until


def ask(host: Host, **request: Any) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(bridge_socket(host.name))
        sock.sendall(json.dumps(request).encode() + b"\n")
        told: dict[str, Any] = json.loads(b"".join(iter(lambda: sock.recv(1 << 16), b"")))
        return told


def rows_of(asked: Host, host: Host, kind: str) -> list[dict[str, Any]]:
    """Of the key "k", as `asked` is told of them."""
    with cachee_shm.attach("shop", config=str(asked.config)) as cache:
        told = ask(asked, do="explain", namespace="shop", hash=cache._hash("k"))
    return [row for row in told["hosts"][host.name] if row["kind"] == kind]


def test_the_operator_is_told_what_every_host_holds(tmp_path: Path) -> None:
    with hosts(tmp_path) as (a, b):
        caches = [host.start().attach() for host in (a, b)]
        until(lambda: len(ask(a, do="explain", namespace="shop", hash=1).get("holds", {})) == 2)
        hashed = caches[0]._hash("k")
        for cache in caches:
            cache.arm(hashed, 60.0)
        caches[1].set("k", "at b")
        told = ask(a, do="explain", namespace="shop", hash=hashed)
        assert told["holds"][a.name]["held"] == "absent"
        there = told["holds"][b.name]
        assert (there["held"], there["position"], there["filled"]) == ("shared", caches[1].tail, False)
        assert there["cursor"] <= caches[0].tail
        assert there["age_s"] < 60
        until(lambda: rows_of(a, b, "written"), "a row of the journal of b")
        (written,) = rows_of(a, b, "written")
        assert abs(written["at"] - time.time()) < 60
        assert written["sequence"] == there["position"]
        assert written["pid"] == os.getpid()
        until(lambda: rows_of(a, a, "received"), "a row of the journal of a")
        assert told["clocks"][a.name] == 0.0 < told["clocks"][b.name] < 1.0


def test_an_invalid_namespace_or_hash_is_an_error_that_says_so() -> None:
    async def test(left: Side, right: Side) -> None:
        explaining = Explaining("left", left.shell)
        for namespace, hashed in (("none", 1), ("shop", 0), ("shop", 1 << 64), ("\x1b[2J", 1)):
            told = await explaining.explain(namespace, hashed)
            assert "this host serves no namespace" in told["error"]
            assert "\x1b" not in told["error"]

    run(test)


def test_a_peer_that_says_nothing_is_named_with_the_reason() -> None:
    async def test(left: Side, right: Side) -> None:
        right.shell.mesh.questions.on_question = lambda *arguments: None  # type: ignore[method-assign]
        told = await asyncio.wait_for(Explaining("left", left.shell).explain("shop", 7), 20)
        assert told["holds"]["right"]["error"].startswith("no answer within")
        assert told["clocks"] == {"left": 0.0}

    run(test)


def test_a_host_that_is_not_linked_is_named_and_not_left_out() -> None:
    async def test(left: Side, right: Side) -> None:
        right.shell.stop()
        await shells_until(lambda: left.up() == [])
        explaining = Explaining("left", left.shell)
        told = await explaining.explain("shop", 7)
        for part in ("hosts", "holds"):
            assert told[part]["right"]["error"].startswith("it is not linked (")
        armed = await explaining.arm("shop", 7, 1.0)
        assert armed["armed"] == ["left"] and armed["unheard"]["right"].startswith("it is not linked (")

    run(test)
