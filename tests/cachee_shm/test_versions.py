"""Processes of two Python versions share one segment: values, leases, debts, and deaths.

interpreters.py finds the second one; the extension is compiled for it into a temporary environment. Without
one these tests are skipped.
"""

import base64
import importlib
import json
import subprocess
import sys
import threading

import pytest

from cachee_shm import codec
from tests import machine
from tests.cachee_shm import interpreters
from tests.cachee_shm.processes import child

NEEDED = ("msgpack", "posix-ipc", "pydantic", "tomli")

# A value of each codec type, in a module that both versions import: classes are found by name.
SHOP = """
import datetime as dt, decimal, enum, uuid
from typing import Any, Optional
from pydantic import BaseModel, Field

class Colour(enum.Enum):
    RED = 1

class Street(BaseModel):
    name: str
    colour: Colour = Colour.RED

class User(BaseModel):
    id: int
    home: Street | None = None
    work: Optional[Street] = None
    tags: list[str] = []
    extra: dict[str, Any] = Field(default_factory=dict)
    price: decimal.Decimal = decimal.Decimal(0)
    seen: dt.datetime | None = None

VALUES = {
    "bytes": b"\\x00\\xff", "ascii": "abc", "utf-8": "ü€", "int": -2, "float": 0.1,
    "false": False, "true": True, "none": None,
    "long": 1 << 70, "plain": {"a": [1, {"b": None}], "ü": 1.5}, "keys": {1: 2, None: b"x"},
    "datetime": dt.datetime(2026, 11, 25, 1, 2, 3, 4, dt.timezone(dt.timedelta(hours=1), "CET")),
    "date": dt.date(2026, 11, 25), "time": dt.time(1, 2, fold=1), "delta": dt.timedelta(-1, 2, 3),
    "decimal": decimal.Decimal("1.10"), "uuid": uuid.UUID(int=7), "complex": 1 - 2j,
    "tuple": (1, (2, [3])), "set": {"a", "b", "c", 1, 2.5, None}, "frozenset": frozenset({(1, 2), "x"}),
    "enum": Colour.RED, "model": User(id=1, home=Street(name="x"), tags=["y"], price=decimal.Decimal("2.5")),
    "models": [Street(name="a"), {"k": Street(name="b")}],
}
"""


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """What makes `child` start the second version: its Python, and where the package compiled for it is."""
    found = interpreters.another()
    if found is None:
        machine.skip("second Python", "none from 3.10 on, with its headers, is here")
    folder = tmp_path_factory.mktemp("second")
    environment = folder / "environment"
    subprocess.run([found.python, "-m", "venv", environment], check=True)
    installed = subprocess.run([environment / "bin/pip", "install", "--quiet", *NEEDED], capture_output=True)
    if installed.returncode:
        machine.skip("second Python", f"pip cannot install {', '.join(NEEDED)} for {found.python}")
    interpreters.build(found, folder / "path")
    (folder / "path" / "version_values.py").write_text(SHOP)
    # The working directory comes first on the path of `python -c`.
    return {"python": str(environment / "bin/python"), "under": ("env", f"--chdir={folder / 'path'}")}


@pytest.fixture
def values(tmp_path, monkeypatch):
    """Every value, of this version's classes."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "version_values.py").write_text(SHOP)
    module = importlib.import_module("version_values")
    yield module.VALUES
    sys.modules.pop("version_values")


def test_values_of_every_codec_type_are_read_by_the_other_version(cache, config, second, values):
    missing = [name for name, value in values.items() if not cache.set(name, value)]
    assert missing == []
    code = """
from version_values import VALUES
wrong = [name for name, value in VALUES.items() if cache.get(name, 'missing') != value]
for name, value in VALUES.items():
    assert cache.set(name + ' back', value)
say(json.dumps([sys.version_info[:2], wrong]))
"""
    with child(code, config=config, **second) as other:
        version, wrong = json.loads(other.line())
    assert tuple(version) != sys.version_info[:2]
    assert wrong == []
    assert {name: cache.get(f"{name} back", "missing") for name in values} == values


def test_values_are_the_same_bytes_in_both_versions_so_that_hosts_agree_on_digests(second, values):
    code = """
import base64
from cachee_shm import codec
from version_values import VALUES
encoded = {name: codec.encode(value) for name, value in VALUES.items()}
say(json.dumps({name: [tag, base64.b64encode(data).decode()] for name, (tag, data) in encoded.items()}))
"""
    with child(code, **second) as other:
        theirs = json.loads(other.line())
    ours = {name: codec.encode(value) for name, value in values.items()}
    assert {name: [tag, base64.b64encode(data).decode()] for name, (tag, data) in ours.items()} == theirs


def test_a_write_of_one_version_is_what_the_other_reads_next(cache, config, second):
    code = """
for number in range(2000):
    line = wait()
    say(cache.get('turn'))
    cache.set('turn', {'theirs': number})
"""
    with child(code, config=config, **second) as other:
        for number in range(2000):
            cache.set("turn", {"ours": number})
            other.tell()
            assert other.line() == str({"ours": number})
            while (value := cache.get("turn")) == {"ours": number}:
                pass
            assert value == {"theirs": number}


def test_the_debts_leases_and_pages_of_a_killed_version_are_the_other_s_to_settle(cache, config, second):
    code = """
for number in range(500):
    cache.set(f'filled-{number}', bytes(1000))
cache.writing('owed').__enter__()
def load():
    say('ready')
    die()
cache.get_or_load('load', load)
"""
    for _ in range(5):
        cache.set("owed", 1)
        with child(code, config=config, **second) as other:
            assert other.line() == "ready"
            other.died()
        assert cache.sweep() == 1
        assert "owed" not in cache
        assert cache.get_or_load("load", lambda: "loaded") == "loaded"
        cache.delete("load")
        for number in range(2000):
            assert cache.set(f"after-{number}", bytes(1000))


def test_a_key_is_loaded_once_by_two_versions_that_miss_it_together(cache, config, second):
    code = """
def load():
    say('loading')
    wait()
    return {'by': 'theirs'}
say(cache.get_or_load('key', load))
"""
    with child(code, config=config, **second) as other:
        assert other.line() == "loading"
        got = []
        waiting = threading.Thread(target=lambda: got.append(cache.get_or_load("key", lambda: "twice")))
        waiting.start()
        while cache.stats()["lease_waits"] == 0:
            pass
        other.tell()
        waiting.join()
        assert got == [{"by": "theirs"}]
        assert other.line() == str(got[0])


def test_both_versions_keep_their_own_while_one_is_killed_again_and_again(cache, config, second):
    code = """
say('writing')
while True:
    for number in range(100):
        cache.set(f'theirs-{number}', ['theirs', number] * 20)
        value = cache.get(f'ours-{number}')
        assert value is None or value == ['ours', number] * 20
"""
    for _ in range(5):
        with child(code, config=config, **second) as other:
            assert other.line() == "writing"
            for number in [*range(100)] * 30:
                cache.set(f"ours-{number}", ["ours", number] * 20)
                value = cache.get(f"theirs-{number}")
                assert value is None or value == ["theirs", number] * 20
            other.kill()
        cache.sweep()
    assert cache.stats()["attached"] == 1
