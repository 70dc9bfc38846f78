"""A new operator's first day: three machines under systemd, the built wheel, and bridge/OPERATING.md.

A partition is made, found with `cachee doctor`, seen on the dashboard and in an alert of a real Prometheus,
explained with `cachee explain`, and ended. CACHEE_PICTURES=FOLDER keeps pictures of the dashboard.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.namespaces import Place, network
from tests.bridge.booted import Booted, booted
from tests.bridge.hosts import until
from tests.bridge.test_dashboard import Dashboard
from tests.bridge.test_grafana import RULES
from tests.bridge.test_operating import TEXT
from tests.chromium import Chromium

pytestmark = pytest.mark.needs(
    "systemd", "systemd as process 1", "network namespaces", "Prometheus", "Chromium", "curl"
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("web-1", "web-2", "web-3")
SHELL = (
    "env",
    "PATH=/opt/python/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/opt/shop/wheels",
)
WATCHED = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [alerts.yml]
scrape_configs:
  - {job_name: cachee, static_configs: [{targets: ["web-1:9946", "web-2:9946", "web-3:9946"]}]}
"""


def blocks(heading: str, language: str = "sh") -> list[str]:
    """The commands of a section of the guide."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def wheels(folder: Path) -> None:
    """A wheel of this checkout, and of all that it needs: what pip finds on machines without a network."""
    found = folder / "wheels"
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={found}"]
    build.append(f"-Cbuild-dir={ROOT / 'build' / 'wheel'}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, env={**os.environ, "PATH": path})
    subprocess.run(
        [*pip, "download", "--quiet", f"--find-links={found}", f"--dest={found}", "cachee-shm"],
        check=True,
        capture_output=True,
    )


class Machines:
    """Three of them, which a switch links."""

    def __init__(self, places: list[Place], machines: list[Booted]) -> None:
        self.places = places
        self.one, self.two, self.three = self.all = machines

    def do(self, machine: Booted, commands: str) -> str:
        try:
            return machine.run(*SHELL, "sh", "-euc", commands)
        except AssertionError as error:
            journal = machine.run("journalctl", "--no-pager", "--lines", "40", check=False)
            raise AssertionError(f"{commands}\n{error}\n{journal}") from None

    def everywhere(self, *blocks: str) -> None:
        for machine in self.all:
            for commands in blocks:
                self.do(machine, commands)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    shop = tmp_path / "shop"
    shop.mkdir()
    wheels(shop)
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(network(NAMES))
        made = []
        for name, place in zip(NAMES, places, strict=True):
            (tmp_path / name).mkdir()
            machine = stack.enter_context(booted(tmp_path / name, place, shop))
            machine.run("hostname", name)
            known = [f"{at.address} {host}\n" for at, host in zip(places, NAMES, strict=True)]
            machine.write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(known))
            # The Python of this test is the machine's.
            machine.write("/etc/ld.so.conf.d/python.conf", "/opt/python/lib\n")
            for command in (
                "rm /usr/bin/cachee /usr/bin/cachee-bridge; ldconfig",
                "mkdir -p /etc/sysusers.d /etc/tmpfiles.d",
            ):
                machine.run("sh", "-c", command)
            made.append(machine)
        yield Machines(places, made)


def installed(machines: Machines) -> None:
    """Section "Install", as the guide has it."""
    (install,) = blocks("Install", "console")
    unit, configure, start = blocks("Install")
    *made, links = install.strip().splitlines()
    machines.do(machines.one, "\n".join(made))  # they share /opt/shop
    machines.everywhere(links, unit)
    everyone = ",".join(f"{name}:7946" for name in NAMES)
    machines.do(machines.one, re.sub(r"--peers \S+", f"--peers {everyone}", configure))
    folder = machines.one.run("sh", "-c", "tar -C /etc -cz cachee | base64")
    for machine in (machines.two, machines.three):
        machine.write("/tmp/cachee", folder)
        machines.do(machine, "base64 -d /tmp/cachee | tar -C /etc -xz")
        machines.do(machine, "\n".join(configure.strip().splitlines()[1:]))
    machines.everywhere(start)


def prometheus(machines: Machines, tmp_path: Path) -> subprocess.Popen[str]:
    """On web-1, with the rules that came with the package; only their patience is shortened."""
    rules = machines.do(machines.one, "cat /opt/shop/.venv/share/cachee/grafana/alerts.yml")
    assert rules == RULES.read_text()
    machines.one.write("/tmp/alerts.yml", re.sub(r"^( +for:) .*$", r"\1 1s", rules, flags=re.M))
    machines.one.write("/tmp/prometheus.yml", WATCHED)
    command = ("--config.file=/tmp/prometheus.yml", "--storage.tsdb.path=/tmp/data", "--log.level=error")
    return machines.one.start("prometheus", *command)


def alerts(machine: Booted) -> set[tuple[str, str]]:
    """Those that fire: name, and the source or instance that each is about."""
    answer = json.loads(machine.run("curl", "--silent", "http://127.0.0.1:9090/api/v1/alerts"))
    return {
        (each["labels"]["alertname"], each["labels"].get("source") or each["labels"]["instance"])
        for each in answer["data"]["alerts"]
        if each["state"] == "firing"
    }


@pytest.mark.timeout(600)  # an environment is made, and three machines boot: minutes on a busy machine
def test_a_partition_is_made_found_seen_explained_and_ended(machines: Machines, tmp_path: Path) -> None:
    installed(machines)
    looks, explains, shows = blocks("Is it healthy?")[:3]
    machines.everywhere(looks, shows.replace('127.0.0.1:9946"', ':9946"'))
    one, two, three = machines.all
    for name in NAMES:
        machines.do(one, f"curl --silent --fail http://{name}:9946/readyz")
    machines.do(one, explains)

    def says(machine: Booted, *words: str) -> str:
        return machine.run(*SHELL, *words, check=False)

    with contextlib.ExitStack() as stack:
        stack.callback(prometheus(machines, tmp_path).kill)
        with machines.places[0].inside():
            browser = stack.enter_context(Chromium(tmp_path))
        browser.enable("Runtime", "Log")
        page = Dashboard(browser)
        page.open("http://127.0.0.1:9947/")
        page.until("#verdict", "All is well")
        assert "problem:" not in says(one, "cachee", "doctor")
        machines.do(three, "cachee set price 1")
        machines.do(one, "cachee explain --watch 600 price")

        with machines.places[2].unplugged():
            until(lambda: "it waits for web-3" in says(one, "cachee", "doctor"), "doctor to find it")
            lost = "web-3 (web-3:7946) is not linked"
            until(lambda: lost in says(one, "cachee", "doctor"), "doctor to say that the link is lost")
            assert "cachee peers forget web-3" in says(one, "cachee", "doctor")
            until(
                lambda: "it waits for web-1" in says(three, "cachee", "doctor"), "doctor to find it on web-3"
            )
            page.until("#verdict", "default is isolated from web-3")
            page.until("#troubles", "ends when web-3 is linked again, or by cachee peers forget web-3")
            page.keep("operator-partition")
            until(lambda: ("CacheeIsolated", "web-3") in alerts(one), "the alert")

            machines.do(one, "cachee set price 2")  # web-3 cannot hear of it
            assert machines.do(three, "cachee get price") == "1\n"
            told = says(one, "cachee", "explain", "price")
            assert re.search(r"web-1 +written", told) and re.search(r"web-2 +received of web-1", told)
            assert "nothing was heard of web-3: it is not linked" in told

        page.until("#verdict", "All is well")
        until(lambda: "problem:" not in says(one, "cachee", "doctor"), "doctor to find nothing")
        until(lambda: ("CacheeIsolated", "web-3") not in alerts(one), "the alert to end")
        assert says(three, "cachee", "get", "price") != "1\n"
        told = machines.do(two, "cachee explain --why-stale price")
        assert re.search(r"served by: cachee \(pid \d+, cachee\) on web-3", told), told
        assert "held by: the segment of web-3" in told
        assert re.search(r"for how long: .*written by cachee .* on web-1 .* until it was received", told)
