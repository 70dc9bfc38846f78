"""Bearer tokens, and what each of them allows.

    # a line each: the token, then the namespaces, or * for all
    3q2+7w...  shop sessions
    pZ8n0x...  *

A file that other users of the machine may read is refused. Tokens are compared in constant time.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from typing import TYPE_CHECKING

from cachee_bridge.http.messages import HttpError
from cachee_shm.config import NAMESPACE, check_regular
from cachee_shm.errors import ConfigError

if TYPE_CHECKING:
    from cachee_bridge.http.messages import Request

FILE_BYTES_MAX = 64 << 10
TOKENS_MAX = 64
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
"""What RFC 6750 has for a bearer token."""
ACCEPTED = "lines of a token of 16 to 256 letters, digits and ._~+/=- and its namespaces, or *"

Allowed = frozenset[str] | None
"""The namespaces that a token is for; None = every one."""


class Tokens:
    """The content of the token file."""

    def __init__(self, known: dict[str, Allowed]) -> None:
        self._known = {token.encode(): allowed for token, allowed in known.items()}

    def allowed(self, request: Request) -> Allowed:
        """The namespaces that the request may touch, None = all. HttpError 401 without a token, 403 with an
        unknown one."""
        given = request.bearer()
        if given is None:
            raise HttpError(
                401,
                "this needs a token of http_token_file: Authorization: Bearer TOKEN",
                (("WWW-Authenticate", 'Bearer realm="cachee"'),),
            )
        found: list[Allowed] = [
            allowed
            for token, allowed in self._known.items()
            if hmac.compare_digest(token, given.encode("latin-1", errors="replace"))
        ]
        if not found:
            raise HttpError(403, "this token is not in http_token_file; nothing was done")
        return found[0]

    def check(self, request: Request, namespace: str) -> None:
        """HttpError as `allowed`, and 403 when the token is not for this namespace."""
        allowed = self.allowed(request)
        if allowed is not None and namespace not in allowed:
            raise HttpError(
                403,
                f"this token is not for namespace {namespace!r}, only for {', '.join(sorted(allowed))}; "
                "nothing was done; name the namespace in its line of http_token_file",
            )


def read_tokens(path: str) -> Tokens:
    """ConfigError when the file cannot be read, others may read it, or it holds something else."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"token file {path}: cannot be read: {error.strerror}") from None
    if found.st_mode & stat.S_IRWXO:
        raise ConfigError(
            f"token file {path}: every user of this machine may read or change it (mode "
            f"{stat.S_IMODE(found.st_mode):o}); nothing in it is used; accepted: mode 640 or 600: "
            f"chmod o= {path}, and put new tokens into it"
        )
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(f"token file {path}: it has more than {FILE_BYTES_MAX} bytes; accepted: {ACCEPTED}")
    known: dict[str, Allowed] = {}
    for number, line in enumerate(text.decode("latin-1").splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            if words[0] in known:
                raise ConfigError(
                    f"token file {path}: line {number} has the token of an earlier line; nothing in it is "
                    "used; accepted: one line for each token, with all its namespaces"
                )
            known[words[0]] = _allowed(path, number, words[0], words[1:])
    if not 1 <= len(known) <= TOKENS_MAX:
        raise ConfigError(f"token file {path}: found {len(known)} tokens; accepted: 1 to {TOKENS_MAX}")
    return Tokens(known)


def _allowed(path: str, number: int, token: str, namespaces: list[str]) -> Allowed:
    """Errors name the line, never the token."""
    if TOKEN.fullmatch(token) and namespaces == ["*"]:
        return None
    if TOKEN.fullmatch(token) and namespaces and all(map(NAMESPACE.fullmatch, namespaces)):
        return frozenset(namespaces)
    raise ConfigError(f"token file {path}: line {number} cannot be used; accepted: {ACCEPTED}")
