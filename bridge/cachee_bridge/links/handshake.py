"""The handshake of one link: each end gives its name, and proves it by a secret or a certificate, if there is
one.

    no authentication    both send HELLO                      the name in HELLO is accepted
    a secret             both send HELLO; the dialler sends   each end checks the proof of the other (auth.py)
                         AUTH; the acceptor checks it, and
                         answers with its own AUTH
    certificates         the carrier has checked that the     the name in HELLO must be one of the
                         certificate is one of the CA's       certificate's

The dialler sends its proof first. So an unknown client that only connects learns a name and a nonce, but gets
no proof against which it could test secrets. Certificates and a secret may be used together: then both are
checked."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachee_bridge.links.versions import agreed
from cachee_bridge.wire import auth
from cachee_bridge.wire.frames import VERSION_MIN
from cachee_bridge.wire.messages import Auth, Hello, Message, namespaces_of
from cachee_shm.errors import AuthError

if TYPE_CHECKING:
    from cachee_bridge.wire.identity import Identity, Limits
    from cachee_bridge.wire.seal import Seal


class Handshake:
    """Of one link: the peer's name, how it is proven, and the namespaces that its certificate allows."""

    def __init__(
        self, mine: Hello, dialled: bool, secrets: Sequence[bytes], identity: Identity | None
    ) -> None:
        """`mine` is this side's HELLO; `identity` is the content of the peer's certificate, None without
        TLS."""
        self.mine = mine
        self.peer: Hello | None = None
        self.version = VERSION_MIN
        """The wire that both ends speak, once the peer's HELLO has come."""
        self.seals: tuple[Seal, Seal] | None = None
        """Of what this side sends, and of what the peer sends, once a secret has been proven."""
        self.limits: Limits = None
        """The namespaces that the peer's certificate allows, None = every one."""
        self._dialled, self._secrets, self._identity = dialled, secrets, identity

    @property
    def needs_proof(self) -> bool:
        """Whether both ends have to prove that they know a secret."""
        return bool(self._secrets)

    def on_hello(self, hello: Hello) -> Auth | None:
        """The answer to the peer's HELLO, None if there is none. FrameError, AuthError: close the link."""
        version = agreed(self.mine, hello)
        if hmac.compare_digest(hello.nonce, self.mine.nonce):
            raise AuthError("this side's own HELLO came back; the link is closed")
        if hello.mode != self.mine.mode:
            raise AuthError(
                f"authentication is {hello.mode!r} there and {self.mine.mode!r} here; the link is closed; "
                "give both hosts the same secret_file"
            )
        if self._identity is not None:
            self.limits = self._identity.limits(hello.name)
        self.peer, self.version = hello, version
        if self._secrets and self._dialled:
            return Auth(auth.prove(self._secrets, auth.DIALLER, self._transcript()))
        return None

    def on_auth(self, proof: Auth) -> Auth | None:
        """The answer to the peer's proof, None if there is none. AuthError: close the link."""
        said = self._transcript()
        role = auth.ACCEPTOR if self._dialled else auth.DIALLER
        secret = auth.verify(self._secrets, role, said, proof.macs)
        if secret is None:
            raise AuthError("the peer does not know this host's secret; the link is closed")
        of_dialler, of_acceptor = auth.seals(secret, said)
        self.seals = (of_dialler, of_acceptor) if self._dialled else (of_acceptor, of_dialler)
        return None if self._dialled else Auth(auth.prove((secret,), auth.ACCEPTOR, said))

    def check_allowed(self, message: Message) -> None:
        """AuthError when `message` names a namespace that the peer's certificate does not allow."""
        if self.limits is None:
            return
        for namespace in namespaces_of(message):
            if namespace not in self.limits:
                name = self.peer.name if self.peer is not None else "the peer"
                allowed = ", ".join(sorted(self.limits))
                raise AuthError(
                    f"{name} names namespace {namespace!r}, but its certificate allows {allowed}; "
                    "nothing of it was applied; the link is closed"
                )

    def _transcript(self) -> bytes:
        assert self.peer is not None
        return auth.transcript(*((self.mine, self.peer) if self._dialled else (self.peer, self.mine)))
