"""TLS 1.3 with certificates on both sides, without a socket: bytes in, bytes out.

    contexts, identity, fault = load(Files(cert, key, ca))    ConfigError: the files cannot be used
    channel = contexts.dial()  or  .accept()                  one connection
    channel.feed(b"")                                         begins
    plain = channel.feed(bytes from the socket)               AuthError: what is wrong; close after out()
    channel.write(plain); channel.out()                       bytes for the socket
    channel.identity                                          None until the other end has proven it

Loading performs a handshake of this host with itself, in memory. So problems that would keep links from
coming up (another key, another CA, a certificate that has expired or is not for both servers and clients) are
found before any peer sees them.

There are no session tickets, so no link is resumed without a certificate. An existing link outlives its
certificate. The dialled address is not compared with the certificate: the mesh checks the name that the peer
claims (identity.py), at any address.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from typing import Any

from cachee_bridge.wire.identity import Identity, identity_of
from cachee_shm.config import check_regular
from cachee_shm.errors import AuthError, ConfigError

READ_BYTES = 1 << 16  # of a record of 16 KiB
FILE_BYTES_MAX = 1 << 20  # where a fault is looked for: a bundle of all public CAs has 200 KB
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name
NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"}
NOT_TLS |= {"RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE", "UNKNOWN_PROTOCOL"}
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"  # fatal, protocol_version
"""For an end that speaks no TLS, which OpenSSL leaves without an answer: by it, it knows (frames.py)."""
SAID = {
    "UNSUPPORTED_PROTOCOL": "the other end speaks no TLS 1.3, only older ones",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other end has no certificate",
    "NO_SHARED_CIPHER": "the other end has no cipher in common with this host",
}


@dataclass(frozen=True)
class Files:
    """PEM files: this host's certificate (with intermediate ones), its key, the CA's certificates."""

    cert: str
    key: str
    ca: str


class Channel:
    """One TLS connection."""

    def __init__(self, context: ssl.SSLContext, accepts: bool) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=accepts)
        self.identity: Identity | None = None
        """What the other end's certificate says, once it has proven it."""
        self.ended = False
        """The other end has said that nothing follows."""

    def feed(self, data: bytes) -> bytes:
        """Feed `data` from the socket; returns the plain bytes. AuthError: an alert may be waiting in out();
        then close."""
        self._in.write(data)
        try:
            if self.identity is None:
                self._tls.do_handshake()
                self.identity = identity_of(_alternative_names(self._tls))
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            if error.reason in NOT_TLS and not self._out.pending:
                self._out.write(ALERT)
            raise AuthError(_told(error)) from None

    def write(self, data: bytes) -> None:
        """Only once there is an identity."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]

    def out(self) -> bytes:
        """Bytes for the socket; returned once."""
        return self._out.read()

    def end(self) -> None:
        """Nothing follows: says so to the other end, in out()."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def _read(self) -> bytes:
        pieces = []
        with contextlib.suppress(ssl.SSLWantReadError):
            try:
                while piece := self._tls.read(READ_BYTES):
                    pieces.append(piece)
                self.ended = True
            except ssl.SSLZeroReturnError:
                self.ended = True
        return b"".join(pieces)


class Contexts:
    """This host's certificate and CA, for new links."""

    def __init__(self, files: Files, verify_flags: int = 0) -> None:
        """OSError (ssl.SSLError is one): the files cannot be used."""
        self._accept = _context(ssl.PROTOCOL_TLS_SERVER, files, verify_flags)
        self._accept.num_tickets = 0
        self._dial = _context(ssl.PROTOCOL_TLS_CLIENT, files, verify_flags)
        self._files = files
        self.names: tuple[str, ...] = ()
        """The DNS names of this host's certificate; known once it was rehearsed."""

    def accept(self) -> Channel:
        return Channel(self._accept, accepts=True)

    def dial(self) -> Channel:
        return Channel(self._dial, accepts=False)

    def rehearse(self) -> Identity:
        """The identity in this host's certificate, by a handshake with itself. ssl.SSLError, AuthError: it
        cannot be used."""
        ends = self.dial(), self.accept()
        for end, other in (ends, ends[::-1]) * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end._tls.do_handshake()
            other._in.write(end.out())
        told = _alternative_names(ends[0]._tls)
        self.names = tuple(value for kind, value in told if kind == "DNS")
        return identity_of(told)

    def serve(self) -> ssl.SSLContext:
        """For people and programs that have no certificate of the mesh. OSError: the files have changed, and
        cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.load_cert_chain(self._files.cert, self._files.key, password=lambda: "")
        return context


def load(files: Files) -> tuple[Contexts, Identity, str]:
    """What the files hold, what the certificate says, and why it is not valid today ("" if it is).

    ConfigError when they can be used on no day; it names the file at fault.
    """
    try:
        for path in (files.cert, files.key, files.ca):
            check_regular(path)
        contexts, on_any_day = Contexts(files), Contexts(files, NO_CHECK_TIME)
    except OSError as error:
        raise ConfigError(_unreadable(files, error)) from None
    try:
        identity = on_any_day.rehearse()
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"certificate {files.cert}: {error.verify_message}; CA: {files.ca}") from None
    except (ssl.SSLError, AuthError) as error:
        raise ConfigError(f"certificate {files.cert}: {error}") from None
    try:
        contexts.rehearse()
    except ssl.SSLCertVerificationError as error:
        return contexts, identity, f"certificate {files.cert}: {error.verify_message}"
    return contexts, identity, ""


def _context(protocol: ssl._SSLMethod, files: Files, verify_flags: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= verify_flags
    context.load_verify_locations(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key, password=lambda: "")  # else OpenSSL asks at the terminal
    return context


def _alternative_names(tls: ssl.SSLObject) -> list[tuple[str, str]]:
    """AuthError when Python's ssl cannot read the certificate: it takes every name in it for text."""
    try:
        told: dict[str, Any] = dict(tls.getpeercert() or {})
    except (ValueError, TypeError, OverflowError, ssl.SSLError) as error:
        raise AuthError(f"the certificate cannot be read: {error}") from None
    return list(told.get("subjectAltName", ()))


def _unreadable(files: Files, error: OSError) -> str:
    """Finds the faulty file if possible, because OpenSSL does not name it."""
    wanted = ((files.cert, "CERTIFICATE"), (files.key, "PRIVATE KEY"), (files.ca, "CERTIFICATE"))
    for path, kind in wanted:
        try:
            check_regular(path)
            with open(path, "rb") as file:
                content = file.read(FILE_BYTES_MAX)
        except OSError as failed:
            return f"TLS file {path}: cannot be read: {failed.strerror}"
        if f"{kind}-----".encode() not in content:
            return (
                f"TLS file {path}: it holds no {kind.lower()} in PEM; accepted: a text with a line "
                f"'-----BEGIN {kind}-----' (openssl x509 -inform der, and pkey for keys, make it from DER)"
            )
    why = getattr(error, "reason", None) or str(error)
    return (
        f"TLS files {files.cert}, {files.key}, {files.ca}: {_words(why)}; accepted: PEM files of a "
        "certificate, of its key without a passphrase, and of the CA"
    )


def _told(error: ssl.SSLError) -> str:
    """One line for people."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other end's certificate is refused: {error.verify_message}"
    if reason in NOT_TLS:
        return "the other end speaks no TLS; give both hosts a [bridge.tls], or neither"
    if "ALERT" in reason:
        return f"the other end refuses this host's TLS: {_words(reason.partition('ALERT_')[2] or reason)}"
    return SAID.get(reason, f"TLS: {_words(reason) or error}")


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
