"""For the tests of HTTP caches: applications that answer what an origin answers, each behind a cache.

    ORIGIN=http://127.0.0.1:8000 python http_relay.py asgi

It prints the port that it listens on.
"""

import os
import socket
import socketserver
import sys
import wsgiref.simple_server

import httpcore
import uvicorn

import cachee_shm
import cachee_shm.http.asgi
import cachee_shm.http.wsgi

ORIGIN = os.environ.get("ORIGIN", "")
ANSWER_S = 60
HOP_BY_HOP = ("keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")


def end_to_end(pairs, more=()):
    return [(name, value) for name, value in pairs if name.lower() not in (*HOP_BY_HOP, *more)]


def known(status):
    """Their origin answers 999 where it waits for a condition, which uvicorn cannot send."""
    return 599 if status > 599 else status


class Asgi:
    """Each request on a connection of its own: one that the origin ends says nothing of the next."""

    def __init__(self):
        self.pool = httpcore.AsyncConnectionPool(max_connections=None, max_keepalive_connections=0)

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + (f"?{query}" if query else "")
        sent = [(name.decode(), value.strip()) for name, value in scope["headers"]]
        got = await self.pool.request(
            scope["method"],
            ORIGIN + target,
            headers=end_to_end(sent, ["connection"]),
            content=body,
            extensions={"timeout": {"read": ANSWER_S}},
        )
        pairs = end_to_end((name.decode().lower(), value) for name, value in got.headers)
        headers = [(name.encode(), value) for name, value in pairs]
        await send({"type": "http.response.start", "status": known(got.status), "headers": headers})
        await send({"type": "http.response.body", "body": got.content})


class Wsgi:
    def __init__(self):
        self.pool = httpcore.ConnectionPool(max_connections=None, max_keepalive_connections=0)

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        sent = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name[:5] == "HTTP_"]
        sent += [("content-length", str(length))] if length else []
        sent += [("content-type", environ["CONTENT_TYPE"])] if length else []
        query = environ["QUERY_STRING"]
        got = self.pool.request(
            environ["REQUEST_METHOD"],
            ORIGIN + environ["PATH_INFO"] + (f"?{query}" if query else ""),
            headers=end_to_end(sent, ["connection"]),
            content=environ["wsgi.input"].read(length),
            extensions={"timeout": {"read": ANSWER_S}},
        )
        pairs = end_to_end((name.decode(), value.decode("latin-1")) for name, value in got.headers)
        hops = [name for name, _ in pairs if wsgiref.util.is_hop_by_hop(name)]  # PEP 3333 has none of them
        start_response(f"{known(got.status)} Status", [pair for pair in pairs if pair[0] not in hops])
        return [got.content]


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 256


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


def main(face):
    with cachee_shm.attach(private=True) as cache, socket.create_server(("127.0.0.1", 0), backlog=256) as at:
        port = at.getsockname()[1]
        if face == "asgi":
            app = cachee_shm.http.asgi.CacheeMiddleware(Asgi(), cache, hosts=[f"127.0.0.1:{port}"])
            options = {
                "lifespan": "off",
                "date_header": False,
                "server_header": False,
                "timeout_keep_alive": 600,
            }
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **options))
            print(port, flush=True)
            server.run([at])
        else:
            app = cachee_shm.http.wsgi.CacheeMiddleware(Wsgi(), cache, hosts=[f"127.0.0.1:{port}"])
            server = Server(at.getsockname(), Quiet, bind_and_activate=False)
            server.socket.close()
            server.socket = at
            server.server_name, server.server_port = at.getsockname()
            server.setup_environ()
            server.set_app(app)
            print(port, flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
