"""Both sides prove that they know the shared secret, and neither sends it.

    dialler                                acceptor
       HELLO(nonce d)  -------------------->
             <--------------------  HELLO(nonce a)
       AUTH(HMAC(secret, "dialler" + transcript)) ->      checks; answers only if it is right
             <-  AUTH(HMAC(secret, "acceptor" + transcript))
       checks

The transcript is both HELLOs, whole. So if a name, an instance or a mode is changed on the way, the proof
fails. The role is in the MAC, so a proof cannot be reflected to its sender. The nonces are fresh, so a proof
cannot be replayed. From then on each message has a seal (seal.py), whose key is derived from the secret and
the transcript.

While a secret is being changed, a host holds two. The dialler sends one MAC for each, in its order. The
acceptor uses the first that it knows and answers with that one, so both ends know which one is in use. So the
hosts can be given (new, old) one by one in any order, and (new) alone once all have it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgpack

from cachee_bridge.wire.seal import Seal
from cachee_shm.errors import AuthError

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Hello

DIALLER = b"dialler"
ACCEPTOR = b"acceptor"
SECRET_BYTES_MIN = 16
"""An attacker who has recorded one proof can try secrets against it on a machine of his own, without asking
this host. A random secret of 128 bits cannot be found in that way."""


def check_secrets(secrets: Sequence[bytes]) -> None:
    """AuthError when a secret cannot be used. Nothing else has happened."""
    if len(secrets) > 2:
        raise AuthError(f"{len(secrets)} secrets; a current and a previous one are accepted")
    if any(len(secret) < SECRET_BYTES_MIN for secret in secrets):
        raise AuthError(
            f"a secret of less than {SECRET_BYTES_MIN} bytes; make one with: head -c 32 /dev/urandom | base64"
        )


def transcript(dialler: Hello, acceptor: Hello) -> bytes:
    """What both sides have said, unambiguously."""
    packed: bytes = msgpack.packb((dialler, acceptor), use_bin_type=True)
    return packed


def prove(secrets: Sequence[bytes], role: bytes, said: bytes) -> tuple[bytes, ...]:
    """One MAC for each secret."""
    return tuple(_mac(secret, role, said) for secret in secrets)


def verify(secrets: Sequence[bytes], role: bytes, said: bytes, macs: Sequence[bytes]) -> bytes | None:
    """The secret by which the first fitting one of `macs` was made, None if it is none of `secrets`. The time
    taken says nothing about them."""
    found = None
    for mac in reversed(macs):
        for secret in secrets:
            if hmac.compare_digest(_mac(secret, role, said), mac):
                found = secret
    return found


def seals(secret: bytes, said: bytes) -> tuple[Seal, Seal]:
    """Of what the dialler sends on this link, and of what the acceptor sends."""
    dialler, acceptor = (_mac(secret, b"seals of the " + role, said) for role in (DIALLER, ACCEPTOR))
    return Seal(dialler), Seal(acceptor)


def _mac(secret: bytes, purpose: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, b"cachee 1 " + purpose + b" " + said, "sha256")
