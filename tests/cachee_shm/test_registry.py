"""Codecs of the user's own."""

import os
import subprocess
import sys

import pytest

import cachee_shm
from cachee_shm import registry
from cachee_shm.codec import decode, encode
from cachee_shm.errors import InvalidCodec, Undecodable, Unserializable
from tests.cachee_shm import kept


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(registry, "BY_TYPE", {})
    monkeypatch.setattr(registry, "BY_NAME", {})


def register_money(name="money"):
    cachee_shm.register(kept.Money, name, lambda m: (m.cents, m.currency), lambda parts: kept.Money(*parts))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: v,
        lambda v: [v],
        lambda v: {v: {v}},
        lambda v: kept.Frozen(1, (v,)),
        lambda v: kept.Model(x=v),
    ],
)
def test_a_registered_type_comes_back_at_every_depth(wrap):
    register_money()
    value = wrap(kept.Money(5, "CHF"))
    read = decode(*encode(value))
    assert type(read) is type(value) and read == value


def test_what_it_encodes_to_may_be_anything_that_is_stored():
    register_money()
    cachee_shm.register(kept.Plain, "plain", lambda p: {"x": [p.x]}, lambda state: kept.Plain(state["x"][0]))
    value = [kept.Plain(kept.Money(7)), kept.Plain(kept.Point(1))]
    assert decode(*encode(value)) == value


def test_a_codec_goes_before_what_is_done_with_a_dataclass_or_a_model():
    cachee_shm.register(kept.Reduced, "reduced", lambda r: r.x, kept.Reduced)
    assert decode(*encode([kept.Reduced(5)])) == [kept.Reduced(5)]


def test_a_process_without_the_codec_gets_a_miss_and_so_does_another_name():
    register_money("money-1")
    stored = encode(kept.Money(5))
    registry.BY_NAME.clear(), registry.BY_TYPE.clear()
    register_money("money-2")
    with pytest.raises(Undecodable, match="no codec called 'money-1' is registered in this process"):
        decode(*stored)


def test_a_get_counts_what_it_has_no_codec_for_and_misses():
    register_money()
    with cachee_shm.attach(private=True) as cache:
        cache.set("a", kept.Money(5))
        assert cache.get("a") == kept.Money(5)
        registry.BY_NAME.clear()
        assert cache.get("a", "missed") == "missed"
        assert cache.stats()["undecodable"] == 1


@pytest.mark.parametrize("answer", [lambda state: None, lambda state: 1 // 0, lambda state: kept.Plain()])
def test_a_decoder_that_raises_or_makes_another_type_is_a_miss(answer):
    cachee_shm.register(kept.Money, "money", lambda m: m.cents, answer)
    stored = encode(kept.Money(5))
    with pytest.raises(Undecodable):
        decode(*stored)


def test_an_encoder_that_fails_or_returns_what_is_not_stored_is_refused():
    cachee_shm.register(kept.Money, "money", lambda m: m.nothing, lambda state: None)
    with pytest.raises(Unserializable, match="nothing was stored"):
        encode(kept.Money(5))
    cachee_shm.register(kept.Money, "money", lambda m: object(), lambda state: None)
    with pytest.raises(Unserializable, match="nothing was stored"):
        encode([kept.Money(5)])
    cachee_shm.register(kept.Money, "money", lambda m: [m], lambda state: None)
    with pytest.raises(Unserializable, match="nested over 64 deep"):
        encode(kept.Money(5))


def test_two_codecs_of_one_name_or_one_type_are_refused_and_the_first_goes_on():
    register_money()
    with pytest.raises(InvalidCodec, match=r"codec of tests\.cachee_shm\.kept\.Money.*another name"):
        cachee_shm.register(kept.Plain, "money", lambda p: p.x, kept.Plain)
    with pytest.raises(InvalidCodec, match="has a codec already, 'money'"):
        register_money("coins")
    assert decode(*encode(kept.Money(5))) == kept.Money(5)


def test_a_class_that_was_made_anew_takes_the_place_of_the_old_one(monkeypatch):
    register_money()
    newer = type("Money", (kept.Money,), {"__module__": kept.__name__})
    monkeypatch.setattr(kept, "Money", newer)
    cachee_shm.register(newer, "money", lambda m: m.cents, newer)
    assert type(decode(*encode(newer(5)))) is newer


@pytest.mark.parametrize(
    "arguments",
    [
        (dict, "d", len, len),
        (str, "d", len, len),
        (bool, "d", len, len),
        (tuple, "d", len, len),
        ("Money", "d", len, len),
        (kept.Money, "", len, len),
        (kept.Money, "x" * 65, len, len),
        (kept.Money, 5, len, len),
        (kept.Money, "\ud800" * 65, len, len),
        (kept.Money, "d", None, len),
        (kept.Money, "d", len, None),
    ],
)
def test_what_cannot_be_registered_says_so(arguments):
    with pytest.raises(InvalidCodec, match="registered"):
        cachee_shm.register(*arguments)
    assert registry.BY_NAME == {} and registry.BY_TYPE == {}


def test_another_process_that_has_registered_it_reads_it():
    register_money()
    stored = encode([kept.Money(5, "CHF")])
    program = (
        "import cachee_shm; from tests.cachee_shm.kept import Money; from cachee_shm.codec import decode\n"
        "cachee_shm.register(Money, 'money', vars, lambda parts: Money(*parts))\n"
        f"assert decode(*{stored!r}) == [Money(5, 'CHF')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=os.getcwd())


def test_what_a_codec_decodes_to_another_type_is_undecodable():
    cachee_shm.register(kept.Money, "money", lambda m: (m.cents, m.currency), tuple)
    with pytest.raises(Undecodable, match="the codec 'money' made a tuple of it"):
        decode(*encode(kept.Money(5, "CHF")))
