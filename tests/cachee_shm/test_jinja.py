"""Fragments of Jinja's templates."""

import asyncio

import pytest

from cachee_shm.errors import InvalidKey, InvalidTTL

pytestmark = pytest.mark.needs("frameworks")


def environment_in(shm, **options):
    from jinja2 import DictLoader, Environment

    environment = Environment(extensions=["cachee_shm.jinja.Fragments"], **options)
    environment.cachee_shm = shm
    environment.calls = []

    def slow(text):
        environment.calls.append(text)
        return f"{text} {len(environment.calls)}"

    environment.globals["slow"] = slow
    environment.loader = DictLoader({})
    return environment


def test_a_fragment_is_rendered_once_for_each_key(shm_cache):
    environment = environment_in(shm_cache)
    template = environment.from_string("<{% cache 60, 'side', user %}{{ slow(user) }}{% endcache %}>")
    assert [template.render(user=user) for user in (1, 2, 1, "1")] == ["<1 1>", "<2 2>", "<1 1>", "<1 3>"]
    assert shm_cache.stats()["sets"] == 0


def test_it_is_dropped_by_its_key_and_by_its_tags(shm_cache):
    from cachee_shm.jinja import key

    environment = environment_in(shm_cache)
    template = environment.from_string(
        "{% cache 60, 'side', user, tags=['user:%d' % user] %}{{ slow(user) }}{% endcache %}"
    )
    assert template.render(user=7) == "7 1"
    assert shm_cache.delete(key("side", 7))
    assert template.render(user=7) == "7 2"
    shm_cache.delete_tags("user:7")
    assert template.render(user=7) == "7 3"


def test_a_fragment_without_a_key_is_known_by_its_place(shm_cache):
    environment = environment_in(shm_cache)
    environment.loader.mapping.update(
        a="{% cache none %}{{ slow('a') }}{% endcache %}\n{% cache none %}{{ slow('b') }}{% endcache %}",
        c="{% cache none %}{{ slow('c') }}{% endcache %}",
    )
    for _ in range(2):
        assert environment.get_template("a").render() == "a 1\nb 2"
        assert environment.get_template("c").render() == "c 3"


def test_fragments_of_one_line_without_a_key_are_different_ones(shm_cache):
    environment = environment_in(shm_cache)
    inner = "{% cache none %}{{ slow('b') }}{% endcache %}"
    environment.loader.mapping.update(a="{% cache none %}{{ slow('a') }}{% endcache %} " + 2 * inner)
    assert [environment.get_template("a").render() for _ in range(2)] == ["a 1 b 2b 3"] * 2


def test_without_a_key_a_template_without_a_name_is_an_error(shm_cache):
    """Any two of them would be one fragment."""
    from jinja2 import TemplateSyntaxError

    with pytest.raises(TemplateSyntaxError, match="needs a key"):
        environment_in(shm_cache).from_string("{% cache 60 %}x{% endcache %}")


def test_fragments_may_be_nested_and_are_not_escaped_twice(shm_cache):
    environment = environment_in(shm_cache, autoescape=True)
    template = environment.from_string(
        "{% cache 60, 'out' %}<b>{{ text }}</b>"
        "{% cache 60, 'in' %}<i>{{ text }}</i>{% endcache %}{% endcache %}"
    )
    for _ in range(2):
        assert template.render(text="<&>") == "<b>&lt;&amp;&gt;</b><i>&lt;&amp;&gt;</i>"


def test_an_async_environment_waits_for_no_thread(shm_cache):
    environment = environment_in(shm_cache, enable_async=True)
    template = environment.from_string("{% cache 60, 'side' %}{{ slow('x') }}{% endcache %}")

    async def both():
        return [await template.render_async(), await template.render_async()]

    assert asyncio.run(both()) == ["x 1", "x 1"]


def test_a_mistake_in_the_tag_is_an_error(shm_cache):
    environment = environment_in(shm_cache)
    with pytest.raises(InvalidTTL):
        environment.from_string("{% cache -1, 'a' %}x{% endcache %}").render()
    with pytest.raises(InvalidKey):
        environment.from_string("{% cache 1, thing %}x{% endcache %}").render(thing=object())


def test_no_page_fails_without_a_cache(monkeypatch, tmp_path):
    (tmp_path / "cachee.toml").write_text(
        "[namespaces.a]\nmemory = '4MiB'\n[namespaces.b]\nmemory = '4MiB'\n"
    )
    monkeypatch.setenv("CACHEE_CONFIG", str(tmp_path / "cachee.toml"))
    template = environment_in(None).from_string("{% cache 60, 'side' %}{{ slow('x') }}{% endcache %}")
    assert [template.render() for _ in range(2)] == ["x 1", "x 2"]
