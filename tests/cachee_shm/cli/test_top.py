"""`cachee top` on a real terminal: what it shows, and that it gives the terminal back however it ends."""

import re
import signal
import sys

import pytest

import cachee_shm
from cachee_shm.cli.main import main
from tests.bridge.hosts import hosts, until
from tests.cachee_shm.cli.terminals import Terminal

COMMAND = [sys.executable, "-m", "cachee_shm.cli", "top", "--interval", "0.2"]
FRAME = r"\x1b\[H.*\x1b\[J"
END = "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def shop(host):
    with cachee_shm.attach("shop") as attached:
        yield attached


def lines_of(frame):
    return re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", frame).replace("\r", "").split("\n")


def test_it_shows_frame_after_frame_until_q(shop):
    with Terminal(COMMAND) as terminal:
        assert terminal.until(r"\x1b\[H").startswith("\x1b[?1049h\x1b[?25l")
        assert "shop" in terminal.until(r"\x1b\[J")
        shop.set("a", 1)
        terminal.until(FRAME)
        assert not terminal.has_its_modes()
        terminal.press("q")
        code, rest = terminal.ended()
        assert (code, rest.endswith(END)) == (0, True)
        assert terminal.has_its_modes()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(shop, number, code):
    with Terminal(COMMAND) as terminal:
        terminal.until(FRAME)
        terminal.process.send_signal(number)
        ended, rest = terminal.ended()
        assert (ended, rest.endswith(END)) == (code, True)
        assert terminal.has_its_modes()


def test_while_it_is_suspended_the_shell_has_its_terminal(shop):
    with Terminal(COMMAND) as terminal:
        terminal.until(FRAME)
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.until(re.escape(END))
        until(terminal.has_its_modes)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(r"\x1b\[\?1049h\x1b\[\?25l" + FRAME)
        terminal.press("q")
        assert terminal.ended()[0] == 0


def test_a_frame_fits_into_a_small_window(host):
    caches = [cachee_shm.attach(f"namespace-of-a-rather-long-name-{number}") for number in range(12)]
    with Terminal(COMMAND, columns=60, lines=10) as terminal:
        lines = lines_of(terminal.until(FRAME))
    for cache in caches:
        cache.close()
    assert len(lines) == 10  # the last one is empty
    assert max(map(len, lines)) <= 60
    assert "lines more: the window is too low" in lines[-2]


def test_where_standard_output_is_no_terminal_one_frame_is_printed_without_control_characters(shop, capsys):
    assert main(["top", "--interval", "0.1"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert told.splitlines()[2].split()[0] == "NAMESPACE"
    assert told.splitlines()[3].split()[0] == "shop"


def test_a_look_is_no_worker_for_longer_than_it_takes(shop):
    """Else a host whose bridge is told to stop would wait for it."""
    with Terminal(COMMAND) as terminal:
        terminal.until(FRAME)
        until(lambda: shop.attached_workers() == 1)
        assert terminal.process.poll() is None


def test_peers_that_hold_this_host_back_stand_first(tmp_path, monkeypatch, capsys):
    with hosts(tmp_path) as (first, second):
        for each in (first, second):
            each.start()
        monkeypatch.setenv("CACHEE_CONFIG", str(first.config))
        cache = first.attach()
        until(lambda: cache.serve_until > cache.now_ms())
        assert "1 of 1 peers up" in once(capsys)
        second.kill()
        until(lambda: "isolates shop" in once(capsys))
        shown = once(capsys)
        assert "0 of 1 peers up" in shown
        assert re.search(r"\nshop .* isolated\n", shown)
        assert max(map(len, shown.splitlines())) <= 80
        first.kill()
        assert f"no bridge runs for host '{first.name}'" in once(capsys)


def once(capsys):
    assert main(["top", "--once", "--interval", "0.1"]) == 0
    return capsys.readouterr().out
