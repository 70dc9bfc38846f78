"""The dashboard's files, as they lie in static/. Nothing but these can be asked for.

They are read together when the first is asked for, and kept: a package that is replaced under a running
bridge does not mix two releases in one page.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cachee_bridge.http.messages import Response

if TYPE_CHECKING:
    from cachee_bridge.http.messages import Request
    from cachee_bridge.http.routes import Routes

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page:
    """Each file under its name, the page itself under "/"."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}

    def add_to(self, routes: Routes) -> None:
        for path in sorted(FOLDER.iterdir()):
            if path.suffix in TYPES:
                routes.add("GET", "/" if path.name == INDEX else f"/{path.name}", self.handle)

    def handle(self, request: Request) -> Response:
        """The file; 304 where the browser has it already."""
        if not self._files:
            self._files = {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in TYPES}
        name = request.path.lstrip("/") or INDEX
        body, tag = self._files[name]
        headers = (("ETag", tag), ("Cache-Control", "no-cache"))
        if request.headers.get("if-none-match") == tag:
            return Response(304, b"", TYPES[Path(name).suffix], headers)
        return Response(200, body, TYPES[Path(name).suffix], headers)


def _read(path: Path) -> tuple[bytes, str]:
    """What is in it, and its entity tag."""
    body = path.read_bytes()
    return body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
