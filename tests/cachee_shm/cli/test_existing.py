"""A look into a segment makes none, and empties none."""

import os

import pytest

import cachee_shm
from cachee_shm.attaching import spec_for
from cachee_shm.cli.existing import NoSegment, existing, looked_into
from cachee_shm.cli.main import main
from cachee_shm.errors import LayoutMismatch


def test_namespaces_are_listed_by_their_segments_and_not_those_of_other_hosts(host):
    with cachee_shm.attach("shop"), cachee_shm.attach("news"):
        other = f"/dev/shm/cachee.{host.name}.b.shop.{cachee_shm._core.LAYOUT}"
        open(other, "w").close()
        assert existing(host.name) == ["news", "shop"]
        os.unlink(other)


def test_a_look_at_what_is_not_there_makes_nothing(host):
    with pytest.raises(NoSegment, match="no process has"), looked_into(spec_for("shop", None, False)):
        pass
    assert existing(host.name) == []


@pytest.mark.parametrize(
    ("made_by", "change"),
    [(("2MiB", ""), ("4MiB", "")), (("2MiB", 'entry_size = "1KiB"\n'), ("2MiB", ""))],
)
def test_a_look_leaves_a_segment_whose_configuration_has_changed_as_it_is(host, caplog, made_by, change):
    """Nobody is attached to it: the next worker makes it anew."""
    host.write(*made_by)
    with cachee_shm.attach("shop") as shop:
        shop.set("a", 1)
    host.write(*change)
    for words in (
        ["stat", "-n", "shop", "--json"],
        ["get", "a", "-n", "shop"],
        ["top", "--once", "--interval", "0.1"],
    ):
        assert main(words) == 0
    with looked_into(spec_for("shop", None, False)) as cache:
        assert cache.get("a") == 1
        assert cache.stats()["memory_bytes"] == 2 << 20
    assert caplog.text == ""
    with cachee_shm.attach("shop") as shop:  # as a worker does
        assert shop.get("a") is None


def test_what_is_no_segment_is_an_error(host):
    with cachee_shm.attach("shop") as shop:
        path = f"/dev/shm{shop.name}"
    with open(path, "r+b") as file:
        file.write(b"\xff" * 4096)
    with pytest.raises(LayoutMismatch), looked_into(spec_for("shop", None, False)):
        pass
