"""What the operator asks on the socket, answered: `cachee peers` and `cachee peers forget NAME`.

A request is a dict with "do". An answer is a dict; "error" in it says why nothing was done.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cachee_bridge.daemon.snapshot import snapshot
from cachee_bridge.system.clock import clock
from cachee_shm.errors import NotForgotten

if TYPE_CHECKING:
    from cachee_bridge.shell.shell import Shell
    from cachee_bridge.system.logs import Mistakes

log = logging.getLogger("cachee_bridge")


class Requests:
    def __init__(self, host: str, shell: Shell, mistakes: Mistakes) -> None:
        self._host, self._shell, self._mistakes = host, shell, mistakes

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Never raises: the bridge goes on, whatever was asked."""
        try:
            return self._answered(request)
        except Exception as error:
            self._mistakes.tell("an answer to the operator", error)
            return {"error": f"a mistake in the bridge: {error!r}; see its log"}

    def _answered(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("do") == "peers":
            return snapshot(self._host, self._shell.mesh, clock())
        if request.get("do") == "forget" and isinstance(request.get("who"), str):
            return self._forget(request["who"])
        return {"error": "this bridge knows peers and forget; nothing was changed"}

    def _forget(self, who: str) -> dict[str, Any]:
        log.info("the operator forgets %r", who)
        try:
            return {"done": self._shell.mesh.forget(who, clock())}
        except NotForgotten as error:
            return {"error": str(error)}
        finally:
            self._shell.inputs.perform()
