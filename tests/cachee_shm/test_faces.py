"""A mistake of the caller's is the same error whatever the cache is able to do at present."""

import asyncio
import pathlib
import time

import pytest

import cachee_shm
from cachee_shm.bypass import Bypass
from cachee_shm.errors import InvalidKey, InvalidTTL, KeyTooLong, NotACounter, Unserializable
from tests.cachee_shm.processes import until
from tests.cachee_shm.test_successor import Obstacle


def detached(config, monkeypatch):
    cache = cachee_shm.attach(config=config)
    obstacle = Obstacle(config)
    time.sleep(0.02)  # another tick of the coarse clock
    until(lambda: cache.delete("noticed") is False and cache.detached)
    cache.obstacle = obstacle
    return cache


def disabled(config, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    return cachee_shm.attach(config=config)


FACES = {
    "open": lambda config, _: cachee_shm.attach(config=config),
    "private": lambda config, _: cachee_shm.attach(config=config, private=True),
    "detached": detached,
    "disabled": disabled,
    "bypass": lambda config, _: Bypass(cachee_shm.attaching.spec_for(None, config, True)),
}


@pytest.fixture(params=FACES)
def face(request, config, monkeypatch):
    cache = FACES[request.param](config, monkeypatch)
    yield cache
    if hasattr(cache, "obstacle"):
        pathlib.Path(cache.obstacle.path).unlink()
    cache.close()


def in_a_block(cache, key="k", value=1, **options):
    with cache.writing(key) as block:
        block.set(value, **options)


def load(cache, key="k", **options):
    return cache.get_or_load(key, lambda: pytest.fail("it was loaded"), **options)


def aload(cache, key="k", **options):
    async def loader():
        pytest.fail("it was loaded")

    return asyncio.run(cache.aget_or_load(key, loader, **options))


def load_many(cache, key="k", **options):
    return cache.get_or_load_many([key], lambda keys: pytest.fail("it was loaded"), **options)


def aload_many(cache, key="k", **options):
    async def loader(keys):
        pytest.fail("it was loaded")

    return asyncio.run(cache.aget_or_load_many([key], loader, **options))


KEYED = {
    "get": lambda c, key: c.get(key),
    "lookup": lambda c, key: c.lookup(key),
    "in": lambda c, key: key in c,
    "[]": lambda c, key: c[key],
    "get_many": lambda c, key: c.get_many([key]),
    "set": lambda c, key: c.set(key, 1),
    "[] =": lambda c, key: c.__setitem__(key, 1),
    "add": lambda c, key: c.add(key, 1),
    "set_many": lambda c, key: c.set_many({key: 1}),
    "touch": lambda c, key: c.touch(key),
    "delete": lambda c, key: c.delete(key),
    "del []": lambda c, key: c.__delitem__(key),
    "delete_many": lambda c, key: c.delete_many([key]),
    "delete_tags": lambda c, key: c.delete_tags(key),
    "get_or_load": load,
    "aget_or_load": aload,
    "get_or_load_many": load_many,
    "aget_or_load_many": aload_many,
    "writing": in_a_block,
    "events": lambda c, key: c.events(keys=[key]),
    "host.incr": lambda c, key: c.host.incr(key, initial=0),
    "host.decr": lambda c, key: c.host.decr(key),
    "host.cas, no token": lambda c, key: c.host.cas(key, 1, None),
    "host.lock": lambda c, key: c.host.lock(key),
}
KEPT = {
    "set": lambda c, **options: c.set("k", 1, **options),
    "add": lambda c, **options: c.add("k", 1, **options),
    "set_many": lambda c, **options: c.set_many({"k": 1}, **options),
    "get_or_load": load,
    "aget_or_load": aload,
    "get_or_load_many": load_many,
    "aget_or_load_many": aload_many,
    "writing": in_a_block,
}
LIVED = KEPT | {
    "touch": lambda c, ttl: c.touch("k", ttl=ttl),
    "host.incr": lambda c, ttl: c.host.incr("none", initial=0, ttl=ttl),
    "negative": lambda c, ttl: load(c, negative_ttl=ttl),
    "host.lock": lambda c, ttl: c.host.lock("l", ttl=ttl),
}
VALUED = {
    "set": lambda c, value: c.set("k", value),
    "[] =": lambda c, value: c.__setitem__("k", value),
    "add": lambda c, value: c.add("absent", value),
    "writing": lambda c, value: in_a_block(c, value=value),
}
MISTAKES = {
    **{f"{verb}, no key": (lambda c, f=f: f(c, 7), InvalidKey) for verb, f in KEYED.items()},
    **{f"{verb}, a long key": (lambda c, f=f: f(c, "x" * 2000), KeyTooLong) for verb, f in KEYED.items()},
    **{f"{verb}, ttl=-1": (lambda c, f=f: f(c, ttl=-1), InvalidTTL) for verb, f in LIVED.items()},
    **{
        f"{verb}, a ttl in words": (lambda c, f=f: f(c, ttl="a minute"), InvalidTTL)
        for verb, f in LIVED.items()
    },
    **{f"{verb}, one str of tags": (lambda c, f=f: f(c, tags="tag"), InvalidKey) for verb, f in KEPT.items()},
    **{f"{verb}, a tag of 7": (lambda c, f=f: f(c, tags=[7]), InvalidKey) for verb, f in KEPT.items()},
    **{f"{verb}, no value": (lambda c, f=f: f(c, object()), Unserializable) for verb, f in VALUED.items()},
    "get_many, one str": (lambda c: c.get_many("ab"), InvalidKey),
    "get_many, no keys": (lambda c: c.get_many(7), InvalidKey),
    "delete_many, one str": (lambda c: c.delete_many("ab"), InvalidKey),
    "set_many, no mapping": (lambda c: c.set_many(["a"]), TypeError),
    "get_or_load, stale": (lambda c: load(c, stale=-1), InvalidTTL),
    "get_or_load_many, one str": (lambda c: c.get_or_load_many("ab", pytest.fail), InvalidKey),
    "get_or_load_many, no keys": (lambda c: c.get_or_load_many(7, pytest.fail), InvalidKey),
    "get_or_load_many, one key twice": (lambda c: c.get_or_load_many(["k", b"k"], pytest.fail), InvalidKey),
    "get_or_load_many, stale": (lambda c: load_many(c, stale=-1), InvalidTTL),
    "events, one str": (lambda c: c.events(keys="ab"), InvalidKey),
    "host.incr, no number": (lambda c: c.host.incr("n", "1", initial=0), TypeError),
    "host.incr, no first number": (lambda c: c.host.incr("n", initial="0"), TypeError),
    "host.incr, beyond 64 bits": (lambda c: c.host.incr("n", 1 << 63, initial=0), NotACounter),
    "host.lock, no ttl": (lambda c: c.host.lock("l", ttl=0), InvalidTTL),
    "host.lock, wait=-1": (lambda c: c.host.lock("l", wait=-1), ValueError),
    "host.lock, waiting in words": (lambda c: c.host.lock("l", wait="long"), ValueError),
    "get, without a key": (lambda c: c.get(), TypeError),
    "set, without a value": (lambda c: c.set("k"), TypeError),
    "set, another argument": (lambda c: c.set("k", 1, lifetime=1), TypeError),
    "touch, another argument": (lambda c: c.touch("k", lifetime=1), TypeError),
}


def test_every_interface_raises_the_same_error_for_a_mistake(face):
    for name, (verb, error) in MISTAKES.items():
        with pytest.raises(error) as raised:
            verb(face)
        assert type(raised.value) is error, name


def test_a_closed_cache_says_so_at_every_verb(face):
    face.close()
    for name, verb in KEYED.items():
        with pytest.raises(cachee_shm.errors.Closed):
            pytest.fail(f"{name}: {verb(face, 'k')}")
