"""What the demo's own scripts share: they report by lines of JSON, and end when their standard input does."""

import json
import os
import select
import sys
from collections.abc import Sequence

REPORT_EVERY_S = 0.25


def asked_to_end() -> bool:
    """True once the process that started this one has closed its standard input, or has died."""
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and os.read(0, 4096) == b""


def report(**facts: object) -> None:
    """Send a message to the demo. If the demo is gone, the message is dropped."""
    try:
        print(json.dumps(facts), flush=True)
    except BrokenPipeError:
        sys.exit(0)


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE arguments, in their order."""
    return dict(argument.split("=", 1) for argument in arguments)
