"""`cachee warm`: a real process that loads ahead by an application's origins."""

import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import cachee_shm
from cachee_shm.cli import warm
from cachee_shm.cli.main import main
from tests.bridge.hosts import until

README = Path(__file__).parents[3] / "cachee_shm" / "cli" / "README.md"
PREWARM = "[namespaces.shop]\nprewarm = true\nprewarm_budget = 0.0\n"
APP = """
import os, time
import cachee_shm

def load(key):
    return [key, os.getpid()]

async def aload(key):
    return [key, os.getpid()]

def slowly(key):
    time.sleep({seconds})
    return [key, os.getpid()]

def make():
    cache = cachee_shm.attach("shop")
    cache.origin("user:", load=load)
    cache.origin("slow:", load=slowly)
    return cache

async def make_async():
    cache = cachee_shm.attach("shop")
    cache.origin("user:", load=aload)
    return [cache]
"""


class Shop:
    """The host's cache as a worker and a peer see it, and the processes that load ahead."""

    def __init__(self, host, folder):
        host.write("2MiB", PREWARM)
        self.folder = folder
        self.cache = cachee_shm.attach("shop")
        self.peer = self.cache.source_open("peer")
        self.processes = []
        (folder / "cachee").write_text(  # as pip makes it: the current directory is not on its path
            f"#!{sys.executable}\nimport sys\nfrom cachee_shm.cli.main import main\nsys.exit(main())\n"
        )

    def app(self, text=APP, seconds=0.0):
        (self.folder / "shop_app.py").write_text(text.replace("{seconds}", str(seconds)))

    def warm(self, app="shop_app:make", *words):
        process = subprocess.Popen(
            [sys.executable, str(self.folder / "cachee"), "warm", "--app", app, *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def written_elsewhere(self, key):
        self.cache.apply(self.peer, b"\x01" + struct.pack("<Q", self.cache._hash(key)))

    def is_back(self, key):
        """What a peer writes is loaded ahead: by which process."""
        self.cache.set(key, 0)
        self.written_elsewhere(key)
        known = self.cache.warm_explain
        until(lambda: known(self.cache._hash(key))["state"] == "warm", f"{key} is back")
        return self.cache.get(key)[1]

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        self.cache.close()


@pytest.fixture
def shop(host, tmp_path, monkeypatch):
    monkeypatch.delenv("CACHEE_SERVICE", raising=False)
    (tmp_path / "app").mkdir()
    made = Shop(host, tmp_path / "app")
    made.app()
    yield made
    made.close()


def begun(process):
    assert process.stdout.readline() == "namespace shop: is watched\n"
    assert process.stdout.readline() == "namespace shop: loads ahead\n"


@pytest.mark.parametrize("app", ["shop_app:make", "shop_app:make_async"])
@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGINT])
def test_it_loads_ahead_by_the_applications_origins_until_it_is_told_to_end(shop, app, signalled):
    process = shop.warm(app)
    begun(process)
    assert shop.is_back("user:1") == process.pid
    assert "cachee warm" in str(shop.cache.roster())
    process.send_signal(signalled)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said, errors) == (0, "", "")


def test_another_one_takes_over_from_one_that_is_killed(shop):
    first = shop.warm()
    begun(first)
    second = shop.warm()
    assert second.stdout.readline() == "namespace shop: is watched\n"
    assert shop.is_back("user:1") == first.pid
    first.kill()
    assert second.stdout.readline() == "namespace shop: loads ahead\n"
    assert shop.is_back("user:1") == second.pid


def test_a_load_that_is_under_way_at_the_end_is_finished(shop):
    shop.app(seconds=1)
    process = shop.warm()
    begun(process)
    shop.cache.set("slow:1", 0)
    shop.written_elsewhere("slow:1")
    until(lambda: shop.cache.warm_stats()[0] == 1, "the load has begun")
    process.terminate()
    assert process.wait(60) == 0
    assert shop.cache.get("slow:1") == ["slow:1", process.pid]


def test_a_load_that_hangs_does_not_keep_the_process(shop, monkeypatch):
    shop.app(APP + "\nfrom cachee_shm.cli import warm\nwarm.DRAIN_S = 0.1\n", seconds=3600)
    process = shop.warm()
    begun(process)
    shop.cache.set("slow:1", 0)
    shop.written_elsewhere("slow:1")
    until(lambda: shop.cache.warm_stats()[0] == 1, "the load has begun")
    process.terminate()
    assert process.wait(60) == 0


