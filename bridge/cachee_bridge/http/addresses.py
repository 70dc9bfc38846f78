"""What can be judged of `metrics`, `admin` and `http_token_file` before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.carriers.names import is_loopback, look_up_all
from cachee_bridge.http.tokens import Tokens, read_tokens
from cachee_shm.config import split_address
from cachee_shm.errors import ListenRefused

if TYPE_CHECKING:
    from cachee_shm.config import Config

LOOK_UP_S = 1.0
EVERYWHERE = ("", "0.0.0.0", "::")


class Address:
    """Where a listener listens. A name is looked up once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.host, self.port = split_address(text)
        found = [] if self.host in EVERYWHERE else look_up_all([self.host], LOOK_UP_S).get(self.host, [])
        self.found = found
        """In figures. Empty: everywhere, or a name that leads nowhere."""
        self.is_local = bool(found) and all(map(is_loopback, found))
        """Whether only this machine reaches it."""

    def hosts(self) -> list[str]:
        """For accepting.bound: [] is everywhere. OSError when a name leads nowhere."""
        if not self.found and self.host not in EVERYWHERE:
            raise OSError(f"the name {self.host!r} has no address; the bridge looks it up when it starts")
        return self.found


def check(config: Config) -> Tokens | None:
    """The tokens of http_token_file, None without such a file.

    ListenRefused for an `admin` that the network reaches without TLS, ConfigError for a token file that
    cannot be used.
    """
    bridge = config.bridge
    assert bridge is not None
    if bridge.admin is not None and bridge.tls is None and not Address(bridge.admin).is_local:
        port = split_address(bridge.admin)[1]
        raise ListenRefused(
            f"{config.source}: bridge.admin: {bridge.admin!r} can be reached from the network, and there is "
            f"no [bridge.tls]; nothing was started; set one, or listen on '127.0.0.1:{port}' and come by "
            f"ssh -L {port}:127.0.0.1:{port} HOST"
        )
    return read_tokens(bridge.http_token_file) if bridge.http_token_file is not None else None
