"""A DNS server on loopback: real packets over UDP and TCP, and answers that a test changes as it goes."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from types import TracebackType

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

UDP_RECORDS_MAX = 3  # what a datagram brings, without a word about the rest, as Consul does


class DnsServer:
    """`with DnsServer() as server`: then `server.names(...)`, and `server.behaviour` at any time."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        """Record type -> what the one name has of it; a type that is not there has none."""
        self.targets: dict[str, list[str]] = {}
        """Name of an SRV target -> its IPv4 addresses."""
        self.name = "cachee.test."
        self.ttl = 1
        self.behaviour = "answers"
        """"answers" | "fails" (SERVFAIL) | "denies" (NXDOMAIN) | "is silent" | "sends garbage"."""
        self.delay_s = 0.01
        self.asked = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._at_once = 0
        self._servers: list[socketserver.BaseServer] = []

    def __enter__(self) -> DnsServer:
        self._servers = self._bound()
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _bound(self) -> list[socketserver.BaseServer]:
        """Both on one port: the kernel chooses one for UDP, and somebody may have it for TCP."""
        for _ in range(100):
            udp = _UDP(("127.0.0.1", 0), _datagram_handler(self))
            self.port = int(udp.server_address[1])
            try:
                return [udp, _TCP(("127.0.0.1", self.port), _stream_handler(self))]
            except OSError:
                udp.server_close()
        raise AssertionError("no port is free for both UDP and TCP")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self, *addresses: str, kind: str = "A") -> None:
        """From now on, these records of this type and no others."""
        self.records = {kind: list(addresses)}

    def reply(self, data: bytes) -> bytes | None:
        """The answer to one packet; None is silence."""
        with self._lock:
            self.asked += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay_s)
        with self._lock:
            self._at_once -= 1
        return self._reply(data)

    def _reply(self, data: bytes) -> bytes | None:
        if self.behaviour == "is silent":
            return None
        if self.behaviour == "sends garbage":
            return data[:2] + b"\xff" * 30
        response = dns.message.make_response(dns.message.from_wire(data))
        response.set_rcode(
            {"fails": dns.rcode.SERVFAIL, "denies": dns.rcode.NXDOMAIN}.get(self.behaviour, dns.rcode.NOERROR)
        )
        if self.behaviour == "answers":
            self._fill(response)
        return response.to_wire(max_size=65535)

    def _fill(self, response: dns.message.Message) -> None:
        question = response.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        if name == self.name:
            found = self.records.get(kind, [])
        elif name in self.targets:
            found = self.targets[name] if kind == "A" else []
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return
        if found:
            response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *found))


class _UDP(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TCP(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _datagram_handler(server: DnsServer) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            reply = server.reply(data)
            if reply is not None:
                sock.sendto(_part(reply), self.client_address)

    return Handler


def _stream_handler(server: DnsServer) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            (size,) = struct.unpack("!H", self.request.recv(2))
            reply = server.reply(self.request.recv(size))
            if reply is not None:
                self.request.sendall(struct.pack("!H", len(reply)) + reply)
            self.request.recv(1)  # until the client has had enough

    return Handler


def _part(reply: bytes) -> bytes:
    try:
        message = dns.message.from_wire(reply)
    except dns.exception.DNSException:  # garbage
        return reply
    for records in message.answer:
        for record in list(records)[UDP_RECORDS_MAX:]:
            records.remove(record)
    return message.to_wire()
