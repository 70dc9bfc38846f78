"""Does what bridge/OPERATING.md tells operators to do, in its order, on a machine under a real systemd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.booted import Booted, booted

FOLDER = Path(__file__).resolve().parents[2] / "bridge"
TEXT = (FOLDER / "OPERATING.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Booted]:
    """web-1, with the package installed. web-2 is a machine on which nobody has installed it."""
    with booted(tmp_path) as machine:
        machine.run("hostname", "web-1")
        machine.write("/etc/hosts", "127.0.0.1 localhost\n127.0.0.1 web-1\n10.0.0.2 web-2\n")
        machine.run("mkdir", "-p", "/opt/shop/.venv/share", "/etc/sysusers.d", "/etc/tmpfiles.d")
        machine.run("ln", "-s", "/opt/cachee/bridge", "/opt/shop/.venv/share/cachee")
        yield machine


@pytest.mark.needs("systemd", "systemd as process 1", "curl")
def test_every_command_of_the_guide_does_what_it_says(host: Booted) -> None:
    assert len(BLOCKS) >= 8
    for commands in BLOCKS:
        try:
            host.run("sh", "-euxc", commands)
        except AssertionError as error:
            journal = host.run("journalctl", "--no-pager", "--lines", "40")
            raise AssertionError(f"{commands}\n{error}\n{journal}") from None
    said = host.run("journalctl", "-u", "cachee-bridge", "--no-pager")
    assert "Address family not supported" not in said
    for told in (
        "web-2:7946 cannot be reached",
        "isolation_ttl",
        "the operator forgets 'web-2:7946'",
        "left for good",
    ):
        assert told in said


def test_every_alert_is_explained_and_no_other() -> None:
    rules = (FOLDER / "grafana" / "alerts.yml").read_text()
    named = re.findall(r"^ +- alert: (\w+)$", rules, re.M)
    assert named and re.findall(r"^\| `(Cachee\w+)` \|", TEXT, re.M) == named


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", TEXT))))
def test_what_it_links_to_is_there(path: str) -> None:
    assert (FOLDER / path).exists()


def test_the_headings_that_it_links_to_are_there() -> None:
    readme = (FOLDER / "README.md").read_text()
    headings = re.findall(r"^#+ (.*)$", readme, re.M)
    there = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"README\.md#([\w-]+)\)", TEXT)) - there == set()
