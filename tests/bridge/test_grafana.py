"""The Grafana dashboard and the alert rules: each of their expressions is asked of a real Prometheus that
scrapes real bridges, and an alert is seen to reach a real Alertmanager, and to end. Grafana is not run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cachee_shm.ports import free_ports
from tests.bridge.certificates import Authority
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.test_fetched_hosts import LINES as FILLED
from tests.bridge.test_fetched_hosts import fills_from_peers
from tests.bridge.test_two_bridges import meet, tell

pytestmark = pytest.mark.needs("Prometheus", "message queues")

GRAFANA = Path(__file__).resolve().parents[2] / "bridge" / "grafana"
RULES = GRAFANA / "alerts.yml"
CASES = Path(__file__).with_name("alerts_cases.yml")
DASHBOARD = json.loads((GRAFANA / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
TARGETS = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
]
VARIABLES = {"$instance": ".*", "$namespace": ".*", "$__rate_interval": "4s", "$__range": "1m"}
SCRAPE_S = 1
"""Of the test: people scrape each 15 s."""
CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:%d"]}]}]}
scrape_configs: [{job_name: cachee, static_configs: [{targets: [%s]}]}]
"""
RECEIVERS = "route: {receiver: nobody, group_wait: 0s}\nreceivers: [{name: nobody}]\n"


class Watch:
    """Three linked bridges, a Prometheus that scrapes them, and an Alertmanager that it tells."""

    def __init__(self, mesh: list[Host], prometheus: str, alertmanager: str) -> None:
        self.mesh, self.prometheus, self.alertmanager = mesh, prometheus, alertmanager
        self._client = httpx.Client()
        self._caches = [host.attach() for host in mesh]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = self._client.get(f"{self.prometheus}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alerts(self) -> set[tuple[str, str]]:
        """What Alertmanager was told: names, and the host that it is about."""
        said = subprocess.check_output(
            ["amtool", f"--alertmanager.url={self.alertmanager}", "alert", "query", "--output=json"],
            text=True,
        )
        return {
            (each["labels"]["alertname"], each["labels"].get("source") or each["labels"].get("instance", ""))
            for each in json.loads(said)
        }

    def work(self) -> None:
        """Of each kind of command and load, something."""
        for cache in self._caches:
            cache.get_or_load("a", lambda: 1)
            cache.set("b", 2)
            cache.get("b"), cache.get("absent"), cache.delete("b")
        self._caches[0].delete("a")  # the others had it: their pre-warming knows it from now on


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("watch")
    authority = Authority(folder / "ca")
    with hosts(folder, number=3, bridge='check_every = "300ms"') as mesh, contextlib.ExitStack() as stack:
        *scraped, prometheus, alertmanager = free_ports(5)
        for host, port in zip(mesh, scraped, strict=True):
            fills_from_peers(host, authority.issue(host.name), f"{FILLED}prewarm = true\n")
            lines = f'[bridge]\nmetrics = "127.0.0.1:{port}"\n'
            host.config.write_text(host.config.read_text().replace("[bridge]\n", lines))
        meet(*mesh)
        rules = re.sub(r"^( +for:) .*$", r"\1 1s", RULES.read_text(), flags=re.M)
        (folder / "rules.yml").write_text(rules)
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in scraped)
        (folder / "prometheus.yml").write_text(CONFIG % (alertmanager, targets))
        (folder / "alertmanager.yml").write_text(RECEIVERS)
        for command in (
            [
                *("prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml"),
                *(f"--storage.path={folder}/told", f"--web.listen-address=127.0.0.1:{alertmanager}"),
                "--cluster.listen-address=",
            ],
            [
                *(
                    "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                ),
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ],
        ):
            stack.enter_context(running(command, folder))
        made = Watch(mesh, f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}")
        for url in (made.prometheus, made.alertmanager):
            until(lambda url=url: answers(f"{url}/-/ready"), f"{url} to be ready")
        yield made


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[None]:
    """Ended as a group with the block; what it says is in `folder`."""
    with open(folder / f"{Path(command[0]).name}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def compared(expression: str) -> str:
    """An alert's expression without its threshold: what it looks at."""
    looked_at, operator, _ = re.split(r"\s([<>]|==)\s(?=[^<>=]*$)", expression.strip())
    assert operator
    return looked_at


def test_every_expression_of_the_dashboard_and_the_rules_returns_data(watch: Watch) -> None:
    wanted = {f"panel {title}: {expression}": filled(expression) for title, expression in TARGETS}
    wanted |= {
        f"alert {rule['alert']}": re.sub(r"\[\d+m\](?: offset \d+m)?", "[10s]", compared(rule["expr"]))
        for rule in ALERTS
    }
    end = time.monotonic() + 60

    def silent() -> list[str]:
        tell(watch.mesh[0], watch.mesh[1])
        return [name for name, expression in wanted.items() if not asked(expression)]

    def asked(expression: str) -> bool:
        watch.work()  # each time: a rate looks back for seconds only
        return said(watch.ask(expression))

    while (left := silent()) and time.monotonic() < end:
        time.sleep(SCRAPE_S)
    assert left == []


def said(rows: list[dict[str, Any]]) -> bool:
    """Whether any row has a number: a division by nothing gives NaN."""
    return any(row["value"][1] != "NaN" for row in rows)


def test_a_partition_is_an_alert_that_is_told_and_ends(watch: Watch) -> None:
    *_, third = watch.mesh
    third.kill()
    until(lambda: ("CacheeIsolated", third.name) in watch.alerts(), "the alert of the partition")
    until(lambda: "CacheeBridgeDown" in {name for name, _ in watch.alerts()}, "the alert of the bridge")
    third.start()
    until(lambda: ("CacheeIsolated", third.name) not in watch.alerts(), "the alert to end")


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", "--lint=all", RULES], check=True, capture_output=True)


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    bare = [{name: rule[name] for name in rule.keys() - {"annotations"}} for rule in ALERTS]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "cachee", "rules": bare}]}))
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text())
    tests = yaml.safe_load(CASES.read_text())["tests"]
    tested = {case["alertname"] for test in tests for case in test["alert_rule_test"]}
    assert tested == {rule["alert"] for rule in ALERTS}
    done = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels if panel["type"] != "row")
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {
        "datasource",
        "instance",
        "namespace",
    }
    places = [(p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in panels]
    for i, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        for a, b, c, d in places[i + 1 :]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y, "two panels lie upon each other"
