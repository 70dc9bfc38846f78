"""A request and a response, as handlers see them. No socket, no h11."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class HttpError(Exception):
    """The request is refused; the cache is unchanged. The text is the body of the response."""

    def __init__(self, status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(words)
        self.status, self.headers = status, headers

    def response(self) -> Response:
        return Response(self.status, f"{self}\n".encode(errors="replace"), TEXT, self.headers)


@dataclass(frozen=True)
class Response:
    """What is sent. The length, the date and the headers of every response are added by the connection."""

    status: int
    body: bytes
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """`value` as JSON in ASCII: a key's control characters are escaped in it."""
        return cls(status, json.dumps(value, allow_nan=False).encode() + b"\n", JSON)


@dataclass(frozen=True)
class Request:
    """One request, read as a whole. Its sizes are bounded (connection.py)."""

    method: str
    path: str
    """Without the query, as it was sent: nothing in it is decoded."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Decoded; of a name that comes twice, the last."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case; of a name that comes twice, both values with a comma between them."""
    body: bytes = b""
    client: str = ""
    """The IP address it came from."""

    def json(self) -> Any:
        """The body. HttpError unless it is called JSON and is JSON."""
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise HttpError(415, f"the body must be JSON: send it with Content-Type: {JSON}")
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"the body is not JSON: {error}") from None

    def bearer(self) -> str | None:
        """The token of `Authorization: Bearer TOKEN`; None without one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None
