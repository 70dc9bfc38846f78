"""``cachee stat``, ``get``, ``set`` and ``del``: one process among the others that share a namespace."""

from __future__ import annotations

import argparse
import json
import os
import sys

from cachee_shm.attaching import attach, spec_for
from cachee_shm.cache import Cache
from cachee_shm.cli.processes import attached


def stat(options: argparse.Namespace) -> int:
    """Print the statistics, one a line; 1 when the namespace has no segment yet."""
    cache = _existing(options)
    if cache is None:
        return 1
    with cache:
        numbers, title, people = cache.stats(), cache.name, list(attached(cache))
    if options.json:
        print(json.dumps(numbers))
        return 0
    print(title)
    width = max(map(len, numbers))
    for name, number in numbers.items():
        print(f"  {name:<{width}}  {number}")
    print(*people, sep="\n")
    return 0


def get(options: argparse.Namespace) -> int:
    """Print the value: a ``str`` or ``bytes`` as it is, another as Python writes it; 1 on a miss."""
    cache = _existing(options)
    if cache is None:
        return 1
    with cache:
        value, found = cache.lookup(options.key)
    if not found:
        return _missed(f"no value under {options.key!r}")
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
    with attach(options.namespace, config=options.config) as cache:
        stored = cache.set(options.key, value, tags=options.tags, **lifetime)
    return 0 if stored else _missed(f"{options.key!r} was announced and not stored")


def delete(options: argparse.Namespace) -> int:
    """Delete the keys; every host is told in any case; 1 when this one had none of them."""
    with attach(options.namespace, config=options.config) as cache:
        deleted = [cache.delete(key) for key in options.keys]
    return 0 if any(deleted) else _missed("this host had no value under any of them; the others were told")


def _existing(options: argparse.Namespace) -> Cache | None:
    """Attached, but never the creator: a look by root must not leave a segment that only root may open."""
    spec = spec_for(options.namespace, options.config, False)
    if os.path.exists(f"/dev/shm{spec.path}"):
        return Cache(spec)
    _missed(f"no segment {spec.path}: nobody has attached to this namespace yet")
    return None


def _missed(why: str) -> int:
    print(f"cachee: {why}", file=sys.stderr)
    return 1
