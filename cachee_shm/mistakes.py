"""Exceptions of the work itself, told from those that a signal handler raises in its midst."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["MISTAKES", "is_its_own", "refuse_unknown"]

MISTAKES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an object raises that lies about itself, or that another thread changes. Not every Exception: a signal
handler's may come there too, and is the caller's."""


def is_its_own(error: Exception, work: Callable[[Any], object], argument: object) -> bool:
    """Whether ``work(argument)``, which raised ``error``, raises it of itself: then it does so again.

    What a signal handler raised in it (a soft time limit) does not come again, and is the caller's.
    """
    try:
        work(argument)
    except type(error):
        return True
    return False


def refuse_unknown(verb: Callable[..., object], unknown: Iterable[str]) -> None:
    """``TypeError`` that names the options which a verb has."""
    options: dict[str, Any] = getattr(verb, "__kwdefaults__", None) or {}
    raise TypeError(
        f"{verb.__name__}() has no option {', '.join(unknown)}. Nothing was read or written. "
        f"Accepted: {', '.join(options)}."
    )
