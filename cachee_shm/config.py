"""The host's configuration: one TOML file, identical on every host of the mesh.

    load(path)           -> Config      a file; None: what $CACHEE_CONFIG names, else /etc/cachee/cachee.toml
    loads(text, source)  -> Config      a file's text
    Config.parse(tables) -> Config      a dict of the same shape
    config.namespace(n)  -> NamespaceConfig
    hash_key(config, n)  -> bytes       the 16 bytes by which a namespace's keys are hashed

Once parsed, durations are seconds as ``float`` and sizes are bytes as ``int``. A value that cannot be used
raises a ``ConfigError`` that names the file, the dotted key, what was found and what is accepted. The
accepted values are the field's description below, so that a check and its message stand in one place.

Nothing else in the package imports pydantic: a process without a configuration does not pay for it.
"""

from __future__ import annotations

import codecs
import errno
import grp
import hashlib
import ipaddress
import os
import re
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from cachee_shm.errors import ConfigError, UnknownNamespace

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "PICKLE_WARNING",
    "Bridge",
    "Config",
    "Defaults",
    "Host",
    "NamespaceConfig",
    "NamespaceTable",
    "check_regular",
    "hash_key",
    "load",
    "loads",
    "split_address",
    "split_discover",
]

DEFAULT_PATH = "/etc/cachee/cachee.toml"
PIPE_S = 5.0  # for `--config <(command)`
FILE_BYTES_MAX = 1 << 20  # a configuration of a thousand namespaces has about 100 KB
NAMESPACES_MAX = 1024
PEERS_MAX = 4095  # a ring record has 12 bits for its source, and 0 is the host itself
MEMORY_BYTES_MIN = 2 << 20
ENTRY_BYTES_MIN, ENTRY_BYTES_MAX = 32, 64 << 10  # as core/geometry.h has them
MEMORY_BYTES_MAX = 64 << 30  # an index word has 20 bits for its page of 64 KiB
NEAR_CACHE_BYTES_MAX = 1 << 30  # the 64th part of MEMORY_BYTES_MAX
NEAR_CACHE_SHARE = 64  # the near cache of a process has at most this fraction of the namespace's memory: 1/64
HASH_KEY_BYTES_MIN = 16
HASH_KEY_BYTES_MAX = 64  # the most that keyed BLAKE2b takes
COMPRESS_BYTES_MIN = 64  # less than that is never smaller for it
USER_IDS = 1 << 32
DAY_S = 86400.0

NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)")
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]*):([0-9]{1,5})")

DISCOVER = re.compile(r"dns:(?P<dns>[A-Za-z0-9._-]{1,253}:[0-9]{1,5})|srv:(?P<srv>[A-Za-z0-9._-]{1,253})")

DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": DAY_S}
SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
DURATION_UNITS = f"(units: {', '.join(DURATIONS)})"
SIZE_UNITS = f"(units: {', '.join(SIZES)})"
A_FILE = "the path of a file, in quotes"
LISTENS = '"address:port", or ":port" for all; the port from 1 to 65535, IPv6 in brackets'

PICKLE_WARNING = "whoever may write this namespace's segment may then run code in every process that reads it"
# What stands in a table where it may not, or is called otherwise.
ELSEWHERE = {
    "bridge.http": "metrics, for Prometheus and probes, and admin, for the dashboard; each an address",
    "defaults.peer_fill": "peer_fill = true in the [namespaces.NAME] of each namespace that wants it",
    "defaults.pickle": "pickle = true in the [namespaces.NAME] of each namespace that needs it: "
    f"{PICKLE_WARNING}",
}


def _quantity(value: object, units: Mapping[str, float]) -> float:
    match = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError("not a number with a unit")
    return float(match[1]) * units[match[2]]


def _duration(value: object) -> float:
    return _quantity(value, DURATIONS)


def _duration_or_never(value: object) -> float | None:
    return None if value is None or value == "never" else _duration(value)


def _size(value: object) -> int:
    return int(_quantity(value, SIZES))


def _size_or_never(value: object) -> int | None:
    return None if value is None or value == "never" else _size(value)


def _size_or_nothing(value: object) -> int:
    return 0 if value == "0" else _size(value)


def _objects(value: object) -> bool | str:
    if value is True or value is False or value == "copy":
        return value
    raise ValueError("not true, false or copy")


