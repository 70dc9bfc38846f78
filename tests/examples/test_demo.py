"""`cachee demo` as it is run: what it finds, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cachee_shm.cli.demo import main
from cachee_shm.cli.demo.hosts import shop_folder
from cachee_shm.config import tomllib
from cachee_shm.ports import free_ports
from tests.examples.running import left_of, processes_of

END_S = 200.0
COMMAND = [sys.executable, "-c", "import sys; from cachee_shm.cli.main import main; sys.exit(main())", "demo"]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A whole demo, its folder kept inside of this one."""
    return subprocess.run(
        [*COMMAND, *arguments, "--keep-logs"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=END_S,
    )


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that has got as far as its customers."""
    with subprocess.Popen(
        [*COMMAND, "--seconds", "60", *arguments],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any("customers read and write" in line for line in lines), process.stderr
            yield process
        finally:
            process.kill()


def names_of(folder: Path) -> list[str]:
    """The hosts' names of the demo whose folder is inside of this one."""
    configs = list(folder.glob("cachee-demo-*/demo-?.toml"))
    assert len(configs) == 2
    return [tomllib.loads(config.read_text())["host"]["name"] for config in configs]


def number(output: str, name: str) -> float:
    found = re.search(rf"^  {name} +([\d,.]+)", output, re.MULTILINE)
    assert found, output
    return float(found[1].replace(",", ""))


def test_the_demo_shows_no_stale_read_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demo(tmp_path, "--seconds", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert number(done.stdout, "stale reads") == 0
    for name in ("requests", "rows read", "rows written", "invalidations", "hit ratio"):
        assert number(done.stdout, name) > 0
    assert "Stale reads: 0" in done.stdout
    assert number(done.stdout, "propagation p50 / p99") > 0
    cold = r"^  cold reads +[\d.]+%, without loading ahead [\d.]+%   [\d,]+ rows loaded ahead"
    assert re.search(cold, done.stdout, re.MULTILINE), done.stdout
    assert left_of(tmp_path, names_of(tmp_path)) == []


def test_a_cut_shows_stale_reads_that_end_where_they_must(tmp_path: Path) -> None:
    for _ in range(3):  # on a machine that is busy, few customers come, and none may read a stale row
        done = demo(tmp_path, "--seconds", "8", "--cut")
        if "the checker has proved nothing" not in done.stdout:
            break
        shutil.rmtree(next(tmp_path.glob("cachee-demo-*")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert number(done.stdout, "stale reads") > 0
    assert "This was the cut" in done.stdout and "FAULT" not in done.stdout
    assert "the bound is lost_after + isolation_ttl = 4 s" in " ".join(done.stdout.split())
    assert left_of(tmp_path, names_of(tmp_path)) == []


def test_a_cut_ends_though_the_demo_had_no_processor_until_its_customers_had_left(tmp_path: Path) -> None:
    with running(tmp_path, "--seconds", "4", "--cut") as process:
        assert process.stdout is not None
        assert any("both bridges are stopped" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        said, wrong = process.communicate(timeout=END_S)
    assert "the bridges go on" in said
    assert "did not agree" not in wrong


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_interrupted_takes_everything_away(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with running(tmp_path) as process:
        names = names_of(tmp_path)
        process.send_signal(number)
        assert process.wait(END_S) == code
    assert left_of(tmp_path, names) == []
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_interrupted_during_the_cut_takes_stopped_bridges_away(tmp_path: Path) -> None:
    with running(tmp_path, "--cut", "--seconds", "20") as process:
        names = names_of(tmp_path)
        assert process.stdout is not None
        assert any("both bridges are stopped" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 130
    assert left_of(tmp_path, names) == []


def test_a_demo_that_is_killed_leaves_nothing_behind_either(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        names = names_of(tmp_path)
        assert processes_of(tmp_path)
        process.kill()
        process.wait(END_S)
    assert left_of(tmp_path, names) == []
    deadline = time.monotonic() + END_S
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_bridge_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    (base,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base))
        taken.listen()
        done = demo(tmp_path, "--seconds", "4", "--port-base", str(base))
    assert done.returncode == 1
    assert "demo-a-bridge ended with code" in done.stderr
    assert str(base) in done.stderr
    assert left_of(tmp_path, names_of(tmp_path)) == []


def test_two_demos_may_run_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with running(first, "--workers", "1") as one, running(second, "--workers", "1") as other:
        assert not set(names_of(first)) & set(names_of(second))
        names = names_of(first) + names_of(second)
        one.send_signal(signal.SIGINT)
        other.send_signal(signal.SIGINT)
        assert (one.wait(END_S), other.wait(END_S)) == (130, 130)
    assert left_of(tmp_path, names) == []


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cachee_shm.cli.demo.NEEDED", ("httpx", "no_such_module"))
    assert main([]) == 2
    assert capsys.readouterr().err.endswith("needs no_such_module: pip install 'cachee-shm[demo]'\n")


@pytest.mark.parametrize(
    "arguments",
    [["--seconds", "0"], ["--seconds", "nan"], ["--seconds", "x"], ["extra"], ["--cut", "--seconds", "3"]],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2


def test_the_shop_is_found() -> None:
    assert {path.name for path in shop_folder().iterdir()} >= {"app.py", "database.py", "gunicorn.conf.py"}
