"""The name by which people know a process: ``attach(service=)``, ``$CACHEE_SERVICE``, or its program's name.

The name stands in the roster of each segment that the process is attached to, beside its pid.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cachee_shm.errors import ConfigError

__all__ = ["SERVICE", "SERVICE_BYTES_MAX", "program_name", "service_name"]

SERVICE = "CACHEE_SERVICE"
SERVICE_BYTES_MAX = 24  # of the roster's slot


def service_name(service: str | None) -> str:
    """``service``, else ``$CACHEE_SERVICE``, else the program's name, cut to what a slot holds.

    Raises ``ConfigError`` for a name that is empty, longer than 24 bytes of UTF-8, or not printable.
    """
    if service is not None:
        return _judged("service", service)
    named = os.environ.get(SERVICE)
    if named:
        return _judged(f"${SERVICE}", named)
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = program_name(sys.argv, getattr(module, "name", None))
    shown = "".join(each if each.isprintable() else "?" for each in name)
    return shown.encode(errors="replace")[:SERVICE_BYTES_MAX].decode(errors="ignore") or "python"


def _judged(source: str, name: object) -> str:
    if isinstance(name, str) and name and name.isprintable() and len(name.encode()) <= SERVICE_BYTES_MAX:
        return name
    raise ConfigError(
        f"{source}: found {name!r}; accepted: 1 to {SERVICE_BYTES_MAX} bytes of printable text. "
        "Nothing was attached."
    )


def program_name(argv: Sequence[str], module: str | None) -> str:
    """``module``: the argument of ``python -m``. ``gunicorn`` and ``python -m gunicorn`` have the same
    name."""
    if module and module != "__main__":
        return module.removesuffix(".__main__")
    path = argv[0] if argv else ""
    if path in ("", "-", "-c", "-m"):
        return "python"
    folder, name = os.path.split(path)
    return os.path.basename(folder) if name == "__main__.py" and folder else name
