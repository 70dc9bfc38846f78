"""``cachee top``: every namespace of this host and its peers, live; q ends it.

    stdin (a terminal)   ->  no echo, each key at once    ->  as it was, at the end
    stdout (a terminal)  ->  its other screen, no cursor  ->  the first screen, as it was

A frame is one write, and each line ends with "erase to the right", so nothing flickers. The terminal is
restored however the command ends: by q, a signal or an error. If standard output is not a terminal, one frame
is printed.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any

from cachee_shm.attaching import host_of
from cachee_shm.cli.looks import Look, look_at_all
from cachee_shm.cli.operator import ask
from cachee_shm.cli.stat import between, overview
from cachee_shm.cli.terminal import ago, cut, fitted, paint, shown, table
from cachee_shm.errors import BridgeError, ConfigError, SegmentError

if TYPE_CHECKING:
    from types import FrameType

BEGIN = "\x1b[?1049h\x1b[?25l"  # the other screen, without a cursor
END = "\x1b[?25h\x1b[?1049l"
HOME, TO_THE_RIGHT, TO_THE_END = "\x1b[H", "\x1b[K", "\x1b[J"
QUIT = frozenset("qQ\x03\x04")
PATIENCE_S = 1.0  # for the bridge: a frame must not wait for one that hangs
FIRST_S = 0.5  # until the first frame
PEERS = ("PEER", "STATE", "FOR", "BEHIND", "LAG", "FRESH", "")
PEER_NUMBERS = (2, 3, 4, 5)


def top(options: argparse.Namespace) -> int:
    """Print frames until a key or a signal ends the command."""
    if options.once or not sys.stdout.isatty():
        befores = look_at_all(options.config)
        time.sleep(options.interval)
        print(*frame(options.config, befores, look_at_all(options.config)), sep="\n")
        return 0
    with Screen() as screen:
        afters = look_at_all(options.config)
        is_ended = _wait(screen.keys, min(FIRST_S, options.interval))
        while not is_ended:
            befores, afters = afters, look_at_all(options.config)
            _draw(frame(options.config, befores, afters))
            is_ended = _wait(screen.keys, options.interval)
    return 0


# What is shown


def frame(config: str | None, befores: dict[str, Look], afters: dict[str, Look]) -> list[str]:
    """The lines of one frame."""
    told, why = _bridge(config)
    title = f"cachee top: host {host_of(config)}, {time.strftime('%H:%M:%S')}"
    lines = [paint(title, "bold"), ""]
    lines += overview(between(befores, afters)) if afters else ["no segment yet: no process has attached"]
    if told is None:
        return [*lines, "", *([shown(why)] if why else [])]
    return [*lines, "", *_peers(told)]


def _bridge(config: str | None) -> tuple[dict[str, Any] | None, str]:
    """The bridge's answer, or why there is none; "" if no bridge is configured."""
    from cachee_shm import config as config_module

    try:
        host_config = config_module.load(config)
        if host_config.bridge is None:
            return None, ""
        return ask(host_config, {"do": "peers"}, PATIENCE_S), ""
    except ConfigError:
        return None, ""  # none: the embedded default
    except (BridgeError, SegmentError) as error:
        return None, str(error)


def _peers(told: dict[str, Any]) -> list[str]:
    peers = [peer for peer in told["peers"] if peer["state"] != "self"]
    if not peers:
        return ["no peers"]
    peers.sort(
        key=lambda peer: (peer["state"] == "up", not peer["isolates"], peer["name"] or peer["address"])
    )
    up = sum(peer["state"] == "up" for peer in peers)
    header, *lines = table([PEERS, *map(_peer, peers)], PEER_NUMBERS)
    painted = [
        paint(line, "red" if peer["isolates"] or peer["state"] not in ("up", "relayed") else "")
        for line, peer in zip(lines, peers, strict=True)
    ]
    return [f"{up} of {len(peers)} peers up", paint(header, "bold"), *painted]


def _peer(peer: dict[str, Any]) -> tuple[str, ...]:
    streams = list(peer["namespaces"].values())
    fresh = [stream["fresh_ago_s"] for stream in streams if stream["fresh_ago_s"] is not None]
    isolates = f"isolates {', '.join(peer['isolates'])}" if peer["isolates"] else ""
    return (
        cut(shown(peer["name"] or peer["address"]), 24),
        peer["state"],
        ago(peer["for_s"]),
        str(sum(stream["behind"] for stream in streams)),
        str(sum(stream["lag"] for stream in streams)),
        ago(max(fresh)) if fresh else "",
        cut(isolates, 24),
    )


# The terminal


class Screen:
    """The terminal, set up for this command during the block."""

    def __init__(self) -> None:
        self.keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        """The descriptor for keys; None if stdin is not a terminal."""
        self._modes: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _on_end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_suspend)
        self._take()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        return kind is KeyboardInterrupt

    def _take(self) -> None:
        if self.keys is not None:
            self._modes = termios.tcgetattr(self.keys)
            tty.setcbreak(self.keys, termios.TCSANOW)
        _write(BEGIN)

    def _give_back(self) -> None:
        _write(END)
        if self.keys is not None and self._modes is not None:
            termios.tcsetattr(self.keys, termios.TCSANOW, self._modes)

    def _on_suspend(self, *_: object) -> None:
        """Ctrl-Z: restore the terminal for the shell; `fg` continues."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()


def _on_end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _draw(lines: list[str]) -> None:
    """Draw as many lines as there is room for."""
    size = shutil.get_terminal_size()
    shown_lines = lines[: size.lines - 1]
    if len(lines) > len(shown_lines):
        shown_lines[-1] = f"... {len(lines) - len(shown_lines) + 1} lines more: the window is too low"
    body = "".join(f"{fitted(line, size.columns)}{TO_THE_RIGHT}\r\n" for line in shown_lines)
    _write(f"{HOME}{body}{TO_THE_END}")


def _write(text: str) -> None:
    data = text.encode(sys.stdout.encoding or "utf-8", "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _wait(keys: int | None, seconds: float) -> bool:
    """Wait for so many seconds, or less. True: a key that ends the command was pressed."""
    end = time.monotonic() + seconds
    while (left_s := end - time.monotonic()) > 0:
        if keys is None:
            time.sleep(left_s)
        elif select.select([keys], [], [], left_s)[0]:
            pressed = os.read(keys, 64).decode(errors="replace")
            if not pressed or QUIT & set(pressed):
                return True
    return False
