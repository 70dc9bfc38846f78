"""The snippets of cachee_shm/cli/README.md, in one shell, on a host whose bridge runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cachee_shm.cli.completion import commands
from cachee_shm.cli.doctor import CHECKS
from tests.bridge.hosts import hosts, until

README = Path(__file__).parents[3] / "cachee_shm" / "cli" / "README.md"


@pytest.fixture
def shell(tmp_path):
    """`cachee` and `cachee-bridge` as a shell finds them, and the configuration of a host that is well."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("cachee", "cachee_shm.cli"), ("cachee-bridge", "cachee_bridge")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    with hosts(tmp_path, 1) as (host,):
        host.config.write_text(host.config.read_text().replace("[defaults]\nmemory", "[defaults]\n#"))
        text = re.sub(
            r"\[defaults\][^[]*\[namespaces.shop\]",
            '[namespaces.shop]\nmemory = "4MiB"',
            host.config.read_text(),
        )
        host.config.write_text(text)
        host.start()
        cache = host.attach()
        until(lambda: cache.serve_until > cache.now_ms())
        for key in ("user:42", "user:43"):
            cache.set(key, 1, tags=["team:7"])
        path = f"{programs}:{os.environ['PATH']}"
        yield {**os.environ, "PATH": path, "CACHEE_CONFIG": str(host.config)}, cache, tmp_path


def test_each_snippet_does_what_is_said(shell):
    environ, cache, folder = shell
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL):
        for line in block.splitlines():
            done = subprocess.run(
                ["bash", "-c", line], env=environ, cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            assert max((len(each) for each in done.stdout.splitlines() if "{" not in each), default=0) <= 160
    assert cache.get_many(["user:42", "user:43"]) == {}
    assert cache.get("banner") == "back at 9"


def test_every_check_of_doctor_is_in_its_table():
    rows = re.findall(r"^\| ([a-z ,]+) \|", README.read_text(), re.MULTILINE)
    listed = {name.strip() for row in rows for name in row.split(",")}
    assert set(CHECKS) <= listed


def test_every_command_is_named_in_the_readme():
    text = README.read_text()
    ends = {each.path for each in commands() if not each.path.endswith(("cachee", "segment", "tags"))}
    others = {"cachee demo", "cachee completion", "cachee explain", "cachee segment rm"}
    assert {path for path in ends - others if f"{path} " not in text and f"{path}\n" not in text} == set()
