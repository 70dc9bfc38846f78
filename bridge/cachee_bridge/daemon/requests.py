"""What the operator asks on the socket, answered: `cachee peers`, `... forget NAME`, `cachee explain` and
its `--watch`.

A request is a dict with "do". An answer is a dict; "error" in it says why nothing was done. An answer that
needs the peers comes later: then an awaitable is returned.
"""

from __future__ import annotations

import logging
import math
import os
from base64 import b64decode, b64encode
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from cachee_bridge.daemon.explaining import Explaining
from cachee_bridge.daemon.snapshot import refused, snapshot
from cachee_bridge.system.clock import clock
from cachee_bridge.wire.frames import VERSION
from cachee_bridge.wire.messages import KEY_BYTES_MAX
from cachee_shm import __version__
from cachee_shm.errors import NotForgotten

if TYPE_CHECKING:
    from cachee_bridge.shell.shell import Shell
    from cachee_bridge.system.logs import Mistakes

PATIENCE_MS_MAX = 4000
"""Less than the socket's (operator_socket.py)."""

log = logging.getLogger("cachee_bridge")


class Requests:
    def __init__(self, host: str, shell: Shell, mistakes: Mistakes, no_doorbell: str = "") -> None:
        """`no_doorbell`: why this bridge has none."""
        self._host, self._shell, self._mistakes = host, shell, mistakes
        self._explaining = Explaining(host, shell)
        self._bridge = {
            "version": __version__,
            "pid": os.getpid(),
            "wire": VERSION,
            "no_doorbell": no_doorbell,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """Never raises, nor does what it returns: the bridge goes on, whatever was asked."""
        try:
            answer = self._answered(request)
        except Exception as error:
            return self._mistaken(error)
        return answer if isinstance(answer, dict) else self._later(answer)

    async def _later(self, answer: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await answer
        except Exception as error:
            return self._mistaken(error)

    def _mistaken(self, error: Exception) -> dict[str, Any]:
        self._mistakes.tell("an answer to the operator", error)
        return {"error": f"a mistake in the bridge: {error!r}; see its log"}

    def _answered(self, request: dict[str, Any]) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        if request.get("do") == "peers":
            now = clock()
            told = snapshot(self._host, self._shell.mesh, now)
            return {**told, "bridge": self._bridge, "refused": refused(self._shell.refusals(), now)}
        if request.get("do") == "forget" and isinstance(request.get("who"), str):
            return self._forget(request["who"])
        if request.get("do") == "checker":
            return self._shell.checking.checker.view(clock())
        namespace, hashed = request.get("namespace"), request.get("hash")
        if request.get("do") == "explain" and isinstance(namespace, str) and isinstance(hashed, int):
            return self._explaining.explain(namespace, hashed)
        seconds = request.get("seconds")
        if request.get("do") == "arm" and isinstance(namespace, str) and isinstance(hashed, int):
            if isinstance(seconds, (int, float)) and 0 <= seconds < math.inf:
                return self._explaining.arm(namespace, hashed, seconds)
            return {"error": "seconds: a number from 0 up; nothing was changed"}
        if request.get("do") == "fetch" and isinstance(namespace, str):
            return self._fetch(namespace, request.get("key"), request.get("patience_ms"))
        return {
            "error": "this bridge knows peers, forget, explain, arm, checker and fetch; nothing was changed"
        }

    async def _fetch(self, namespace: str, key: Any, patience_ms: Any) -> dict[str, Any]:
        """For a worker that is about to load. An empty answer: it loads."""
        if not isinstance(key, str) or not isinstance(patience_ms, int):
            return {"error": "fetch: a key in base64 and patience_ms are missing; nothing was done"}
        try:
            text = b64decode(key, validate=True)
        except ValueError:
            return {"error": "fetch: the key is no base64; nothing was done"}
        if len(text) > KEY_BYTES_MAX:
            return {"error": f"fetch: the key has more than {KEY_BYTES_MAX} bytes; nothing was done"}
        fetched = await self._shell.fetching.fetch(namespace, text, min(patience_ms, PATIENCE_MS_MAX) / 1000)
        if fetched is None:
            return {}
        return {
            "type": fetched.type,
            "age_ms": fetched.age_ms,
            "left_ms": fetched.left_ms,
            "tags": fetched.tags,
            "value": b64encode(fetched.value).decode(),
        }

    def _forget(self, who: str) -> dict[str, Any]:
        log.info("the operator forgets %r", who)
        try:
            return {"done": self._shell.mesh.forget(who, clock())}
        except NotForgotten as error:
            return {"error": str(error)}
        finally:
            self._shell.inputs.perform()
