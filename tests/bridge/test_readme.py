"""What bridge/README.md shows is run: its commands make certificates that are what it says they are."""

from __future__ import annotations

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

FOLDER = Path(__file__).resolve().parents[2] / "bridge"
TEXT = (FOLDER / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.needs("OpenSSL 3")
def test_the_commands_make_certificates_of_one_host_and_two_namespaces(tmp_path: Path) -> None:
    for commands in blocks("sh"):
        subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    (lines,) = blocks("toml")
    config = loads(f"[defaults]\n{lines}".encode(), str(tmp_path / "cachee.toml"))
    assert config.bridge is not None
    assert Credentials(config.bridge, "web-1").namespaces == {"shop", "news"}


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
