"""What a process is called in the roster, and wherever it is named."""

import os
import subprocess
import sys

import pytest

import cachee_shm
from cachee_shm.cli.processes import attached
from cachee_shm.errors import ConfigError, LockTimeout
from cachee_shm.service import program_name
from tests.cachee_shm.processes import child, in_fork, until
from tests.cachee_shm.test_successor import file_of


def services(cache):
    return [service for *_, service, alive in cache.roster() if alive]


def test_a_process_is_called_as_it_said_wherever_it_is_named(config):
    with cachee_shm.attach(config=config, service="checkout") as cache:
        assert services(cache) == ["checkout"]
        assert "checkout" in next(attached(cache))
        with (
            cache.host.lock("a"),
            pytest.raises(LockTimeout, match=rf"process {os.getpid()} \(checkout\)"),
            cache.host.lock("a", wait=0),
        ):
            pass


def test_no_name_in_a_damaged_roster_and_no_command_moves_a_terminal(config):
    """Whoever may write the segment, or start a process, would write on the terminal of whoever looks."""
    escape = "\x1b[2J\n\x9b1m ä"
    program = "say('here'); wait()  # \x1b[2J\n"
    with child(program, config=config) as one, cachee_shm.attach(config=config, service="checkout") as cache:
        one.line()
        with open(file_of(config), "r+b") as file:
            file.seek(file.read(1 << 16).index(b"checkout"))
            file.write(escape.encode())
        assert "?[2J??1m ä" in services(cache)
        assert all(cell.isprintable() for each in attached(cache) for cell in each)
        with cache.host.lock("a"), pytest.raises(LockTimeout, match=r"\(\?\[2J\?\?1m ä\)"):
            cache.host.lock("a", wait=0).__enter__()


def test_the_environment_names_it_unless_the_caller_does(config, monkeypatch):
    monkeypatch.setenv("CACHEE_SERVICE", "from-outside")
    with cachee_shm.attach(config=config) as one, cachee_shm.attach(config=config, service="ünïcode") as two:
        assert services(two) == ["from-outside", "ünïcode"]
        assert services(one) == services(two)


@pytest.mark.parametrize("name", ["", "x" * 25, "ü" * 13, "a\nb", "a\x00b", 7, b"bytes"])
def test_a_name_that_cannot_be_shown_is_an_error_before_anything_is_attached(config, name):
    with pytest.raises(ConfigError, match=r"service: found .*1 to 24 bytes"):
        cachee_shm.attach(config=config, service=name)


def test_a_wrong_name_of_the_environment_says_where_it_is_from(config, monkeypatch):
    monkeypatch.setenv("CACHEE_SERVICE", "x" * 100)
    with pytest.raises(ConfigError, match=r"\$CACHEE_SERVICE: found"):
        cachee_shm.attach(config=config)


def test_forked_children_and_successors_keep_the_name_and_a_slots_heir_has_its_own(config):
    with cachee_shm.attach(config=config, service="parent") as cache:
        in_fork(lambda: services(cache) == ["parent", "parent"] or pytest.fail(str(cache.roster())))
        with child("say('here'); wait()", config=config) as other:
            assert other.line() == "here"
            assert services(cache) == ["parent", "python"]
        until(lambda: services(cache) == ["parent"])
        with cachee_shm.attach(config=config, service="heir"):
            assert services(cache) == ["parent", "heir"]
        cache.retire()
        cache.get("a")
        assert services(cache) == ["parent"]


@pytest.mark.parametrize(
    ("argv", "module", "name"),
    [
        (["/usr/bin/gunicorn", "shop:app"], None, "gunicorn"),
        (["/venv/lib/uvicorn/__main__.py", "shop:app"], "uvicorn.__main__", "uvicorn"),
        (["/venv/bin/celery", "-A", "shop", "worker"], None, "celery"),
        (["/usr/lib/http/server.py"], "http.server", "http.server"),
        (["manage.py", "runserver"], None, "manage.py"),
        (["tool/__main__.py"], "__main__", "tool"),
        (["-c"], None, "python"),
        ([""], None, "python"),
        ([], None, "python"),
    ],
)
def test_a_program_is_called_as_ps_would_call_it(argv, module, name):
    assert program_name(argv, module) == name


def test_a_module_that_is_run_is_called_by_its_name(tmp_path):
    (tmp_path / "a_job_with_quite_a_long_name.py").write_text(
        "import cachee_shm\nwith cachee_shm.attach(private=True) as c: print(c.roster()[0][4])\n"
    )
    command = [sys.executable, "-m", "a_job_with_quite_a_long_name"]
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "a_job_with_quite_a_long_\n", done.stderr
