"""Two shells, and an attacker between them who changes what passes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import uvloop

from cachee_bridge.carriers.tls import Contexts
from cachee_shm.ports import free_ports
from tests.bridge.certificates import Authority
from tests.bridge.relay import Change, cut_off, flipped, later, left_out, relay, repeated
from tests.bridge.shells import Side, until

KEYS = [f"k{number}" for number in range(100)]
SECRET = b"sixteen bytes and some more"
NOTICED = ("seal does not fit", " TLS: ")


@pytest.mark.parametrize("by", ["certificates", "secret"])
@pytest.mark.parametrize(
    "change", [flipped, repeated, left_out, cut_off, later], ids=lambda how: how.__name__
)
def test_what_is_changed_on_the_way_ends_the_link_moves_nothing_and_is_made_good(
    change: Change, by: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path / "ca")

    def side(name: str, port: int) -> Side:
        if by == "secret":
            return Side(name, port, (SECRET,))
        return Side(name, port, (), Contexts(authority.issue(name)))

    async def main() -> None:
        ports = free_ports(2)
        left, right = side("left", ports[0]), side("right", ports[1])
        with relay(ports[1]) as between:
            try:
                await right.start()
                await left.start(between.port)
                await until(lambda: left.up() == ["right"] and right.up() == ["left"])
                for key in KEYS:
                    right.cache.get_or_load(key, lambda: b"old")
                between.change = change
                left.cache.delete(KEYS[0])
                await until(lambda: between.changed)
                await until(lambda: any(noticed in caplog.text for noticed in NOTICED))
                await until(lambda: KEYS[0] not in right.cache.get_many(KEYS))
                assert right.cache.get_many(KEYS).keys() == set(KEYS[1:])
                left.cache.delete(KEYS[1])
                await until(lambda: KEYS[1] not in right.cache.get_many(KEYS))
                assert left.broken == right.broken == []
            finally:
                for end in (left, right):
                    end.shell.stop()
                    end.cache.close()

    with caplog.at_level(logging.INFO, logger="cachee_bridge"):
        uvloop.run(main())
