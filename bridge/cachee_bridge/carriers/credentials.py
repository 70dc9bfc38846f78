"""This host's secrets and certificate, read from files, and read again when these change.

    at the start    what cannot be used is a ConfigError, and the bridge does not start
    SIGHUP          all files are read at once
    now and then    when a file has changed and then been left alone from one look to the next
    broken          one line in the log; what was in use stays in use, and so until the files change again

What is new holds for links that begin from then on. Those that are up stay up.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from cachee_bridge.carriers.tls import Contexts, Files, load
from cachee_bridge.wire.auth import check_secrets
from cachee_shm.config import Bridge, check_regular
from cachee_shm.errors import AuthError, ConfigError

if TYPE_CHECKING:
    from cachee_bridge.wire.identity import Limits

SECRET_BYTES_MAX = 4096

log = logging.getLogger("cachee_bridge")


class Credentials:
    """The secrets and the certificate of one host."""

    def __init__(self, bridge: Bridge, name: str) -> None:
        """ConfigError when they cannot be used. A certificate that is only outside of its dates is used, with
        a warning: the clock may still be wrong, or the certificate may be renewed at any time."""
        self._name = name
        self._secret_file = bridge.secret_file
        self._files = Files(bridge.tls.cert, bridge.tls.key, bridge.tls.ca) if bridge.tls else None
        self._tried = self._seen = self._traces()
        self.secrets: tuple[bytes, ...] = ()
        self.tls: Contexts | None = None
        """None without [bridge.tls]."""
        self.namespaces: Limits = None
        """The namespaces that the certificate allows."""
        if self._secret_file is not None:
            self.secrets = read_secrets(self._secret_file)
        if self._files is not None:
            self.tls, self.namespaces, fault = self._load(self._files)
            if fault:
                log.warning("%s; no link comes up until it is replaced", fault)
        self._warn_of_open_files()

    @property
    def given(self) -> bool:
        """Whether there is anything to prove."""
        return bool(self.secrets) or self.tls is not None

    def look(self) -> bool:
        """Called each second; returns whether something new was read."""
        before, self._seen = self._seen, self._traces()
        return self._seen == before and self._seen != self._tried and self.reload()

    def reload(self) -> bool:
        """Reads all files. Returns whether they can be used; if not, it logs that and changes nothing."""
        self._tried = self._seen = self._traces()
        try:
            self._reload()
        except ConfigError as error:
            log.error("%s; the bridge goes on with what it had read before; correct the file", error)
            return False
        self._warn_of_open_files()
        return True

    def _reload(self) -> None:
        secrets = read_secrets(self._secret_file) if self._secret_file is not None else ()
        if self._files is not None:
            tls, namespaces, fault = self._load(self._files)
            if fault:
                raise ConfigError(fault)
            if namespaces != self.namespaces:
                raise ConfigError(
                    f"certificate {self._files.cert}: it allows {_listed(namespaces)} and the one in use "
                    f"{_listed(self.namespaces)}; restart the bridge to use it"
                )
            self.tls = tls
        self.secrets = secrets

    def _load(self, files: Files) -> tuple[Contexts, Limits, str]:
        contexts, identity, fault = load(files)
        try:
            return contexts, identity.limits(self._name), fault
        except AuthError:
            raise ConfigError(
                f"certificate {files.cert}: found {identity}; accepted: one for {self._name!r}, as this host "
                "is named"
            ) from None

    def _warn_of_open_files(self) -> None:
        key = self._files.key if self._files is not None else None
        for path in (self._secret_file, key):
            with contextlib.suppress(OSError):
                if path is not None and os.stat(path).st_mode & 0o007:
                    log.warning("%s is open to every user of this machine; chmod o= %s", path, path)

    def _traces(self) -> list[tuple[int, int, int] | None]:
        """Changes if any file changes, also one that is replaced behind a symbolic link."""
        files = (self._files.cert, self._files.key, self._files.ca) if self._files is not None else ()
        return [_trace(path) for path in (self._secret_file, *files) if path is not None]


def read_secrets(path: str) -> tuple[bytes, ...]:
    """The lines of the file that are not empty; ConfigError when they cannot serve as secrets."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            text = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"secret file {path}: cannot be read: {error.strerror}") from None
    secrets = tuple(line for line in text.replace(b"\r", b"\n").split(b"\n") if line)
    try:
        check_secrets(secrets)
    except AuthError as error:
        raise ConfigError(f"secret file {path}: {error}") from None
    if not secrets or len(text) > SECRET_BYTES_MAX:
        raise ConfigError(
            f"secret file {path}: found {len(text)} bytes; accepted: one secret in a line, or two while "
            f"it is changed, in at most {SECRET_BYTES_MAX} bytes"
        )
    return secrets


def _listed(namespaces: Limits) -> str:
    return "all namespaces" if namespaces is None else ", ".join(sorted(namespaces))


def _trace(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
