"""A cache without a namespace: what a backend has whose configuration cannot be used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from cachee_shm.health import Health

__all__ = ["Nowhere"]


class Nowhere:
    """Finds nothing, keeps nothing, and announces nothing."""

    closed = False

    def __init__(self, why: str) -> None:
        self.why = why

    def health(self) -> Health:
        return Health(False, self.why, "none", None, False, (), 0, 0)

    def get(self, key: Any, default: Any = None) -> Any:
        return default

    def __contains__(self, key: Any) -> bool:
        return False

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return {}

    def set(self, *_: Any) -> bool:
        return False

    def add(self, *_: Any) -> bool:
        return True

    def touch(self, *_: Any) -> bool:
        return False

    def delete(self, key: Any) -> bool:
        return False

    def set_many(self, mapping: Mapping[Any, Any], *_: Any) -> list[Any]:
        return list(mapping)

    def delete_many(self, keys: Iterable[Any]) -> None: ...

    def clear(self) -> None: ...

    def get_or_load(self, key: Any, loader: Callable[..., Any], *args: Any, ttl: Any = None) -> Any:
        return loader(*args)

    async def aget_or_load(
        self, key: Any, loader: Callable[..., Awaitable[Any]], *args: Any, ttl: Any = None
    ) -> Any:
        return await loader(*args)

    def _token(self) -> tuple[int, int]:
        return 0, 0

    def _fill(self, *_: Any) -> bool:
        return False

    def _incr(self, *_: Any) -> int | None:
        return None
