"""Both sides prove that they know the shared secret, and neither sends it.

    dialler                                acceptor
       HELLO(nonce d)  -------------------->
             <--------------------  HELLO(nonce a)
       AUTH(HMAC(secret, "dialler" + transcript)) ->      checks; answers only if it is right
             <-  AUTH(HMAC(secret, "acceptor" + transcript))
       checks

The transcript is both HELLOs, whole, so a name, an instance or a mode changed on the way fails. The role is
in the MAC, so a side's own proof cannot be reflected; the nonces are fresh, so it cannot be replayed.

While a secret is being changed a host holds two: it sends a MAC with each and accepts either, so hosts may be
restarted with (new, old) one by one in any order, and with (new) alone once all have it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import msgpack

from cachee_bridge.frames import Hello
from cachee_shm.errors import AuthError

DIALLER = b"dialler"
ACCEPTOR = b"acceptor"
SECRET_BYTES_MIN = 16
"""Whoever sees a proof can try secrets against it at leisure: 128 bits, or it is no secret."""


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
    return tuple(hmac.digest(secret, b"cachee 1 " + role + b" " + said, "sha256") for secret in secrets)


def verify(secrets: Sequence[bytes], role: bytes, said: bytes, macs: Sequence[bytes]) -> bool:
    """Whether one of `macs` was made with one of `secrets`. The time taken says nothing about them."""
    right = False
    for expected in prove(secrets, role, said):
        for mac in macs:
            right |= hmac.compare_digest(expected, mac)
    return right
