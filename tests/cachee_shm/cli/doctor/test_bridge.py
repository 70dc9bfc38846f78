"""A bridge that is dead, hung, displaced, unreachable or of another release."""

import re
import signal

import pytest

import cachee_shm
from tests.bridge.hosts import hosts, until
from tests.cachee_shm.cli.doctor.conftest import of_check


@pytest.fixture
def alone(tmp_path):
    with hosts(tmp_path, 1) as (host,):
        yield host


def test_a_bridge_that_runs_is_nothing_to_find(alone, doctor):
    alone.start()
    for check in (
        "bridge",
        "own address",
        "releases",
        "peers",
        "isolation",
        "refused links",
        "message queues",
    ):
        until(lambda check=check: doctor(alone.config, check) == [], check)


def test_a_bridge_that_is_dead_is_named_with_the_command_that_starts_it(alone, doctor):
    alone.start()
    alone.kill()
    (found,) = doctor(alone.config, "bridge")
    assert found["what"] == f"no bridge runs for host {alone.name}"
    assert found["mend"].endswith(f"cachee-bridge --config {alone.config}")


def test_a_bridge_that_hangs_is_told_from_one_that_is_dead(alone, doctor):
    alone.start()
    alone.signal(signal.SIGSTOP)
    (found,) = doctor(alone.config, "bridge")
    assert "does not answer" in found["what"]
    assert found["mend"].startswith("systemctl restart cachee-bridge")
    alone.signal(signal.SIGCONT)


def test_two_bridges_for_one_address_are_named(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        second.start()
        first.config.write_text(first.config.read_text().replace(f":{first.port}", f":{second.port}"))
        assert first.run().wait(60) != 0
        (found,) = doctor(first.config, "bridge")
        assert f"another process listens on its address 127.0.0.1:{second.port}: " in found["what"]
        assert str(second.process.pid) in found["what"]


def test_an_own_address_where_the_bridge_does_not_listen_is_named(alone, doctor):
    peers = f'peers = ["127.0.0.1:{alone.port}", "127.0.0.2:{alone.port}"]'
    alone.config.write_text(re.sub("peers = .*", peers, alone.config.read_text()))
    alone.start()
    (found,) = doctor(alone.config, "own address")
    assert f"own address 127.0.0.2:{alone.port} (127.0.0.2) cannot be reached" in found["what"]
    assert f'let it listen on ":{alone.port}"' in found["mend"]


def test_a_bridge_of_another_release_is_named(alone, doctor):
    alone.start("import cachee_shm; cachee_shm.__version__ = '0.0.9'")
    (found,) = doctor(alone.config, "releases")
    assert found["what"] == (
        f"the bridge is of release 0.0.9, and what is installed here is {cachee_shm.__version__}"
    )


def test_a_bridge_that_this_user_may_not_ask_is_unknown_and_not_well(alone, doctor, monkeypatch, capsys):
    """Of a stranger's socket: as root, no socket is out of reach."""
    from cachee_shm import asking
    from cachee_shm.cli.main import main
    from cachee_shm.errors import AccessDenied

    def denied(*_):
        raise AccessDenied("/dev/shm/cachee.x.sock may not be opened by user 65534")

    alone.start()
    monkeypatch.setattr(asking, "check_owner", denied)
    code = main(["doctor", "--json", "--config", str(alone.config)])
    assert code == 3
    (found,) = of_check(code, capsys.readouterr().out, "bridge")
    assert found["level"] == "unknown"