def _host_name(value: str) -> str:
    is_user_id = value.isdecimal() and int(value) < USER_IDS
    if is_user_id or not HOST_NAME.fullmatch(value):
        raise ValueError("not a host's name")
    return value


def _namespace_name(value: str) -> str:
    if not NAMESPACE.fullmatch(value):
        raise ValueError("not a namespace's name")
    return value


def split_address(value: str) -> tuple[str, int]:
    """Take ``host:port`` apart, an IPv6 host out of its brackets; ``ValueError`` when it is no address."""
    match = ADDRESS.fullmatch(value)
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise ValueError(f"not an address: {value!r}")
    return match[1].strip("[]"), int(match[2])


def _listen(value: str) -> str:
    """Normalize an address: "[::0]" and "0" mean all addresses, like "[::]". Such an address is not sent to
    peers."""
    host, port = split_address(value)
    if "[" in value:
        address = ipaddress.IPv6Address(host)
        mapped = address.ipv4_mapped
        return f"[{address}]:{port}" if mapped is None else f"{mapped}:{port}"
    try:
        return f"{socket.inet_ntoa(socket.inet_aton(host))}:{port}"
    except OSError:
        return value  # a name, or nothing: all addresses


def _clash(one: str, other: str) -> bool:
    """Whether two addresses of this machine cannot both be listened on."""
    hosts = {split_address(one)[0], split_address(other)[0]}
    same_port = split_address(one)[1] == split_address(other)[1]
    return same_port and (len(hosts) == 1 or bool(hosts & {"", "0.0.0.0", "::"}))


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a control character, or half of one")
    return value


def _peer(value: str) -> str:
    if not split_address(value)[0]:
        raise ValueError("a peer without a host")
    return value


def split_discover(value: str) -> tuple[str, str, int]:
    """("dns", name, port) or ("srv", name, 0); ``ValueError`` when it is neither."""
    match = DISCOVER.fullmatch(value)
    if match is None:
        raise ValueError(f"not a way to discover peers: {value!r}")
    if match["srv"]:
        return "srv", match["srv"], 0
    return "dns", *split_address(match["dns"])


def _discover(value: str) -> str:
    split_discover(value)
    return value


def _nameserver(value: str) -> str:
    ipaddress.ip_address(split_address(value)[0])
    return value


def _path(value: str, info: ValidationInfo) -> str:
    """A relative path is taken from the file's folder; of a dict, from the working directory."""
    if not value or "\0" in value:
        raise ValueError("not a path")
    return os.path.abspath(os.path.join((info.context or {}).get("folder", ""), value))


Seconds = Annotated[float, BeforeValidator(_duration)]
Bytes = Annotated[int, BeforeValidator(_size)]
Path = Annotated[str, AfterValidator(_path)]


def _contradiction(key: str, found: object, accepted: str) -> PydanticCustomError:
    return PydanticCustomError(
        "contradiction", "{accepted}", {"key": key, "found": found, "accepted": accepted}
    )


class Table(BaseModel):
    """A table of the file: no unknown keys, no coercion, never changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Host(Table):
    """``[host]``: the name of this machine, and which users may attach to its segments."""

    name: Annotated[str, AfterValidator(_host_name)] = Field(
        default_factory=lambda: socket.gethostname(),
        validate_default=True,
        description="1 to 63 letters, digits, '.', '_' and '-', but no number below 2^32 (used for users "
        "without a configuration); left out, it is the machine's name",
    )
    region: Annotated[str, AfterValidator(_printable)] | None = Field(
        default=None, min_length=1, max_length=63, description="1 to 63 printable characters"
    )
    group: Annotated[str, AfterValidator(_printable)] | None = Field(
        default=None, min_length=1, max_length=32, description="the name of one of this machine's groups"
    )
    hash_key_file: Path | None = Field(default=None, description=A_FILE)

    def gid(self) -> int | None:
        """The group's number, None without a group; ``ConfigError`` when the machine has no such group."""
        if self.group is None:
            return None
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise ConfigError(
                f"host.group: found {self.group!r}, which is no group of this machine; accepted: one that is "
                f"(groupadd --system {self.group} makes it), or no such line: segments are their user's alone"
            ) from None


