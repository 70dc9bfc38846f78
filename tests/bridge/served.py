"""The bridge's HTTP server with a table of the test's own, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

from cachee_bridge.http.routes import Routes
from cachee_bridge.http.server import Server
from cachee_bridge.system.logs import Mistakes


@contextlib.contextmanager
def served(routes: Routes) -> Iterator[str]:
    """The URL of "/", for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    server = Server(loop, routes, lambda name: True, Mistakes())

    def run() -> None:
        asyncio.set_event_loop(loop)
        server.listen([sock])
        loop.run_forever()
        server.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
