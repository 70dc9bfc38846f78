"""A name in `peers` that leads to this host first, and to another host later: real bridges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_shm import Cache
from tests.bridge.hosts import Host, hosts, until

NAMES_FROM_A_FILE = """
from cachee_bridge.carriers import names
from cachee_bridge.membership import addresses
addresses.OWN_LOOK_S = 0.3
names.look_up = lambda name: open({path!r}).read().split()
"""
"""Python that stands in for the machine's resolver, and looks at own addresses sooner."""


class Pair:
    """Host a, whose only peer is a name, and host b, which knows nobody: at one port of two IP addresses."""

    def __init__(self, folder: Path, made: list[Host]) -> None:
        self.a, self.b = made
        self.names = folder / "names"
        for host, at, peers in ((self.a, "127.0.0.2", f'"service:{self.a.port}"'), (self.b, "127.0.0.3", "")):
            lines = host.config.read_text().splitlines()
            lines = [line for line in lines if not line.startswith(("listen", "peers"))]
            lines += [f'listen = "{at}:{self.a.port}"', f"peers = [{peers}]"]
            host.config.write_text("\n".join(lines) + "\n")
        self.lead_to("127.0.0.2")
        self.a.start(NAMES_FROM_A_FILE.format(path=str(self.names)))
        self.cache = self.a.attach()

    def lead_to(self, *addresses: str) -> None:
        """The name, from now on."""
        new = self.names.with_suffix(".new")
        new.write_text(" ".join(addresses))
        new.rename(self.names)

    def is_isolated(self) -> bool:
        return bool(self.cache.health().isolated)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with hosts(tmp_path, bridge='lost_after = "400ms"\nheartbeat = "50ms"') as made:
        yield Pair(tmp_path, made)


def names_of(cache: Cache) -> set[str]:
    return {peer.name for peer in cache.health().peers}


def test_a_name_that_led_here_first_is_followed_to_another_host(pair: Pair) -> None:
    until(lambda: not pair.is_isolated(), "a name that leads to this host alone to isolate nobody")
    pair.lead_to("127.0.0.3")
    until(pair.is_isolated, "the host behind the name to be waited for")
    pair.b.start()
    until(lambda: names_of(pair.cache) == {pair.b.name}, "the other host to be linked")
    until(lambda: not pair.is_isolated())
    other = pair.b.attach()
    other.set("key", "value")
    until(lambda: pair.cache.health().ok)


def test_a_name_that_leads_to_another_host_as_well_is_dialled_there(pair: Pair) -> None:
    until(lambda: not pair.is_isolated())
    pair.b.start()
    pair.lead_to("127.0.0.2", "127.0.0.3")
    until(lambda: names_of(pair.cache) == {pair.b.name}, "the other address of the name to be dialled")
    until(lambda: not pair.is_isolated())
