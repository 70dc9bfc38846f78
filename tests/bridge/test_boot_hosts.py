"""Real hosts: one boots, and its peers do not know what it wrote before."""

import glob
import os

import pytest

from tests.bridge.hosts import hosts, until
from tests.bridge.test_two_bridges import fill, isolated, meet


@pytest.mark.parametrize("boots", [False, True])
def test_what_a_host_lacks_after_a_boot_is_evicted_and_after_a_restart_of_its_bridge_is_not(tmp_path, boots):
    with hosts(tmp_path) as (a, b):
        meet(a, b)
        jobs = a.attach("jobs")
        until(lambda: not isolated(jobs), "jobs to be served")
        fill(jobs, ["key"])
        b.kill()
        if boots:
            b.detach()
            for path in glob.glob(f"/dev/shm/cachee.{b.name}.*"):
                os.unlink(path)
        b.start()
        shop = a.attach()
        shop.set("written before it is deleted there", b"")
        until(lambda: a.log.count(f"{b.name} is up") >= 2, "a link to the host again")
        b.attach().delete("written before it is deleted there")
        until(lambda: "written before it is deleted there" not in shop, "what it says after the handshake")
        assert ("key" in jobs) == (not boots)
        said = f"{b.name} does not have namespace jobs, and may have had it before"
        until(lambda: (said in a.log) == boots, "the log to say so")


def test_a_file_that_cannot_be_trusted_is_said_and_keeps_no_bridge_from_working(tmp_path):
    with hosts(tmp_path) as (a, b):
        path = f"/dev/shm/cachee.{a.name}.boot"
        with open(path, "w") as file:
            file.write("whatever")
        meet(a, b)
        assert f"{path} does not hold 8 hexadecimal digits; it was not touched" in a.log
        assert "peers take this start for a boot of the host" in a.log
