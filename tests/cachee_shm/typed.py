"""What type checkers say of calls that are right, and of some that are wrong: see test_types.py.

It is never run. An expected error is ignored by name; to mypy, an ignored line without an error is one too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import assert_type

import cachee_shm
from cachee_shm import Load
from cachee_shm.cached import AsyncCachedFunction, CachedFunction, CacheInfo

cache = cachee_shm.attach()


def user(uid: int) -> str:
    return f"user {uid}"


def page(uid: int, number: int = 1) -> list[str]:
    return [f"page {number} of {uid}"]


async def auser(uid: int) -> str:
    return f"user {uid}"


async def loads() -> None:
    assert_type(cache.get_or_load("a", user, 1), str)
    assert_type(cache.get_or_load("a", ttl=5), Any)
    assert_type(cache.get_or_load("a", page, 1, ttl=5), list[str])
    assert_type(cache.get_or_load("a", page, 1, 2, stale=5, early=True), list[str])
    assert_type(cache.get_or_load("a", lambda: 1), int)
    assert_type(await cache.aget_or_load("a", auser, 1), str)
    cache.get_or_load("a", user, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.get_or_load("a", user)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType, reportCallIssue]
    cache.get_or_load("a", user, 1, on_error="no")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await cache.aget_or_load("a", user, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def users(keys: list[str], active: bool = True) -> dict[str, int]:
    return dict.fromkeys(keys, int(active))


async def ausers(keys: Sequence[str]) -> Mapping[str, int]:
    return dict.fromkeys(keys, 1)


async def loads_of_many() -> None:
    assert_type(cache.get_or_load_many(["a"], users), dict[str, int | None])
    assert_type(cache.get_or_load_many(["a"], users, False, ttl=5), dict[str, int | None])
    assert_type(await cache.aget_or_load_many(("a", "b"), ausers, early=True), dict[str, int | None])
    cache.get_or_load_many([b"a"], users)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType]
    cache.get_or_load_many(["a"], users, "no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await cache.aget_or_load_many(["a"], users)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType]


@cache.cached
def bare(uid: int) -> str:
    return str(uid)


@cache.cached(key="user:{uid}:{number}", ttl=60)
def decorated(uid: int, number: int = 1) -> list[str]:
    return page(uid, number)


@cache.cached(key="user:{uid}")
async def adecorated(uid: int) -> str:
    return await auser(uid)


class Repository:
    id = 1

    @cache.cached(key="{self.id}:{uid}")
    def user(self, uid: int) -> str:
        return user(uid)

    @cache.cached(key="{self.id}:{uid}:later")
    async def auser(self, uid: int) -> str:
        return await auser(uid)


async def functions(repository: Repository) -> None:
    assert_type(bare(1), str)
    assert_type(decorated(1), list[str])
    assert_type(decorated(1, number=2), list[str])
    assert_type(decorated.refresh(1), list[str])
    assert_type(decorated.invalidate(1), bool)
    assert_type(decorated.cache_info(), CacheInfo)
    assert_type(await adecorated(1), str)
    assert_type(await adecorated.refresh(1), str)
    assert_type(adecorated.invalidate(1), bool)
    assert_type(repository.user(1), str)
    assert_type(repository.user.invalidate(1), bool)
    assert_type(await repository.auser(1), str)
    sync: CachedFunction[[int], str] = bare
    awaited: AsyncCachedFunction[[int], str] = adecorated
    assert_type(sync(1), str)
    assert_type(await awaited(1), str)
    decorated("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    decorated.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    repository.user("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def verbs() -> None:
    assert_type(cache.get("a"), Any)
    assert_type(cache.lookup("a"), tuple[Any, bool])
    assert_type(cache.set("a", 1, ttl=None, tags=["t"]), bool)
    assert_type(cache.set_many({"a": 1}), list[Any])
    assert_type(cache.delete("a"), bool)
    assert_type(cache.add("a", 1), bool)
    assert_type(cache.host.incr("a", initial=0), int)
    value, token = cache.host.gets("a")
    assert_type(token, bytes | None)
    assert_type(cache.host.cas("a", value, token, ttl=5), bool)
    with cache.host.lock("a", ttl=None, wait=0) as lock:
        assert_type(lock.fence, int)
        assert_type(lock.held(), bool)
        assert_type(lock.release(), bool)
    assert_type(cache.wait_synced(), bool)
    assert_type(cachee_shm.current_load(), Load | None)
    cache.set(1, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
