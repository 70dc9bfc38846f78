"""``cachee stat``, ``get``, ``set`` and ``del``: one process among the others that share a namespace."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from contextlib import AbstractContextManager

import cachee_shm


def _attached(options: argparse.Namespace) -> AbstractContextManager[cachee_shm.Cache]:
    return contextlib.closing(cachee_shm.attach(options.namespace, config=options.config))


def stat(options: argparse.Namespace) -> int:
    """Print the statistics, one a line."""
    with _attached(options) as cache:
        numbers = cache.stats()
        title = f"{cache.namespace}  {cache.name}"
    if options.json:
        print(json.dumps(numbers))
        return 0
    print(title)
    width = max(map(len, numbers), default=0)
    for name, number in numbers.items():
        print(f"  {name:<{width}}  {number}")
    return 0


def get(options: argparse.Namespace) -> int:
    """Print the value: a ``str`` or ``bytes`` as it is, another as Python writes it; 1 on a miss."""
    with _attached(options) as cache:
        value, found = cache.lookup(options.key)
    if not found:
        print(f"cachee: no value under {options.key!r}", file=sys.stderr)
        return 1
    if isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        print(value if isinstance(value, str) else repr(value))
    return 0


def put(options: argparse.Namespace) -> int:
    """Store the value; 1 when it was announced and not stored (another host wrote the key a moment ago)."""
    text = sys.stdin.read() if options.value == "-" else options.value
    try:
        value = json.loads(text) if options.json else text
    except ValueError as error:
        print(f"cachee: the value is no JSON: {error}; nothing was stored", file=sys.stderr)
        return 2
    lifetime = {} if options.ttl is None else {"ttl": options.ttl}
    with _attached(options) as cache:
        stored = cache.set(options.key, value, tags=options.tags, **lifetime)
    if not stored:
        print(f"cachee: {options.key!r} was announced and not stored", file=sys.stderr)
    return 0 if stored else 1


def delete(options: argparse.Namespace) -> int:
    """Delete the keys; every host is told in any case; 1 when this one had none of them."""
    with _attached(options) as cache:
        deleted = [cache.delete(key) for key in options.keys]
    return 0 if any(deleted) else 1