REFUSED = {
    "no_such_module:make": (2, "there is no module no_such_module."),
    "shop_app:no_such_function": (2, "shop_app has no function no_such_function"),
    "shop_app:NUMBER": (2, "shop_app has no function NUMBER"),
    "shop_app:nothing": (2, "returned None"),
    "shop_app:empty": (2, "returned no cache"),
    "shop_app:without_origin": (2, "no origin that loads"),
    "shop_app:without_prewarm": (2, "made without prewarm = true"),
    "shop_app:yields": (2, "the function returned <generator object yields"),
    "shop_app:raises": (3, r"raised OSError\('the database is down'\) \(.*shop_app.py, line \d+\)"),
    "shop_app:araises": (3, r"raised OSError\('the database is down'\) \(.*shop_app.py, line \d+\)"),
    "torn_app:make": (3, r"importing torn_app raised SyntaxError: .* \(.*torn_app.py, line 2\)"),
    "broken_app:make": (3, r"importing broken_app raised ModuleNotFoundError\(.*broken_app.py, line 1\)"),
}
BAD = """
import cachee_shm
NUMBER = 1
def nothing(): pass
def empty(): return []
def without_origin(): return cachee_shm.attach("shop")
def without_prewarm():
    cache = cachee_shm.attach("plain")
    cache.origin("user:", load=str)
    return cache
def yields(): yield cachee_shm.attach("shop")
def raises(): raise OSError("the database is down")
async def araises(): raises()
"""


@pytest.mark.parametrize(("app", "refusal"), REFUSED.items())
def test_an_application_that_cannot_be_used_is_an_error_in_one_line(shop, app, refusal):
    shop.app(BAD)
    (shop.folder / "broken_app.py").write_text("import no_such_library\n")
    (shop.folder / "torn_app.py").write_text("import os\ndef make(\n")
    process = shop.warm(app)
    said, errors = process.communicate(timeout=60)
    code, reason = refusal
    assert (process.returncode, said) == (code, "")
    assert re.fullmatch(f"cachee: --app: .*{reason}.*Nothing was loaded.*\n", errors), errors


def test_under_the_bypass_it_refuses_to_load_for_nobody(shop, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    _, errors = shop.warm().communicate(timeout=60)
    assert shop.processes[0].returncode == 2
    assert "holds nothing" in errors


@pytest.mark.parametrize(
    "words",
    [
        ["--app", "shop_app"],
        ["--app", ":make"],
        ["--concurrency", "0"],
        ["--rate", "0"],
        ["--rate", "nan"],
        [],
    ],
)
def test_wrong_usage_is_refused_before_anything_is_imported(words, capsys):
    given = words if "--app" in words or not words else ["--app", "shop_app:make", *words]
    with pytest.raises(SystemExit) as ended:
        main(["warm", *given])
    assert ended.value.code == 2
    assert "usage: cachee warm" in capsys.readouterr().err


def test_another_configuration_is_the_applications_too(shop, tmp_path, monkeypatch):
    path = os.environ["CACHEE_CONFIG"]
    monkeypatch.setenv("CACHEE_CONFIG", str(tmp_path / "missing.toml"))
    begun(shop.warm("shop_app:make", "--config", path))


def test_what_the_readme_says_is_an_application(shop):
    (block,) = re.findall(r"```python\n# shop/caches.py\n(.*?)```", README.read_text(), re.DOTALL)
    (shop.folder / "shop").mkdir()
    loader = "import os\ndef load_user(key): return [key, os.getpid()]\n"
    (shop.folder / "shop" / "caches.py").write_text(loader + block)
    (line,) = re.findall(r"```\ncachee warm --app (.*)\n```", README.read_text())
    process = shop.warm(line)
    begun(process)
    assert shop.is_back("user:1") == process.pid


def test_a_run_that_fails_ends_the_process_with_its_error(shop):
    closes = APP + "\nimport asyncio\nasync def closes():\n    cache = make()\n"
    shop.app(closes + "    asyncio.get_running_loop().call_later(.5, cache.close)\n    return cache\n")
    _, errors = shop.warm("shop_app:closes").communicate(timeout=60)
    assert shop.processes[0].returncode == 3, errors
    assert errors.startswith("cachee: ")


def test_it_waits_for_loads_no_longer_than_a_service_manager_does():
    assert warm.DRAIN_S < 20