class Defaults(Table):
    """``[defaults]``, and what a namespace may say for itself; what both leave out comes from here."""

    memory: Bytes = Field(
        default=32 << 20,
        ge=MEMORY_BYTES_MIN,
        le=MEMORY_BYTES_MAX,
        description=f'a size such as "256MiB", from 2MiB to 64GiB {SIZE_UNITS}',
    )
    entry_size: Bytes = Field(
        default=128,
        ge=ENTRY_BYTES_MIN,
        le=ENTRY_BYTES_MAX,
        description='the size of a typical key and its value, such as "1KiB", from 32B to 64KiB '
        f"{SIZE_UNITS}",
    )
    default_ttl: Annotated[float | None, BeforeValidator(_duration_or_never)] = Field(
        default=None,
        ge=0.001,
        le=3650 * DAY_S,
        description=f'a duration such as "5min", from 1ms to 3650d {DURATION_UNITS}, or "never"',
    )
    on_isolation: Literal["cap", "flush", "serve"] = Field(
        default="cap", description="'cap', 'flush' or 'serve'"
    )
    journal: Literal["sampled", "all", "off"] = Field(
        default="sampled", description="'sampled', 'all' or 'off'"
    )
    isolation_ttl: Seconds = Field(
        default=10.0,
        ge=0.01,
        le=30 * DAY_S,
        description=f'a duration such as "10s", from 10ms to 30d {DURATION_UNITS}',
    )
    unknown_ttl: Seconds = Field(
        default=30.0,
        ge=0,
        le=30 * DAY_S,
        description=f'a duration such as "30s", up to 30d {DURATION_UNITS}; "0s" announces once',
    )
    origin_lag: Seconds = Field(
        default=0.0,
        ge=0,
        le=3600,
        description=f'how far replicas may be behind, such as "2s", up to 1h {DURATION_UNITS}; "0s" for none',
    )
    jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="a number from 0 to 1: lifetimes of loaded values are shortened by up to this share",
    )
    prewarm: bool = Field(
        default=False, description="true or false: whether what other hosts invalidate may be loaded ahead"
    )
    prewarm_weight: float = Field(
        default=3.0,
        gt=0,
        le=1000,
        description="a number up to 1000: how many wasted loads an avoided cold read is worth",
    )
    prewarm_budget: float = Field(
        default=0.05,
        ge=0,
        le=10,
        description="a number from 0 to 10: how many additional loads the origin may get, as a "
        "share of the loads without prewarm; 0 sets no bound",
    )
    near_cache: Annotated[int, BeforeValidator(_size_or_nothing)] = Field(
        default=4 << 20,
        ge=0,
        le=NEAR_CACHE_BYTES_MAX,
        description='the size that each process keeps of what it reads, such as "4MiB", up to 1GiB '
        f'{SIZE_UNITS}, or "0" for none',
    )
    near_objects: Annotated[bool | str, BeforeValidator(_objects)] = Field(
        default=False,
        description='true, false or "copy": whether the near cache keeps decoded objects that can change, '
        "and gives all callers the same one, or each a copy",
    )
    compress: Annotated[int | None, BeforeValidator(_size_or_never)] = Field(
        default=None,
        ge=COMPRESS_BYTES_MIN,
        le=1 << 30,
        description='the size from which on values are compressed by zstd, such as "4KiB", from 64B to 1GiB '
        f'{SIZE_UNITS}, or "never"',
    )


class NamespaceTable(Defaults):
    """``[namespaces.NAME]``: what is left out comes from the defaults."""

    pickle: bool = Field(
        default=False, description=f"true or false, without quotes; if true, {PICKLE_WARNING}"
    )
    peer_fill: bool = Field(
        default=False, description="true or false: whether hosts give each other what they have loaded"
    )
    peer_fill_wait: Seconds = Field(
        default=0.05, ge=0.001, le=4, description=f'a duration such as "50ms", up to 4s {DURATION_UNITS}'
    )
    peer_fill_max: Bytes = Field(
        default=64 << 10, ge=1, le=512 << 10, description=f'a size such as "64KiB", up to 512KiB {SIZE_UNITS}'
    )


class Tls(Table):
    """``[bridge.tls]``: the certificate by which a host proves its name; PEM files."""

    cert: Path = Field(description=A_FILE)
    key: Path = Field(description=A_FILE)
    ca: Path = Field(description=A_FILE)


