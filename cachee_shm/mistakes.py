"""Tells an exception of the work itself from one that a signal handler raises during the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

__all__ = ["MISTAKES", "is_its_own", "refuse_loader", "refuse_unknown"]

MISTAKES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an object raises if it does not behave as its class says, or if another thread changes it. Not every
``Exception``: one that a signal handler raises at that moment belongs to the caller."""


def is_its_own(error: Exception, work: Callable[[Any], object], argument: object) -> bool:
    """Whether ``work(argument)``, which raised ``error``, raises it again.

    If not, a signal handler raised it (a soft time limit), and the caller must get it.
    """
    try:
        work(argument)
    except type(error):
        return True
    return False


def refuse_loader(verb: Callable[..., object], loader: object) -> NoReturn:
    """``TypeError`` for a loader that cannot be called, also on a hit, so that the mistake is seen early."""
    raise TypeError(
        f"{verb.__name__}() takes a loader that can be called, not {loader!r:.100}. Nothing was read or "
        "written. Give the function itself; its arguments follow it."
    )


def refuse_unknown(verb: Callable[..., object], unknown: Iterable[str]) -> None:
    """``TypeError`` that names the options which a verb has."""
    options: dict[str, Any] = getattr(verb, "__kwdefaults__", None) or {}
    raise TypeError(
        f"{verb.__name__}() has no option {', '.join(unknown)}. Nothing was read or written. "
        f"Accepted: {', '.join(options)}."
    )
