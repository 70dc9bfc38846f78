"""Hosts of this release and of the one before in one mesh: real bridges and workers, wire 3 and wire 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.hosts import Host, hosts, until
from tests.bridge.releases import Worker, release_before, worker

KEYS = [f"k{number}" for number in range(200)]
LAP = "[cache.delete_many([f'other{lap}:{n}' for n in range(cache.ring_slots)]) for lap in range(2)]"


@pytest.fixture(scope="module")
def before() -> Path:
    return release_before()


@pytest.fixture(params=["no secret", "secret"])
def mixed(tmp_path: Path, before: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    """A host of this release and one of the release before; their bridges do not run yet."""
    secret = ""
    if request.param == "secret":
        (tmp_path / "secret").write_text("a secret of more than sixteen bytes\n")
        (tmp_path / "secret").chmod(0o600)
        secret = f'secret_file = "{tmp_path / "secret"}"'
    with hosts(tmp_path, 2, secret) as (new, old):
        old.release = before
        yield new, old


def whole(*workers: Worker) -> None:
    for one in workers:
        until(lambda one=one: one("cache.serve_until >= cache.now_ms()"), "nobody to be isolated")


def fill(reader: Worker, value: str) -> None:
    assert reader(f"[cache.get_or_load(key, lambda: {value!r}) for key in {KEYS}]") == [value] * len(KEYS)


def newest(reader: Worker, key: str) -> object:
    return reader(f"cache.get({key!r})")


def test_nothing_is_lost_or_stale_between_them_in_either_direction(
    mixed: tuple[Host, Host], before: Path
) -> None:
    new, old = mixed
    new.start(), old.start()
    with worker(new) as here, worker(old, before) as there:
        whole(here, there)
        for writer, reader in ((here, there), (there, here)) * 2:
            fill(reader, "old")
            writer(f"[cache.set(key, 'new') for key in {KEYS[::2]}]")
            writer(f"[cache.delete(key) for key in {KEYS[1::4]}]")
            until(lambda r=reader: "old" not in r(f"[*cache.get_many({KEYS[::2] + KEYS[1::4]}).values()]"))
            assert reader(f"sorted(cache.get_many({KEYS}))") == sorted(KEYS[3::4])
            writer("cache.clear()")
            until(lambda r=reader: newest(r, KEYS[3]) is None)
    assert "closing the link" not in new.log + old.log


@pytest.mark.parametrize("mixed", ["secret"], indirect=True)
def test_what_was_written_while_either_bridge_was_dead_is_made_good(
    mixed: tuple[Host, Host], before: Path
) -> None:
    new, old = mixed
    new.start(), old.start()
    with worker(new) as here, worker(old, before) as there:
        whole(here, there)
        for host, writer, reader in ((new, here, there), (old, there, here)):
            fill(reader, "old")
            host.kill()
            writer(f"cache.delete_many({KEYS})")
            host.start()
            until(lambda r=reader: r(f"cache.get_many({KEYS})") == {}, f"{new.log}\n{old.log}")


@pytest.mark.parametrize("mixed", ["secret"], indirect=True)
def test_a_host_that_was_lapped_by_one_of_the_other_release_is_sent_a_map(
    mixed: tuple[Host, Host], before: Path
) -> None:
    new, old = mixed
    new.start(), old.start()
    with worker(new) as here, worker(old, before) as there:
        whole(here, there)
        for host, writer, reader in ((old, here, there), (new, there, here)):
            fill(reader, "old")
            host.kill()
            writer(f"cache.delete_many({KEYS[:50]})")
            writer(LAP)
            host.start()
            until(lambda r=reader: r(f"cache.get_many({KEYS[:50]})") == {}, f"{new.log}\n{old.log}")
            assert reader(f"len(cache.get_many({KEYS[50:]}))") > 50
