"""How large a value may be: what its guide says, for each memory that it names."""

import re
from pathlib import Path

import pytest

import cachee_shm
from cachee_shm.errors import ValueTooLarge

GUIDE = (Path(__file__).resolve().parents[2] / "cachee_shm" / "README.md").read_text(encoding="utf-8")
MIB = 1 << 20


def said():
    """(memory, largest value) in MiB, from the guide's sentence."""
    sentence = re.search(r"largest value depends on `memory`: (.+?)\. With", GUIDE, re.DOTALL)
    assert sentence, "the guide does not say how large a value may be"
    found = re.findall(r"([\d.]+)\s+MiB\s+with (\d+)", sentence[1])
    assert len(found) >= 4
    return [(int(memory), float(value)) for value, memory in found]


@pytest.mark.parametrize(("memory", "largest"), said())
def test_the_largest_value_is_the_one_that_the_readme_names(memory, largest):
    config = {"host": {"name": "largest"}, "namespaces": {"shop": {"memory": f"{memory}MiB"}}}
    with cachee_shm.attach(private=True, config=config) as cache:
        fits = bytes(int((largest - 0.05) * MIB))
        assert cache.set("k", fits)
        assert cache.get("k") == fits
        with pytest.raises(ValueTooLarge):
            cache.set("k", bytes(int((largest + 0.1) * MIB)))
        assert "k" not in cache
