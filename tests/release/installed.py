"""What was built, tried where it is installed: run by the Python of a clean environment, from another folder.

    python -I installed.py

Two hosts on this machine, a bridge each: what one writes, the other evicts. Ends with 0 when all is well.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import cachee_shm
from cachee_shm.ports import free_ports

SHARED = ("systemd/cachee-bridge.service", "kubernetes/Containerfile", "cachee.toml", "OPERATING.md")
"""What operators need beside the package, in share/cachee of the environment."""
WAIT_S = 30.0
BIN = Path(sys.executable).parent


def until(condition, what):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def configure(folder, name, own, other):
    path = folder / f"{name}.toml"
    path.write_text(
        f'[host]\nname = "{name}"\n[defaults]\nmemory = "4MiB"\n[namespaces.shop]\n[bridge]\n'
        f'listen = "127.0.0.1:{own}"\npeers = ["127.0.0.1:{other}"]\ndrain = "0s"\n'
    )
    return str(path)


def run(*command):
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], check=True, capture_output=True, text=True
    ).stdout


def exercise(folder, names):
    """The verbs on one host, and the mesh between two."""
    first, second = free_ports(2)
    files = [configure(folder, names[0], first, second), configure(folder, names[1], second, first)]
    for file in files:
        assert "no fault" in run("cachee-bridge", "--config", file, "--check")
    bridge = str(BIN / "cachee-bridge")
    bridges = [subprocess.Popen([bridge, "--config", file], stderr=subprocess.DEVNULL) for file in files]
    try:
        here, there = (cachee_shm.attach("shop", config=file) for file in files)
        assert here.set("k", {"a": [1, 2.5, None]}, tags=["t"]) and here.get("k") == {"a": [1, 2.5, None]}
        assert here.get_or_load("loaded", lambda: 7) == 7
        until(lambda: here.health().ok and there.health().ok, "the hosts to meet")
        until(lambda: there.get_or_load("k", lambda: "old") == there.get("k", None) == "old", "a fill")
        here.set("k", "new")
        assert here.wait_synced(timeout=WAIT_S)
        assert there.get("k") is None, "an older value is served"
        (peer,) = json.loads(run("cachee", "peers", "--config", files[0], "--json"))["peers"]
        assert peer["name"] == names[1] and peer["state"] == "up", peer
        here.close(), there.close()
    finally:
        for bridge in bridges:
            bridge.terminate()
    assert [bridge.wait(WAIT_S) for bridge in bridges] == [0, 0]


def main():
    at = Path(cachee_shm.__file__)
    assert Path(sys.prefix) in at.parents, f"not the installed one: {at}"
    version = run("cachee", "--version").split()[1]
    assert version == cachee_shm.__version__ == run("cachee-bridge", "--version").split()[1]
    for name in SHARED:
        assert (Path(sys.prefix) / "share" / "cachee" / name).is_file(), f"share/cachee/{name} is not there"
    tag = uuid.uuid4().hex[:8]
    names = [f"dist-a-{tag}", f"dist-b-{tag}"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            exercise(Path(folder), names)
    finally:
        for name in names:
            for path in Path("/dev/shm").glob(f"cachee.{name}.*"):
                path.unlink()
    print(f"cachee-shm {version}, installed in {sys.prefix}: two hosts agree")


if __name__ == "__main__":
    os.environ.pop("CACHEE_CONFIG", None)
    main()
