"""Who is attached, as ``cachee stat`` shows it."""

import os
import signal
import subprocess
import sys

import cachee_shm
from cachee_shm.cli.processes import attached


def test_every_live_process_is_shown_with_its_command_and_a_dead_one_is_not(cache: cachee_shm.Cache) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}\nimport ctypes, os, signal, cachee_shm\n"
    program += "cache = cachee_shm.attach(private=True)\nprint('up', flush=True)\nsignal.pause()"
    stranger = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"up\n"
        lines = list(attached(cache))
        assert {int(line.pid) for line in lines} == {os.getpid(), child}
        assert all(line.role == "worker" and "MiB" in line.memory for line in lines)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stranger.kill()
        stranger.wait()
    assert [int(line.pid) for line in attached(cache)] == [os.getpid()]
