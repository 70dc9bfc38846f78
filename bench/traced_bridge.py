"""A cachee-bridge that notes when it did what to a record: traced_bridge.py TRACE --config FILE.

One line of JSON for each turn of its event loop in which records moved, all times in ns of CLOCK_MONOTONIC:

  begun     the loop woke for this: a socket can be read, or the ring has moved
  applied   the last record was applied to the segment; 0 = none was
  queued    [(link, when)]: a frame with records was made for that link, in order
  performed the mesh is done; from here on the sockets are written to
  written   [(begun, done)]: the write to each link, TLS and system call, in the same order
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cachee_bridge import __main__ as command
from cachee_bridge.carriers import connection as connections
from cachee_bridge.carriers import transport
from cachee_bridge.links import link
from cachee_bridge.protocol import paths, sending
from cachee_bridge.routing import fanout
from cachee_bridge.shell import inputs, shell
from cachee_bridge.streams import stream
from cachee_bridge.wire.messages import Frame

now_ns = time.monotonic_ns
paths.LINGER_S = 1.0  # nothing that is timed depends on it
fanout.step_of = lambda count: min(4, count // 3)  # type: ignore[assignment]  # so that relays send to some


@dataclass
class Turn:
    begun: int
    applied: int = 0
    queued: list[tuple[str, int]] = field(default_factory=list)
    performed: int = 0
    written: list[tuple[int, int]] = field(default_factory=list)


turns: list[Turn] = []
stack: list[Turn] = [Turn(0)]


def turn_of(call: Any) -> Any:
    """`call` is one turn; those in which no record moved are not kept."""

    def run(*arguments: Any) -> Any:
        stack.append(Turn(now_ns()))
        try:
            return call(*arguments)
        finally:
            done = stack.pop()
            if done.applied or done.queued:
                turns.append(done)

    return run


def send(self: Any, message: Any, call: Any = link.Link.send) -> None:
    call(self, message)
    if isinstance(message, Frame) and message.payload:
        stack[-1].queued.append((self.name, now_ns()))


def frame(self: Any, links: Any, namespace: str, healed: Any, call: Any = sending.Sending._send_each) -> None:
    call(self, links, namespace, healed)
    stack[-1].queued += [(link.name, now_ns()) for link in links]


def receive(self: Any, frame: Any, call: Any = stream.Inbox.receive) -> Any:
    verdict = call(self, frame)
    if verdict is stream.Verdict.APPLIED and frame.payload:
        stack[-1].applied = now_ns()
    return verdict


def perform(self: Any, call: Any = inputs.Inputs.perform) -> None:
    if not stack[-1].performed:
        stack[-1].performed = now_ns()
    call(self)


def write(self: Any, number: int, data: bytes, call: Any = transport.Network.send) -> bool:
    begun = now_ns()
    took_all: bool = call(self, number, data)
    if stack[-1].queued:
        stack[-1].written.append((begun, now_ns()))
    return took_all


def write_each(
    self: Any, links: list[int], data: list[bytes], call: Any = transport.Network.send_each
) -> list[tuple[int, bytes]]:
    """With TLS, `write` is called for each."""
    begun = now_ns()
    rests: list[tuple[int, bytes]] = call(self, links, data)
    if stack[-1].queued:
        stack[-1].written += [(begun, now_ns())] * (len(links) - len(rests))
    return rests


def main() -> int:
    trace = Path(sys.argv.pop(1))
    link.Link.send, stream.Inbox.receive = send, receive  # type: ignore[method-assign]
    sending.Sending._send_each = frame  # type: ignore[method-assign]
    transport.Network.send_each = write_each  # type: ignore[method-assign]
    inputs.Inputs.perform, transport.Network.send = perform, write  # type: ignore[method-assign]
    shell.Shell._ring_moved = turn_of(shell.Shell._ring_moved)  # type: ignore[method-assign]
    connection = connections.Connection
    connection._received = turn_of(connection._received)  # type: ignore[method-assign]
    try:
        return command.main()
    finally:
        trace.write_text("".join(json.dumps(asdict(turn)) + "\n" for turn in turns))


if __name__ == "__main__":
    sys.exit(main())
