"""A cachee-bridge that dials some addresses elsewhere: routed_bridge.py ROUTES --config FILE.

ROUTES is JSON: {"host:port": port on loopback, ...}. What hosts tell each other of addresses stays true.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cachee_bridge import __main__ as command
from cachee_bridge.carriers import transport


def main() -> int:
    routes: dict[str, int] = json.loads(sys.argv.pop(1))

    def connect(self: Any, address: str, host: str, port: int, call: Any = transport.Network.connect) -> None:
        call(self, address, host, routes.get(address, port))

    transport.Network.connect = connect  # type: ignore[method-assign]
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
