"""Seals bind a message to its place on one link, for ends that share a secret and have no certificates.

    message | seal: 16 bytes = BLAKE2b(key of this direction of this link; number of the message, message)

The key is of this link alone (auth.py), the number counts from 0 and is not sent. If somebody on the network
changes, repeats, drops or reorders a message, or inserts one from another link, its seal does not fit, and
the link closes before the message is decoded. Seals do not encrypt: an eavesdropper can read everything.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from cachee_shm.errors import AuthError

SEAL_BYTES = 16


class Seal:
    """One direction of one link: its sender makes seals, its receiver checks them."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=SEAL_BYTES, person=b"cachee-seal")
        self._number = 0

    def of(self, message: bytes | bytearray) -> bytes:
        """The seal of the next message."""
        seal = self._next(message)
        self._number += 1
        return seal

    def check(self, message: bytes | bytearray, seal: bytes | bytearray) -> None:
        """AuthError when `seal` is not that of the next message, which then is still to come."""
        if not hmac.compare_digest(self._next(message), seal):
            raise AuthError(
                "a message whose seal does not fit: changed, repeated or dropped on the way; nothing of it "
                "was applied; the link is closed"
            )
        self._number += 1

    def _next(self, message: bytes | bytearray) -> bytes:
        state = self._keyed.copy()
        state.update(self._number.to_bytes(8, "little"))
        state.update(message)
        return state.digest()


def seal_each(message: bytes, seals: Collection[Seal]) -> list[bytes]:
    """`message` for several links, each with the seal that `of` makes on that link."""
    sealed = []
    for seal in seals:
        state = seal._keyed.copy()
        state.update(seal._number.to_bytes(8, "little"))
        state.update(message)
        seal._number += 1
        sealed.append(message + state.digest())
    return sealed
