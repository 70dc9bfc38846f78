"""Tasks of Celery whose results are cached, in a real worker that forks, over a real broker."""

import contextlib
import os
import subprocess
import sys
import textwrap
import uuid

import pytest

pytestmark = pytest.mark.needs("frameworks")

TASKS = """
import os
from celery import Celery
from cachee_shm.celery import cached_task

FOLDER = {folder!r}
app = Celery("tasks", broker="filesystem://", backend="file://" + FOLDER + "/results")
app.conf.broker_transport_options = {{
    "data_folder_in": FOLDER + "/queue",
    "data_folder_out": FOLDER + "/queue",
    "control_folder": FOLDER + "/control",
}}
CONFIG = {{"host": {{"name": {host!r}}}, "namespaces": {{"test": {{"memory": "4MiB"}}}}}}

@cached_task(app, ttl=60, key="report:{{year}}", namespace={namespace!r}, config=CONFIG, name="report")
def report(year):
    with open(FOLDER + "/runs", "a") as runs:
        runs.write("%s %s\\n" % (year, os.getpid()))
    return {{"year": year, "pid": os.getpid()}}

@app.task(name="pid")
def pid():
    return os.getpid()
"""


@contextlib.contextmanager
def worker(folder, namespace="test"):
    """The tasks' module, and a worker with two forked processes."""
    host = f"celery-{uuid.uuid4().hex[:8]}"
    for name in ("queue", "results", "control"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "tasks.py").write_text(
        textwrap.dedent(TASKS).format(folder=str(folder), host=host, namespace=namespace)
    )
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=2"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.getcwd()}"}
    process = subprocess.Popen([*command, *quiet], cwd=folder, env=environment, stderr=subprocess.PIPE)
    try:
        yield environment
    finally:
        process.terminate()
        process.communicate(timeout=60)
        for name in os.listdir("/dev/shm"):
            if name.startswith(f"cachee.{host}."):
                os.unlink(f"/dev/shm/{name}")


def ask(folder, environment, program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_task_runs_once_for_all_forked_workers_of_a_host(tmp_path):
    with worker(tmp_path) as environment:
        ask(
            tmp_path,
            environment,
            """
            import tasks
            first = tasks.report.delay(2026).get(timeout=60)
            results = [tasks.report.delay(2026) for _ in range(10)]
            assert all(result.get(timeout=60) == first for result in results)
            assert tasks.report(2026) == first              # called in this process: it shares the segment
            assert tasks.report.invalidate(2026)
            assert tasks.report.delay(2026).get(timeout=60)["year"] == 2026
            assert first["pid"] != __import__("os").getpid()
            """,
        )
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


def test_no_task_fails_without_a_cache(tmp_path):
    with worker(tmp_path, namespace="elsewhere") as environment:
        ask(
            tmp_path,
            environment,
            """
            import tasks
            for _ in range(2):
                assert tasks.report.delay(2026).get(timeout=60)["year"] == 2026
            assert not tasks.report.invalidate(2026)
            """,
        )
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


def test_a_task_that_is_bound_is_refused():
    from celery import Celery

    from cachee_shm.celery import cached_task

    with pytest.raises(TypeError, match="bind=True"):
        cached_task(Celery("tasks"), bind=True)


def test_nothing_is_attached_before_a_task_runs(monkeypatch):
    from celery import Celery

    from cachee_shm import backing
    from cachee_shm.celery import cached_task

    monkeypatch.setattr(backing, "spec_for", lambda *_, **__: pytest.fail("attached too early"))

    @cached_task(Celery("tasks"), key="a:{x}")
    def task(x):
        return x

    assert task.name.endswith("task")
