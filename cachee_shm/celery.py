"""Celery: the results of tasks, cached on the host that runs them.

    from cachee_shm.celery import cached_task

    @cached_task(app, ttl=300, key="report:{year}")
    def report(year): ...

    report.delay(2026).get()         # runs at most once a host and lifetime
    report.invalidate(2026)          # on every host

A worker that forks its children needs nothing: a child attaches again by itself.

A result stays on the host that computed it. Celery's result backend has to be something that all hosts reach.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cachee_shm.backing import Backing
from cachee_shm.cached import Signature
from cachee_shm.loading import DEFAULT_TTL, TTL

if TYPE_CHECKING:
    from celery import Celery, Task

    from cachee_shm.backing import Source

__all__ = ["cached_task"]


def cached_task(
    app: Celery,
    *,
    ttl: TTL = DEFAULT_TTL,
    key: str | Callable[..., str] | None = None,
    tags: Sequence[str] = (),
    namespace: str | None = None,
    config: Source = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], Task]:
    """Decorate a function: it becomes a task of ``app`` whose results are cached as by ``Cache.cached``.

    ``ttl``, ``key``, ``tags``: as of ``Cache.cached``; the key is made of the task's arguments.
    ``namespace``, ``config``: as of ``cachee_shm.attach``, which is called by the first process that runs
    or invalidates the task. ``options``: those of ``app.task``; a task with ``bind=True`` is refused
    (``TypeError``), since ``self`` would be a part of its key. The task has ``invalidate(*args, **kwargs)``
    and ``health()``, which is ``Cache.health``. Where the namespace cannot be attached, each task runs.
    """
    if options.get("bind"):
        raise TypeError("a cached task has no self. Nothing was registered. Leave bind=True out.")
    backing = Backing(namespace, config)

    def decorate(function: Callable[..., Any]) -> Task:
        signature = Signature(function, key, tags)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            every = signature.tags_of(args, kwargs)
            name = signature.key_of(args, kwargs)
            return backing.cache.get_or_load(name, load, args, kwargs, ttl=ttl, tags=every)

        def load(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return function(*args, **kwargs)

        def invalidate(*args: Any, **kwargs: Any) -> bool:
            """Drop the result of a call with these arguments, on every host; was it here?"""
            return backing.cache.delete(signature.key_of(args, kwargs))

        task = app.task(**options)(run)
        task.invalidate = invalidate
        task.health = backing.health
        return task

    return decorate
