"""The demo's two hosts: their names, ports and configurations, in one temporary folder."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cachee_shm.ports import free_ports

HEARTBEAT_S = 0.1
LOST_AFTER_S = 1.0
ISOLATION_TTL_S = 3.0
CAPPED_S = LOST_AFTER_S + ISOLATION_TTL_S  # no read may be further behind than this, also when cut off

CONFIG = """\
[host]
name = "{name}"

[namespaces.shop]
memory = "16MiB"
default_ttl = "1min"
prewarm = true
on_isolation = "cap"
isolation_ttl = "{isolation_ttl_s:g}s"

[bridge]
listen = "127.0.0.1:{listen}"
peers = ["127.0.0.1:{ports[0]}", "127.0.0.1:{ports[1]}"]
secret_file = "{secret}"
heartbeat = "{heartbeat_ms:g}ms"
lost_after = "{lost_after_s:g}s"
drain = "0s"
"""


@dataclass(frozen=True)
class Host:
    """One host of the demo. Its `name` is new in each run, so that several demos may run at once."""

    label: str
    name: str
    config: Path
    http_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


def make_hosts(folder: Path, port_base: int | None) -> tuple[Host, Host]:
    """Two hosts, their configurations written; they know each other and share a secret."""
    ports = free_ports(4) if port_base is None else [port_base + i for i in range(4)]
    secret = folder / "secret"
    secret.write_text(secrets.token_hex(32) + "\n")
    secret.chmod(0o600)
    run = secrets.token_hex(3)
    first, second = (
        Host(label, f"{label}-{run}", folder / f"{label}.toml", ports[2 + i])
        for i, label in enumerate(("demo-a", "demo-b"))
    )
    for host, listen in zip((first, second), ports[:2], strict=True):
        host.config.write_text(config(host, listen, ports[:2], secret))
    return first, second


def config(host: Host, listen: int, ports: list[int], secret: Path) -> str:
    return CONFIG.format(
        name=host.name,
        listen=listen,
        ports=ports,
        secret=secret,
        isolation_ttl_s=ISOLATION_TTL_S,
        heartbeat_ms=HEARTBEAT_S * 1000,
        lost_after_s=LOST_AFTER_S,
    )


def shop_folder() -> Path:
    """Where the shop is: beside this package in an installation, in `examples/` in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "shop", here.parents[2] / "examples" / "shop"):
        if (folder / "app.py").is_file():
            return folder
    raise FileNotFoundError(f"the example shop is neither in {here}/shop nor in examples/shop of a checkout")


def readable(path: Path, lines: int = 15) -> str:
    """The end of a log file, indented; empty where there is none."""
    if not path.exists():
        return ""
    found = path.read_text(errors="replace").splitlines()[-lines:]
    return "".join(f"    {line}{os.linesep}" for line in found)
