"""Exceptions of the work itself, told from those that a signal handler raises in its midst."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MISTAKES", "is_its_own"]

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
