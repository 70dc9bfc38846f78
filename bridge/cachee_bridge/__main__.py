"""`cachee-bridge --config FILE [--check] [--print-config] [--log-format FORMAT]`: the command.

Exit codes: 0 it was told to stop, or the check found no fault; 1 it cannot serve; 2 the configuration cannot
be used; 3 this host has a bridge already.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import uvloop

from cachee_bridge.daemon.daemon import Daemon
from cachee_bridge.daemon.in_force import in_force
from cachee_bridge.system import log_formats
from cachee_bridge.system.logs import Lines, Mistakes
from cachee_bridge.system.notify import Notifier
from cachee_bridge.wire.frames import VERSION, VERSION_MIN
from cachee_shm import __version__, _core
from cachee_shm.config import PICKLE_WARNING, Config, NamespaceTable, hash_key, load
from cachee_shm.errors import BridgeRunning, CacheeError, ConfigError, ListenRefused

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_RUNNING = 3
STDERR = 2
SIZES = ("memory", "entry_size", "peer_budget", "peer_fill_max", "compress", "near_cache")
DURATIONS = (
    "default_ttl",
    "isolation_ttl",
    "unknown_ttl",
    "origin_lag",
    "peer_fill_wait",
    "heartbeat",
    "lost_after",
    "drain",
    "forget_after",
    "check_every",
)

log = logging.getLogger("cachee_bridge")


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit code."""
    _hold_standard_descriptors()
    options = _parser().parse_args(arguments)
    _log_to_stderr(options.log_format)
    if not (options.check or options.print_config):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # "read the files again": they are read after this
    try:
        config = load(options.config)
        if options.print_config:
            print(as_toml(config))
        if options.check:
            in_force(config)
            config.host.gid()
            hash_key(config, "any")
            print(f"{config.source}: no fault found")
        if not (options.check or options.print_config):
            uvloop.run(_run(config))
    except BridgeRunning as error:
        return _give_up(error, EXIT_RUNNING)
    except (ConfigError, ListenRefused) as error:
        return _give_up(error, EXIT_CONFIG)
    except CacheeError as error:
        return _give_up(error, EXIT_FAILED)
    except Exception:
        log.exception("a mistake in the bridge; it stops; started again, it resumes from the segments")
        return EXIT_FAILED
    return 0


async def _run(config: Config) -> None:
    """Python's own messages for sys.stderr go to the log too, because writing them could block."""
    logging.captureWarnings(True)
    mistakes = Mistakes()
    sys.unraisablehook = lambda told: mistakes.tell(
        told.err_msg or "an exception that nobody could catch", told.exc_value or RuntimeError()
    )
    await Daemon(config, Notifier()).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cachee-bridge", description="Keeps this host's caches coherent with those of its peers."
    )
    parser.add_argument(
        "--config", metavar="FILE", help="default: $CACHEE_CONFIG, else /etc/cachee/cachee.toml"
    )
    version = f"cachee-bridge {__version__} (segment layout {_core.LAYOUT}, wire {VERSION_MIN} to {VERSION})"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "--print-config", action="store_true", help="print the configuration with its defaults and exit"
    )
    told = "format of the log; default: json if systemd's journal reads it, else text"
    parser.add_argument("--log-format", choices=log_formats.FORMATS, default="auto", help=told)
    return parser


def _hold_standard_descriptors() -> None:
    """Descriptors 0, 1 or 2 may be closed. The next file or socket would get that number, and lines of the
    log would be written into it."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
            pass
        os.close(descriptor)


def _log_to_stderr(log_format: str) -> None:
    """One line per event."""
    handler = Lines(STDERR)
    handler.setFormatter(log_formats.chosen(log_format, STDERR, os.environ))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def _give_up(error: CacheeError, code: int) -> int:
    log.error("%s", error)
    return code


def as_toml(config: Config) -> str:
    """The configuration as a file, with all defaults filled in."""
    tables: dict[str, Mapping[str, object]] = {"host": config.host.model_dump(exclude_none=True)}
    if config.defaults is not None:
        tables["defaults"] = config.defaults.model_dump()
    for name in config.namespaces:
        merged = config.namespace(name)
        tables[f"namespaces.{name}"] = {key: getattr(merged, key) for key in NamespaceTable.model_fields}
    if config.bridge is not None:
        tables["bridge"] = config.bridge.model_dump(exclude_none=True, exclude={"tls"})
        if config.bridge.tls is not None:
            tables["bridge.tls"] = config.bridge.tls.model_dump()
    return "\n\n".join(_table(name, table) for name, table in tables.items())


def _table(name: str, table: Mapping[str, object]) -> str:
    return "\n".join([f"[{name}]", *(_line(key, value) for key, value in table.items())])


def _line(key: str, value: object) -> str:
    warning = f"  # if true, {PICKLE_WARNING}" if key == "pickle" else ""
    return f"{key} = {_value(key, value)}{warning}"


def _value(key: str, value: object) -> str:
    if key in SIZES:
        return '"never"' if value is None else f'"{value}B"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if key in DURATIONS:
        return f'"{value * 1000:.9g}ms"' if isinstance(value, float) else '"never"'
    if isinstance(value, list):
        return f"[{', '.join(_value('', item) for item in value)}]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


if __name__ == "__main__":
    sys.exit(main())
