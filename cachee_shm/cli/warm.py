"""``cachee warm``: a separate process that loads ahead for its host, with the origins of an application.

One lock of the host decides which process loads (`prewarm.py`). This process and workers that call
``prewarm.start`` or ``run`` all try to take it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from cachee_shm import prewarm
from cachee_shm.bypass import Bypass
from cachee_shm.cache import Cache
from cachee_shm.errors import CacheeError, ConfigError
from cachee_shm.service import SERVICE

OK = 0
DRAIN_S = 5.0  # for plain loaders that are under way; what takes longer ends with the process
POLL_S = 0.02
STATE = "Nothing was loaded."


class AppError(CacheeError):
    """The application's module or function raised. Nothing was loaded: run it alone, and correct it."""


def warm(options: argparse.Namespace) -> int:
    """Load ahead until SIGTERM or SIGINT; 0 then."""
    if options.config:
        os.environ["CACHEE_CONFIG"] = options.config
    os.environ.setdefault(SERVICE, "cachee warm")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return asyncio.run(_warm(options, _function(*options.app)))


def _function(module: str, name: str) -> Callable[[], object]:
    """The function that ``--app`` names. Raises ``ConfigError`` if there is none."""
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"--app: there is no module {error.name}. {STATE} It is looked for in the current directory, "
                "then where this Python finds its modules."
            ) from None
        raise AppError(f"--app: importing {module} {_raised(error)}") from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(
            f"--app: {module} has no function {name}. {STATE} Name one that returns a Cache with its "
            "origins, or a list of them."
        )
    return cast("Callable[[], object]", found)


async def _warm(options: argparse.Namespace, function: Callable[[], object]) -> int:
    caches = await _caches(function)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    threads = ThreadPoolExecutor(options.concurrency * len(caches))
    loop.set_default_executor(threads)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    bounds = {"concurrency": options.concurrency, "rate": options.rate}
    runs = [
        asyncio.create_task(prewarm.run(cache, began=partial(_say, cache, "loads ahead"), **bounds))
        for cache in caches
    ]
    for cache in caches:
        _say(cache, "is watched")
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait([stop, *runs], return_when=asyncio.FIRST_COMPLETED)
    for each in (stop, *runs):
        each.cancel()
    ends = await asyncio.gather(*runs, return_exceptions=True)
    await _drain(threads)
    failed = [error for error in ends if isinstance(error, Exception)]
    if failed:
        raise failed[0]
    return OK


async def _caches(function: Callable[[], object]) -> list[Cache]:
    """The caches that the application's function (or coroutine function) returns, checked."""
    try:
        made = function()
        if inspect.iscoroutine(made):
            made = await made
    except CacheeError:
        raise
    except Exception as error:
        raise AppError(f"--app: the function {_raised(error)}") from None
    caches = list(made) if isinstance(made, Sequence) else [made]
    if not caches:
        raise ConfigError(f"--app: the function returned no cache. {STATE}")
    return [_checked(cache) for cache in caches]


def _checked(cache: object) -> Cache:
    if not isinstance(cache, Cache):
        raise ConfigError(
            f"--app: the function returned {cache!r:.80}. {STATE} It has to return what attach() returned, "
            "or a list of that."
        )
    what = f"--app: the cache of namespace {cache.namespace}"
    if isinstance(cache, Bypass):
        raise ConfigError(f"{what} holds nothing, since CACHEE_DISABLE is set. {STATE}")
    if cache.warm_stats() is None:
        raise ConfigError(
            f"{what} has a segment that was made without prewarm = true. {STATE} Set it for this namespace; "
            "if it is set, the segment is made anew once nobody is attached to it."
        )
    if not any(origin.loads for origin in cache._origins or ()):
        raise ConfigError(f"{what} has no origin that loads. {STATE} Call cache.origin() in the function.")
    return cache


def _raised(error: Exception) -> str:
    """The exception that the application raised, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return f"raised {type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno}). {STATE}"
    return f"raised {error!r} ({place.filename}, line {place.lineno}). {STATE}"


def _say(cache: Cache, what: str) -> None:
    print(f"namespace {cache.namespace}: {what}", flush=True)


async def _drain(threads: ThreadPoolExecutor) -> None:
    """Wait for loads in threads, which cannot be cancelled. One that hangs must not keep the process."""
    threads.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + DRAIN_S
    while any(thread.is_alive() for thread in threads._threads):
        if time.monotonic() >= until:
            sys.stdout.flush()
            os._exit(OK)
        await asyncio.sleep(POLL_S)
