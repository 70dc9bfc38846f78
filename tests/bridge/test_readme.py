"""Runs what bridge/README.md shows. Its commands make the certificates that it describes."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cachee_bridge.carriers.credentials import Credentials
from cachee_bridge.carriers.unproven import HANDSHAKES_MAX
from cachee_bridge.links.link import ALLOWANCE_BYTES, BEATS_BYTES
from cachee_bridge.membership.addresses import ADDRESSES_MAX
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX
from cachee_shm.config import loads
from tests.bridge.hosts import hosts
from tests.bridge.test_admin import SHOP, opened
from tests.bridge.test_two_bridges import fill

FOLDER = Path(__file__).resolve().parents[2] / "bridge"
TEXT = (FOLDER / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.needs("OpenSSL 3")
def test_the_commands_make_certificates_of_one_host_and_two_namespaces(tmp_path: Path) -> None:
    for commands in [block for block in blocks("sh") if "openssl" in block]:
        subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    lines = "\n".join(blocks("toml"))
    config = loads(f"[defaults]\n{lines}".encode(), str(tmp_path / "cachee.toml"))
    assert config.bridge is not None
    assert config.namespaces["shop"].peer_fill
    assert Credentials(config.bridge, "web-1").namespaces == {"shop", "news"}


@pytest.mark.needs("curl", "message queues")
def test_the_command_that_invalidates_a_key_from_outside_does(tmp_path: Path) -> None:
    (command,) = (block for block in blocks("sh") if "curl" in block)
    with hosts(tmp_path, number=1) as (host,):
        url = opened(host)
        host.start()
        cache = host.attach()
        fill(cache, ["user:42"])
        there = command.replace("http://127.0.0.1:9947", url)
        done = subprocess.run(
            ["sh", "-ec", there], env={**os.environ, "TOKEN": SHOP}, check=True, capture_output=True
        )
        assert json.loads(done.stdout) == {"namespace": "shop", "keys": 1, "tags": 0}
        assert cache.get("user:42") is None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)\)", TEXT))))
def test_what_it_links_to_is_there(path: str) -> None:
    assert (FOLDER / path).exists()


def test_the_numbers_in_it_are_those_of_the_code() -> None:
    for number in (
        f"up to {ADDRESSES_MAX:,} addresses",
        f"the {HANDSHAKES_MAX} places for handshakes",
        f"{HANDSHAKE_BYTES_MAX >> 10} KiB before it has proven anything",
        f"one message of {FRAME_BYTES_MAX >> 20} MiB",
        f"{(ALLOWANCE_BYTES + BEATS_BYTES) >> 10} KiB on the way out",
    ):
        assert number in " ".join(TEXT.split())
