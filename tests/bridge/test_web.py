"""The HTTP listeners of real bridge processes: who answers what, and what is refused before the start."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cachee_bridge.http import health
from cachee_bridge.http.addresses import check
from cachee_bridge.http.health import Health
from cachee_bridge.http.messages import Request
from cachee_shm.config import Config
from cachee_shm.errors import ConfigError, ListenRefused
from cachee_shm.ports import free_ports
from tests.bridge.hosts import Host, hosts, until

ASKED = Request("GET", "/")


def get(port: int, path: str, host: str = "localhost") -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", path, headers={"Host": host})
    answer = client.getresponse()
    body = answer.read().decode()
    client.close()
    return answer.status, body


def values(port: int, name: str) -> dict[str, float]:
    """By the values of the labels, with spaces between them."""
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    return {
        " ".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_a_scrape_tells_of_all_workers_and_peers_and_the_probes_of_the_bridge(tmp_path: Path) -> None:
    port = free_ports(3)[2]
    with hosts(tmp_path, 2) as (a, b):
        a.config.write_text(a.config.read_text() + f'metrics = "127.0.0.1:{port}"\n')
        a.start()
        assert get(port, "/healthz") == (200, "ok\n")
        status, why = get(port, "/readyz")
        assert status == 503 and f"127.0.0.1:{b.port}" in why
        b.start()
        until(lambda: get(port, "/readyz") == (200, "ready\n"))
        first, second = a.attach(), a.attach()
        first.set("k", 1)
        assert second.get("k") == 1
        b.attach().set("k", 2)
        until(lambda: second.get("k") is None)
        until(lambda: values(port, "cachee_commands_total")["shop get miss"] > 0)
        assert values(port, "cachee_commands_total")["shop set stored"] == 1
        assert values(port, "cachee_workers") == {"shop": 2}
        assert values(port, "cachee_peer_up") == {b.name: 1}
        assert values(port, "cachee_isolated_namespace") == {"shop": 0}
        assert get(port, "/api/mesh")[0] == get(port, "/")[0] == 404
        assert get(port, "/metrics", "evil.example")[0] == 421
        a.detach()
        until(lambda: values(port, "cachee_workers") == {"shop": 0})
        assert values(port, "cachee_commands_total")["shop set stored"] == 1
        b.kill()
        until(lambda: values(port, "cachee_isolated") == {f"shop {b.name}": 1})
        assert values(port, "cachee_peer_up") == {b.name: 0}
        assert get(port, "/readyz")[0] == 200


def test_a_bridge_that_was_told_to_stop_is_not_ready_and_answers_until_its_end(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with hosts(tmp_path, 1, f'drain = "1h"\nmetrics = "127.0.0.1:{port}"') as (a,):
        a.attach()
        a.start()
        until(lambda: get(port, "/readyz") == (200, "ready\n"))  # it has to find that its one peer is itself
        a.signal(signal.SIGTERM)
        until(lambda: get(port, "/readyz") == (503, "stopping\n"))
        assert get(port, "/healthz")[0] == 200
        a.detach()
        assert a.process is not None and a.process.wait(60) == 0
        with pytest.raises(OSError):
            get(port, "/healthz")


def test_an_address_that_is_taken_costs_the_listener_alone_until_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, hosts(tmp_path, 1) as (a,):
        port = taken.getsockname()[1]
        a.config.write_text(a.config.read_text() + f'metrics = "127.0.0.1:{port}"\n')
        a.start()
        until(lambda: "goes on without it and tries again" in a.log)
        assert a.log.count("goes on without it") == 1
        taken.close()
        until(lambda: f"metrics on http://127.0.0.1:{port}" in a.log)
        assert get(port, "/healthz") == (200, "ok\n")


def test_a_segment_that_is_replaced_is_told_of_and_the_listener_comes_back(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with hosts(tmp_path, 1, f'metrics = "127.0.0.1:{port}"') as (a,):
        a.start()
        cache = a.attach()
        cache.set("k", 1)
        until(lambda: values(port, "cachee_commands_total")["shop set stored"] == 1)
        (path,) = Path("/dev/shm").glob(f"cachee.{a.name}.shop.*")
        path.unlink()
        until(lambda: "attaching anew" in a.log)

        def is_anew() -> bool:
            try:
                return values(port, "cachee_commands_total")["shop set stored"] == 0
            except OSError:
                return False

        until(is_anew)


def test_without_a_listener_nothing_of_http_is_imported(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    before = (
        "import atexit, sys; atexit.register(lambda: print('h11' in sys.modules, "
        "'cachee_bridge.http.server' in sys.modules, file=sys.stderr))"
    )
    with hosts(tmp_path, 2, 'drain = "0s"') as (a, b):
        b.config.write_text(b.config.read_text() + f'metrics = "127.0.0.1:{port}"\n')
        for host, told in ((a, "False False"), (b, "True True")):
            host.start(before)
            host.stop()
            assert told in host.log


def checked(host: Host, tmp_path: Path, lines: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "checked.toml"
    config.write_text(host.config.read_text() + lines)
    command = [sys.executable, "-m", "cachee_bridge", "--config", str(config), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


def test_check_refuses_an_admin_that_the_network_reaches_and_a_token_file_that_others_read(
    tmp_path: Path,
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef shop\n")
    tokens.chmod(0o644)
    with hosts(tmp_path, 1) as (a,):
        beyond = checked(a, tmp_path, 'admin = ":9947"\n')
        assert beyond.returncode == 2
        assert "bridge.admin: ':9947' can be reached from the network" in beyond.stderr
        assert "[bridge.tls]" in beyond.stderr and "127.0.0.1:9947" in beyond.stderr
        opened = checked(a, tmp_path, f'admin = "127.0.0.1:9947"\nhttp_token_file = "{tokens}"\n')
        assert opened.returncode == 2
        assert f"chmod o= {tokens}" in opened.stderr and "0123456789abcdef" not in opened.stderr
        tokens.chmod(0o600)
        good = checked(a, tmp_path, f'admin = "127.0.0.1:9947"\nhttp_token_file = "{tokens}"\n')
        assert (good.returncode, good.stderr) == (0, "")


@pytest.mark.parametrize("admin", [":1", "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "no.such.host.invalid:1"])
def test_beyond_loopback_admin_wants_a_certificate(admin: str) -> None:
    with pytest.raises(ListenRefused, match=r"bridge\.admin.*nothing was started.*ssh -L 1:"):
        check(Config.parse({"defaults": {}, "bridge": {"admin": admin}}))
    tls = {"cert": "/c", "key": "/k", "ca": "/a"}
    assert check(Config.parse({"defaults": {}, "bridge": {"admin": admin, "tls": tls}})) is None


def test_on_loopback_admin_wants_none_and_metrics_wants_none_anywhere() -> None:
    bridge = {"admin": "[::1]:1", "metrics": ":2"}
    assert check(Config.parse({"defaults": {}, "bridge": bridge})) is None


def test_a_token_file_that_cannot_be_used_is_refused_before_the_start(tmp_path: Path) -> None:
    bridge = {"admin": "127.0.0.1:1", "http_token_file": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match="cannot be read"):
        check(Config.parse({"defaults": {}, "bridge": bridge}))


def test_a_bridge_whose_work_of_every_second_stands_still_is_not_healthy() -> None:
    now, unmet = [0.0], ["web-2", "a\udcffb", *map(str, range(20))]
    asked: Callable[[], list[str]] = lambda: unmet  # noqa: E731
    probe = Health(asked, lambda: 0.0, lambda: now[0])
    assert probe.live(ASKED).status == 200
    now[0] = health.CARE_LATE_S
    assert probe.live(ASKED).status == 200
    now[0] += health.CARE_LATE_S + 1
    assert probe.live(ASKED).status == 503
    answer = probe.ready(ASKED)
    assert answer.status == 503 and b"web-2, a?b" in answer.body and b"and 14 more" in answer.body
    unmet.clear()
    assert probe.ready(ASKED).body == b"ready\n"
    assert json.dumps(answer.body.decode())
