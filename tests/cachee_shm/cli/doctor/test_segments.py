"""Segments of old builds, sizes and names, and files that are none."""

import fcntl
import os

import pytest

import cachee_shm
from cachee_shm import _core
from cachee_shm.cli.existing import FLOCK
from cachee_shm.cli.main import main


@pytest.fixture
def shop(host):
    with cachee_shm.attach("shop") as attached:
        yield attached


def made(name, mode=0o600):
    fd = os.open(f"/dev/shm/{name}", os.O_RDWR | os.O_CREAT, mode)
    os.fchmod(fd, mode)
    os.ftruncate(fd, 2 << 20)
    return fd


def of_this_host(host, found):
    return [each for each in found if f"cachee.{host.name}." in each["what"]]


def test_a_healthy_segment_is_nothing_to_find(host, shop, doctor):
    assert of_this_host(host, doctor(host.path, "segments")) == []


def test_a_segment_of_an_older_build_that_nobody_uses_is_named_and_the_command_removes_it(host, doctor):
    os.close(made(f"cachee.{host.name}.shop.{_core.LAYOUT - 1}"))
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert (found["level"], "and nobody uses it" in found["what"]) == ("problem", True)
    assert main(found["mend"].split()[1:]) == 0
    assert of_this_host(host, doctor(host.path, "segments")) == []


def test_a_segment_of_an_older_build_in_use_is_an_upgrade_that_is_not_finished(host, doctor):
    fd = made(f"cachee.{host.name}.shop.{_core.LAYOUT - 1}")
    slot = _core.LOCK_BASE + _core.LOCK_SLOTS
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0))
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert (found["level"], found["mend"]) == ("note", "end the upgrade: restart the old workers")
    os.close(fd)


def test_a_segment_of_another_size_than_the_configured_one_is_named(host, shop, doctor):
    host.write("4MiB")
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert f"{shop.name} has 2.0 MiB, and the configuration says 4.0 MiB" in found["what"]
    assert "restart all workers" in found["mend"]
    assert shop.stats()["memory_bytes"] == 2 << 20


def test_a_segment_of_a_namespace_that_the_configuration_lost_is_named(host, shop, doctor):
    host.path.write_text(f'[host]\nname = "{host.name}"\n[namespaces.news]\nmemory = "2MiB"\n')
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert "is of a namespace that the configuration does not have" in found["what"]


def test_a_file_that_others_may_open_is_named(host, doctor):
    os.close(made(f"cachee.{host.name}.shop.{_core.LAYOUT}", 0o666))
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert "may be opened by others" in found["what"]
    assert found["mend"].startswith(f"cachee segment rm /cachee.{host.name}.shop.")


def test_a_damaged_segment_is_named(host, shop, doctor):
    shop.close()
    with open(f"/dev/shm{shop.name}", "r+b") as file:
        file.write(b"\xff" * 4096)
    (found,) = of_this_host(host, doctor(host.path, "segments"))
    assert found["level"] == "problem"


def test_segments_of_other_names_are_one_note(host, doctor):
    name = f"cachee.{host.name}-before.shop.{_core.LAYOUT}"
    os.close(made(name))
    notes = [each for each in doctor(host.path, "segments") if each["level"] == "note"]
    os.unlink(f"/dev/shm/{name}")
    (note,) = notes
    assert "segments of hosts with other names" in note["what"]
