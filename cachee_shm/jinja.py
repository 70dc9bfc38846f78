"""Jinja: parts of templates that are rendered once a host and lifetime.

    environment = Environment(extensions=["cachee_shm.jinja.Fragments"])
    environment.cachee_shm = cachee_shm.attach("shop")     # left out, it is attached at the first use

    {% cache 300, "sidebar", user.id %}
      ... what is slow ...
    {% endcache %}

The tag's arguments are the seconds that the fragment lives (none: for ever) and the parts of its key; other
parts make another fragment. Without any the template's name and the line are its key, and for a second tag of
the line its number; a template that has no name needs a key. Nested tags are fine.

    {% cache 300, "sidebar", user.id, tags=["user:%d" % user.id] %}

A fragment is filled as by ``get_or_load``: one render a host, fenced, announced to nobody. Drop one by
``cache.delete(cachee_shm.jinja.key("sidebar", 7))``, on every host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from markupsafe import Markup

from cachee_shm.backing import Backing
from cachee_shm.cache import Cache
from cachee_shm.health import Health
from cachee_shm.keys import call_text

__all__ = ["Fragments", "key"]


def key(*parts: object) -> str:
    """The key of the fragment ``{% cache ttl, *parts %}``. ``InvalidKey`` for a part that has no text."""
    return call_text("jinja", {str(number): part for number, part in enumerate(parts)})


class Fragments(Extension):
    """The extension: it gives templates the tag ``cache``."""

    tags = {"cache"}  # noqa: RUF012 (jinja2 declares it so)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._backing = Backing()
        environment.extend(cachee_shm=None)

    @property
    def cache(self) -> Cache:
        """What the environment was given, or the default namespace's; one that misses if it cannot be had."""
        given = self.environment.cachee_shm  # type: ignore[attr-defined]
        return given if isinstance(given, Cache) else self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the namespace cannot be attached."""
        return self.cache.health()

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        ttl = parser.parse_expression()
        parts: list[nodes.Expr] = []
        tags: nodes.Expr = nodes.List([])
        while parser.stream.skip_if("comma"):
            if parser.stream.current.test("name:tags") and parser.stream.look().test("assign"):
                parser.stream.skip(2)
                tags = parser.parse_expression()
            else:
                parts.append(parser.parse_expression())
        if not parts:
            parts = [nodes.Const(part) for part in _place_of(parser, line)]
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method(self._method(), [ttl, nodes.List(parts), tags])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _method(self) -> str:
        return "_acached" if self.environment.is_async else "_cached"

    def _cached(self, ttl: float | None, parts: list[Any], tags: list[str], caller: Callable[[], str]) -> str:
        text = self.cache.get_or_load(key(*parts), _text_of, caller, ttl=ttl, tags=tags)
        return self._marked(text)

    async def _acached(
        self, ttl: float | None, parts: list[Any], tags: list[str], caller: Callable[[], Awaitable[str]]
    ) -> str:
        text = await self.cache.aget_or_load(key(*parts), _atext_of, caller, ttl=ttl, tags=tags)
        return self._marked(text)

    def _marked(self, text: str) -> str:
        """A fragment is rendered already: where templates are escaped, it is not escaped again."""
        return Markup(text) if self.environment.autoescape else text


def _place_of(parser: Parser, line: int) -> list[str | int]:
    """The key of a tag that has none."""
    name = parser.name or parser.filename
    if name is None:
        parser.fail("a fragment of a template without a name needs a key: {% cache 300, 'sidebar' %}", line)
    seen: dict[int, int] = vars(parser).setdefault("cachee_shm_fragments", {})
    seen[line] = seen.get(line, 0) + 1
    return [name, line] if seen[line] == 1 else [name, line, seen[line]]


def _text_of(caller: Callable[[], str]) -> str:
    return str(caller())


async def _atext_of(caller: Callable[[], Awaitable[str]]) -> str:
    return str(await caller())
