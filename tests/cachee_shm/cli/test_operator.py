"""The bridge is asked over its socket: who answers is looked at first, and half an answer is none."""

import os
import shutil
import socket
import tempfile
import threading
import time

import pytest

from cachee_shm import asking
from cachee_shm.cli import operator
from cachee_shm.config import Config
from cachee_shm.errors import AccessDenied, BridgeError


@pytest.mark.parametrize("said", [b"", b'{"host": "web'])
def test_a_bridge_that_dies_in_the_midst_of_its_answer_has_not_answered(monkeypatch, tmp_path, said):
    path = str(tmp_path / "sock")
    monkeypatch.setattr(asking, "bridge_socket", lambda host: path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        answering = threading.Thread(target=lambda: end(listener.accept()[0], said))
        answering.start()
        with pytest.raises(BridgeError, match="does not answer: it closed the socket"):
            operator.ask(Config.parse({"host": {"name": "web-1"}, "defaults": {}}), {"do": "peers"})
        answering.join()


@pytest.mark.needs("other users")
def test_a_stranger_that_listens_there_is_not_believed(monkeypatch):
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o1777)
    path = os.path.join(folder, "sock")
    monkeypatch.setattr(asking, "bridge_socket", lambda host: path)
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            os.chmod(path, 0o666)
            listener.listen()
            os.write(tell, b"1")
            time.sleep(60)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"1"
        with pytest.raises(AccessDenied, match=r"is served by user 65534.*Nothing was asked of it.*`rm "):
            operator.ask(Config.parse({"host": {"name": "web-1"}, "defaults": {}}), {"do": "peers"})
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        shutil.rmtree(folder)
        os.close(ready)
        os.close(tell)


def end(client, said):
    with client:
        client.recv(4096)
        client.sendall(said)
