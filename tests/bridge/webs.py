"""HTTP servers of the bridge in this process, and clients that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from cachee_bridge.carriers.accepting import bound
from cachee_bridge.http.hosts import any_name
from cachee_bridge.http.messages import Request, Response
from cachee_bridge.http.routes import Routes
from cachee_bridge.http.server import Server
from cachee_bridge.system.logs import Mistakes

WAIT_S = 20.0
GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Web:
    """One server with some routes, and what it told of mistakes."""

    def __init__(
        self, is_own_name: Callable[[str], bool] = any_name, tls: ssl.SSLContext | None = None
    ) -> None:
        self.routes = Routes()
        self.routes.add("GET", "/hello", lambda request: Response(200, b"hello\n"))
        self.routes.add("POST", "/echo", self.echo)
        self.asked: list[Request] = []
        self.mistakes = Mistakes()
        self.server = Server(asyncio.get_running_loop(), self.routes, is_own_name, self.mistakes)
        self.server.listen(bound(["127.0.0.1"], 0), tls)

    @property
    def port(self) -> int:
        return self.server.ports[0]

    def echo(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(200, request.body)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes) -> bytes:
        """All that comes back until the server ends the connection."""
        reader, writer = await self.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        return await all_of(reader, writer)

    async def get(self, path: str = "/hello", *headers: str) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own."""
        head = [f"GET {path} HTTP/1.1", *(headers or ("Host: localhost",)), "Connection: close", "", ""]
        return parsed(await self.say("\r\n".join(head).encode("latin-1")))


async def all_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    answer = b""
    try:
        while piece := await asyncio.wait_for(reader.read(1 << 16), WAIT_S):
            answer += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


def parsed(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def served(
    test: Callable[[Web], Awaitable[None]],
    is_own_name: Callable[[str], bool] = any_name,
    tls: ssl.SSLContext | None = None,
) -> None:
    async def main() -> None:
        web = Web(is_own_name, tls)
        try:
            await test(web)
        finally:
            web.server.close()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


@contextlib.contextmanager
def shortened(**limits: float) -> Iterator[None]:
    """Time limits of connections, by name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in limits.items():
            patch.setattr(f"cachee_bridge.http.connection.{name}", seconds)
        yield
