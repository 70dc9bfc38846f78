"""Ports that are given to a bridge or a server which is not there yet."""

import socket
import subprocess
import sys

import pytest

from cachee_shm import ports


def test_ports_are_free_different_and_none_that_an_outgoing_connection_gets():
    given = ports.free_ports(20)
    assert len(set(given)) == 20
    assert set(given) <= set(ports.PORTS)
    for port in given:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))


def test_no_other_process_is_given_a_port_that_nobody_listens_on_yet(monkeypatch):
    """A bridge that dialled the port of its peer-to-be once met the bridge of another test there."""
    (port,) = ports.free_ports(1)
    asks = f"from cachee_shm import ports; ports.PORTS = range({port}, {port + 1}); ports.free_ports(1)"
    refused = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    assert "only 0 of 1 ports" in refused.stderr
    monkeypatch.setattr(ports, "PORTS", range(port, port + 1))
    with pytest.raises(OSError, match=r"only 0 of 1 ports of 127.0.0.1 are free"):
        ports.free_ports(1)


def test_a_port_on_which_somebody_listens_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", range(port, port + 1))
        with pytest.raises(OSError, match="are free"):
            ports.free_ports(1)


def test_marks_are_bounded_so_that_a_long_process_keeps_its_descriptors():
    for _ in range(ports.HELD):
        ports.free_ports(2)
    assert len(ports._marks) == ports.HELD


def test_an_error_that_is_no_taken_port_is_told(monkeypatch):
    def refuse(*_):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(ports.socket, "socket", refuse)
    with pytest.raises(OSError, match="too many open files"):
        ports.free_ports(1)