class Bridge(Table):
    """``[bridge]``: how this host's bridge meets the others."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(default=":7946", description=LISTENS)
    peers: list[Annotated[str, AfterValidator(_peer)]] = Field(
        default=[],
        max_length=PEERS_MAX,
        description=f'a list of at most {PEERS_MAX} "host:port", the port from 1 to 65535, IPv6 in brackets',
    )
    discover: Annotated[str, AfterValidator(_discover)] | None = Field(
        default=None, description='"dns:NAME:PORT" or "srv:NAME", NAME a name in the DNS'
    )
    nameserver: Annotated[str, AfterValidator(_nameserver)] | None = Field(
        default=None, description='"address:port" of a DNS server, the address in figures'
    )
    secret_file: Path | None = Field(default=None, description=A_FILE)
    tls: Tls | None = Field(default=None, description="a table: [bridge.tls]")
    peer_budget: Bytes = Field(
        default=16 << 20,
        ge=1 << 20,
        le=1 << 40,
        description=f'what a peer may send in a second: a size such as "16MiB", from 1MiB {SIZE_UNITS}',
    )
    fanout: int = Field(default=32, ge=1, le=256, description="a whole number from 1 to 256")
    heartbeat: Seconds = Field(
        default=0.1,
        ge=0.01,
        le=60.0,
        description=f'a duration such as "100ms", from 10ms to 1min {DURATION_UNITS}',
    )
    lost_after: Seconds = Field(
        default=2.0, le=3600.0, description=f'a duration such as "2s", up to 1h {DURATION_UNITS}'
    )
    drain: Seconds = Field(
        default=10.0, ge=0.0, le=3600.0, description=f'a duration such as "10s", up to 1h {DURATION_UNITS}'
    )
    check_every: Seconds = Field(
        default=30.0, ge=0.0, le=3600.0, description=f'a duration such as "10s", up to 1h {DURATION_UNITS}'
    )
    forget_after: Seconds | None = Field(
        default=None,
        le=365 * DAY_S,
        description=f'a duration such as "1h", up to 365d {DURATION_UNITS}, or no such line',
    )
    metrics: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None, description=f"{LISTENS}, or no such line"
    )
    admin: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None, description=f"{LISTENS}, or no such line; beyond loopback it needs [bridge.tls]"
    )
    http_token_file: Path | None = Field(default=None, description=A_FILE)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Bridge:
        if self.lost_after <= 3 * self.heartbeat:
            accepted = f"a duration above three heartbeats (3 x {self.heartbeat:g}s)"
            raise _contradiction("lost_after", f"{self.lost_after:g}s", accepted)
        if self.nameserver and not self.discover:
            raise _contradiction("nameserver", self.nameserver, "discover beside it")
        if self.forget_after is not None and self.forget_after <= self.lost_after:
            accepted = f"a duration above lost_after ({self.lost_after:g}s)"
            raise _contradiction("forget_after", f"{self.forget_after:g}s", accepted)
        for key, others in (("metrics", [self.listen]), ("admin", [self.listen, self.metrics])):
            found = getattr(self, key)
            if found is not None and any(_clash(found, other) for other in others if other is not None):
                raise _contradiction(key, found, "an address of its own: listen, metrics and admin differ")
        if self.http_token_file is not None and self.admin is None:
            raise _contradiction("http_token_file", self.http_token_file, "admin beside it")
        return self


@dataclass(frozen=True)
class NamespaceConfig:
    """The settings of one namespace, in bytes and seconds; ``default_ttl`` None: values never expire."""

    name: str
    memory: int
    entry_size: int
    default_ttl: float | None
    on_isolation: str
    isolation_ttl: float
    unknown_ttl: float
    origin_lag: float
    jitter: float
    prewarm: bool
    prewarm_weight: float
    prewarm_budget: float
    near_cache: int
    near_objects: bool | str
    compress: int | None
    pickle: bool
    hash_key: bytes
    peer_fill: bool = False
    peer_fill_wait: float = 0.05
    peer_fill_max: int = 64 << 10
    journal: str = "sampled"


class Config(Table):
    """The whole file."""

    host: Host = Field(description="a table: [host]")
    defaults: Defaults | None = Field(default=None, description="a table: [defaults]")
    namespaces: dict[Annotated[str, AfterValidator(_namespace_name)], NamespaceTable] = Field(
        default={},
        max_length=NAMESPACES_MAX,
        description=f"tables: [namespaces.NAME], at most {NAMESPACES_MAX}",
    )
    bridge: Bridge | None = Field(default=None, description="a table: [bridge]")
    _source: str = PrivateAttr(default="the given configuration")

    @model_validator(mode="after")
    def _has_a_namespace(self) -> Config:
        if self.defaults is None and not self.namespaces:
            raise _contradiction("namespaces", None, "[defaults] or at least one [namespaces.NAME]")
        for name, table in self.namespaces.items():
            has_tls = self.bridge is not None and self.bridge.tls is not None
            if table.peer_fill and (table.pickle or not has_tls):
                accepted = (
                    "[bridge.tls], and no pickle = true beside it: what is pickled never leaves the host"
                )
                raise _contradiction(f"namespaces.{name}.peer_fill", True, accepted)
        return self

    @property
    def source(self) -> str:
        """The file it was read from, for messages."""
        return self._source

    @classmethod
    def parse(cls, tables: Mapping[str, Any], *, source: str | None = None) -> Config:
        """Check ``tables``, shaped as the file is; ``source`` is the file's path.

        ``ConfigError`` names every fault, a line each.
        """
        name = source or "the given configuration"
        try:
            config = cls.model_validate(
                {"host": {}, **tables}, context={"folder": os.path.dirname(source or "")}
            )
        except ValidationError as error:
            raise ConfigError("\n".join(f"{name}: {_fault(one, tables)}" for one in error.errors())) from None
        config._source = name
        return config

    def namespace(self, name: str) -> NamespaceConfig:
        """The settings of namespace ``name``.

        ``ConfigError`` when it cannot be a name, ``UnknownNamespace`` when it is not listed and there are no
        defaults to make it from.
        """
        if not isinstance(name, str) or not NAMESPACE.fullmatch(name):
            raise ConfigError(f"{self.source}: namespace: found {name!r}; accepted: {NAMESPACE_NAMES}")
        if self.defaults is None and name not in self.namespaces:
            listed = ", ".join(sorted(self.namespaces))
            raise UnknownNamespace(
                f"{self.source}: namespaces.{name}: found nothing, and no [defaults] to make it from; "
                f"accepted: {listed}; nothing was created"
            )
        given = [table for table in (self.defaults, self.namespaces.get(name)) if table is not None]
        merged = NamespaceTable.model_construct(
            **{key: getattr(table, key) for table in given for key in sorted(table.model_fields_set)}
        )
        found = merged.model_dump()
        found["near_cache"] = min(merged.near_cache, merged.memory // NEAR_CACHE_SHARE)
        return NamespaceConfig(name=name, hash_key=hash_key(self, name), **found)


NAMESPACE_NAMES = "1 to 64 letters, digits, '-' and '_'"
TABLES: dict[str, type[Table]] = {
    "host": Host,
    "defaults": Defaults,
    "namespaces": NamespaceTable,
    "bridge": Bridge,
}


def _fault(error: ErrorDetails, tables: Mapping[str, Any]) -> str:
    """One fault as a line: the dotted key, what was found, what is accepted."""
    where = error["loc"]
    if error["type"] == "contradiction":
        context = error["ctx"]
        return _line((*where, context["key"]), context["found"], context["accepted"])
    if where[-1] == "[key]":
        return _line(where[:1], where[1], NAMESPACE_NAMES)
    found = None if error["type"] == "missing" else _as_written(tables, where, error["input"])
    elsewhere = ELSEWHERE.get(_dotted(where))
    if elsewhere:
        return _line(where, found, elsewhere)
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return f"{_dotted(where)}: an unknown key; accepted: {', '.join(_table_at(where).model_fields)}"
    return _line(where, found, _accepted(where))


def _as_written(tables: Any, where: tuple[int | str, ...], default: object) -> object:
    """The value at ``where`` in the file, before units were read; ``default`` if there is none."""
    for part in where:
        if isinstance(tables, Mapping) and part not in tables:
            return default
        tables = tables[part]
    return tables


def _line(where: tuple[int | str, ...], found: object, accepted: str) -> str:
    return f"{_dotted(where)}: found {_shown(found)}; accepted: {accepted}"


def _dotted(where: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _shown(found: object) -> str:
    text = "nothing" if found is None else repr(found)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _table_at(where: tuple[int | str, ...]) -> type[Table]:
    """The table in which the key at ``where`` stands."""
    if len(where) > 2 and where[:2] == ("bridge", "tls"):
        return Tls
    depth = 2 if where[0] == "namespaces" else 1
    return TABLES[str(where[0])] if len(where) > depth else Config


def _accepted(where: tuple[int | str, ...]) -> str:
    names = [part for part in where if isinstance(part, str)]
    table = _table_at(tuple(names))
    key = names[0] if table is Config else names[-1]
    return table.model_fields[key].description or "something else"


def load(path: str | os.PathLike[str] | None = None) -> Config:
    """Read and check a file; None: the one that ``$CACHEE_CONFIG`` names, else /etc/cachee/cachee.toml.

    ``ConfigError`` when it cannot be read, is no TOML, or has values that cannot be used.
    """
    source = os.path.abspath(path or os.environ.get("CACHEE_CONFIG") or DEFAULT_PATH)
    return loads(_read(source, FILE_BYTES_MAX), source)


def loads(text: bytes, source: str) -> Config:
    """Check a file's text; ``source`` is its path, for messages and for the relative paths in it.

    A byte order mark of UTF-8 before the text is left out.
    """
    try:
        _check_encoding(text)
        tables = tomllib.loads(text.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{source}: not TOML: {error}; accepted: a TOML 1.0 file in UTF-8") from None
    return Config.parse(tables, source=source)


def _check_encoding(text: bytes) -> None:
    """``ValueError`` with a clear message for wrong encodings, for which a decoder's own message is no
    help."""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise ValueError("its first bytes are the byte order mark of UTF-16 or UTF-32; save it as UTF-8")
    if (at := text.find(0)) >= 0:
        raise ValueError(f"byte {at} is zero: it is no text, or UTF-16; save it as UTF-8")


def check_regular(path: str) -> None:
    """``OSError`` for a file that is not regular. Opening a pipe would wait for its writer, and the bridge's
    event loop and the workers read these files while they serve."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def _read(path: str, bytes_max: int, check: Callable[[str], object] = bool) -> bytes:
    try:
        check(path)
        content = _content(path, bytes_max + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = getattr(error, "strerror", None) or str(error)
        limited = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
        takes = "more open files (`ulimit -n`, LimitNOFILE=)" if limited else "a file that this user may read"
        raise ConfigError(f"{path}: cannot be read: {why}; accepted: {takes}") from None
    if len(content) > bytes_max:
        raise ConfigError(f"{path}: found more than {bytes_max} bytes; accepted: at most so many")
    return content


def _content(path: str, bytes_max: int) -> bytes:
    """The file's content, at most ``bytes_max`` bytes. A pipe or a terminal is read to its end, for at most
    PIPE_S. It is opened without blocking, because opening a pipe otherwise waits for a writer."""
    end, content = time.monotonic() + PIPE_S, b""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        ready = select.poll()
        ready.register(file, select.POLLIN)
        while len(content) < bytes_max:
            left_s = end - time.monotonic()
            if left_s <= 0 or not ready.poll(1000 * left_s):
                raise OSError(errno.ETIMEDOUT, f"its end has not come within {PIPE_S:g} s")
            piece = file.read(bytes_max - len(content))
            if piece == b"":
                break
            content += piece or b""
    return content


def hash_key(config: Config, namespace: str) -> bytes:
    """The 16 bytes by which the keys of ``namespace`` are hashed: the same on all hosts with the same file.

    Without a ``hash_key_file`` it is computed from the name alone: all hosts agree, but anybody who knows the
    name can craft keys that collide. ``ConfigError`` when the file cannot be read or its length is not 16 to
    64 bytes.
    """
    path = config.host.hash_key_file
    key = _read(path, 4096, check_regular).rstrip(b"\r\n") if path else b""
    if path and not HASH_KEY_BYTES_MIN <= len(key) <= HASH_KEY_BYTES_MAX:
        raise ConfigError(
            f"{config.source}: host.hash_key_file: found {len(key)} bytes in {path}; "
            f"accepted: {HASH_KEY_BYTES_MIN} to {HASH_KEY_BYTES_MAX} bytes and a line's end"
        )
    return hashlib.blake2b(namespace.encode(), digest_size=16, key=key, person=b"cachee-hash").digest()
