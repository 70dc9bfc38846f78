"""``cachee get``, ``set``, ``del`` and ``tags del``: one process among the others that share a namespace."""

from __future__ import annotations

import argparse
import json
import sys

from cachee_shm.attaching import attach, spec_for
from cachee_shm.cli.existing import existing, looked_into
from cachee_shm.cli.terminal import shown
from cachee_shm.errors import ConfigError


def get(options: argparse.Namespace) -> int:
    """Print the value: a ``str`` or ``bytes`` as it is, any other by its repr; 1 on a miss."""
    with looked_into(spec_for(_meant(options), options.config, False)) as cache:
        value, found = cache.lookup(options.key)
    if not found:
        return _missed(f"no value under {options.key!r}")
    if not sys.stdout.isatty() and isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        print(_printed(value))
    return 0


def _printed(value: object) -> str:
    """A program gets a text as it is; on a terminal, control characters are escaped."""
    if not sys.stdout.isatty():
        return value if isinstance(value, str) else repr(value)
    return shown(value, kept="\n\t") if isinstance(value, str) else repr(value)


def put(options: argparse.Namespace) -> int:
    """Store the value; 1 if it was announced and not stored (another host has just written the key)."""
    text = sys.stdin.read() if options.value == "-" else options.value
    try:
        value = json.loads(text) if options.json else text
    except ValueError as error:
        print(f"cachee: the value is no JSON: {error}; nothing was stored", file=sys.stderr)
        return 2
    lifetime = {} if options.ttl is None else {"ttl": options.ttl}
    with attach(_meant(options), config=options.config) as cache:
        stored = cache.set(options.key, value, tags=options.tags, **lifetime)
    return 0 if stored else _missed(f"{options.key!r} was announced and not stored")


def delete(options: argparse.Namespace) -> int:
    """Delete the keys, and announce that to every host; 1 if this host had none of them."""
    with attach(_meant(options), config=options.config) as cache:
        deleted = [cache.delete(key) for key in options.keys]
    return 0 if any(deleted) else _missed("this host had no value under any of them; the others were told")


def delete_tags(options: argparse.Namespace) -> int:
    """Delete all keys that have one of the tags, on every host."""
    with attach(_meant(options), config=options.config) as cache:
        cache.delete_tags(*options.tags)
    return 0


def _meant(options: argparse.Namespace) -> str:
    """The namespace to use. ``ConfigError`` if none is named, `default` has no segment and another namespace
    has one: a command without -n was most likely meant for that one."""
    spec = spec_for(options.namespace, options.config, False)
    others = existing(spec.host)
    if options.namespace is None and others and spec.namespace not in others:
        raise ConfigError(
            f"which namespace? {spec.namespace!r} has no segment; others here have: {', '.join(others)}; "
            "nothing was read or written; name one by -n NAMESPACE"
        )
    return spec.namespace


def _missed(why: str) -> int:
    print(f"cachee: {why}", file=sys.stderr)
    return 1
