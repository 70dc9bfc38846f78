"""A small /dev/shm, logind that removes, no message queues, clocks that were set: made for real, and
named."""

import time

import pytest

import cachee_shm
from tests.bridge.hosts import hosts, until
from tests.cachee_shm.cli.doctor.conftest import apart

SMALL = "mount -t tmpfs -o size=8m,mode=1777 tmpfs /dev/shm"


@pytest.mark.needs("mount namespaces")
def test_a_small_shared_memory_is_named_and_the_command_that_it_names_mends_it(host):
    host.write("2MiB", '[namespaces.shop]\nmemory = "64MiB"\n')
    (found,) = apart(host.path, SMALL, "shared memory")
    assert found["level"] == "problem"
    assert "/dev/shm has 8.0 MiB left, and segments that are not made yet need 64 MiB (shop)" in found["what"]
    command = found["mend"].partition(" (")[0]
    assert command == "mount -o remount,size=1G /dev/shm"
    assert apart(host.path, f"{SMALL}\n{command}", "shared memory") == []


@pytest.mark.needs("mount namespaces")
def test_a_shared_memory_that_not_everybody_may_write_is_named_and_mended(host):
    (found,) = apart(host.path, f"{SMALL}\nchmod 755 /dev/shm", "shared memory")
    assert "has mode 0755, not 1777" in found["what"]
    assert apart(host.path, f"{SMALL}\nchmod 755 /dev/shm\n{found['mend']}", "shared memory") == []


LOGIND = """\
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/logind.conf.d
truncate -s 2M /dev/shm/cachee.{host}.shop.{layout}
chown {uid} /dev/shm/cachee.{host}.shop.{layout}
printf '[Login]\\nRemoveIPC={said}\\n' > /run/systemd/logind.conf.d/zz.conf
"""


@pytest.mark.needs("mount namespaces")
@pytest.mark.parametrize(
    ("uid", "said", "present", "named"),
    [
        (12345, "yes", True, True),
        (12345, "no", True, False),
        (33, "yes", True, False),
        (12345, "yes", False, False),
    ],
)
def test_logind_removes_what_ordinary_users_have(host, uid, said, present, named):
    layout = cachee_shm._core.LAYOUT
    script = LOGIND.format(host=host.name, layout=layout, uid=uid, said=said)
    found = apart(
        host.path, script + ("mkdir /run/systemd/seats" if present else "true"), "removal by logind"
    )
    assert [each["level"] for each in found] == (["problem"] if named else [])
    assert all("RemoveIPC=no" in each["mend"] for each in found)


NO_QUEUES = "import resource; resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))"


@pytest.mark.needs("message queues")
def test_a_bridge_that_may_have_no_message_queue_is_named(tmp_path, doctor):
    with hosts(tmp_path, 1) as (host,):
        host.start(NO_QUEUES)
        (found,) = doctor(host.config, "message queues")
        assert "the bridge has no doorbell" in found["what"]
        assert "LimitMSGQUEUE=infinity" in found["mend"]


@pytest.mark.needs("message queues", "IPC namespaces")
def test_a_doorbell_that_workers_cannot_see_is_named(tmp_path, doctor):
    with hosts(tmp_path, 1) as (host,):
        host.start()
        assert doctor(host.config, "message queues") == []
        (found,) = apart(host.config, "true", "message queues", unshare="--ipc")
        assert f"/cachee.{host.name}, the bridge's doorbell, is not visible from here" in found["what"]


HOUR_NS = 3600 * 10**9


def problems(found):
    return [each for each in found if each["level"] == "problem"]


def test_a_segment_from_the_future_shows_that_the_clock_was_set_back(tmp_path, doctor):
    with hosts(tmp_path, 1) as (host,):
        cache = host.attach()
        assert problems(doctor(host.config, "clocks")) == []
        assert cache.bridge_acquire()
        cache.raise_incarnation(time.time_ns() + HOUR_NS)
        (found,) = problems(doctor(host.config, "clocks"))
        assert f"segment {cache.name} was made 60 min from now" in found["what"]


def test_a_peer_whose_clock_is_ahead_is_named(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        ahead = second.attach()
        assert ahead.bridge_acquire()
        ahead.raise_incarnation(time.time_ns() + HOUR_NS)
        second.detach()
        first.start()
        second.start()
        cache = first.attach()
        until(lambda: cache.serve_until > cache.now_ms())
        (found,) = problems(doctor(first.config, "clocks"))
        assert f"the clock of {second.name} is ahead of this host's by 60 min" in found["what"]
        assert f"run `timedatectl` on {second.name}" in found["mend"]
