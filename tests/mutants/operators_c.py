"""The places of a C file that can be changed: its tokens, without comments, literals and directives."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.mutants.mutant import Site

__all__ = ["sites"]

HIDDEN = re.compile(
    rb"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|^[ \t]*#(?:[^\n\\]|\\.|\\\n)*",
    re.DOTALL | re.MULTILINE,
)
TOKEN = re.compile(
    rb"[A-Za-z_]\w*|0[xX][0-9a-fA-F]+\w*|\d[\w.]*|<<=|>>=|->|\+\+|--|<<|>>|[<>=!+\-*/&|^%]=|&&|\|\||\S"
)
SWAPPED = {
    b"<": b"<=",
    b"<=": b"<",
    b">": b">=",
    b">=": b">",
    b"==": b"!=",
    b"!=": b"==",
    b"&&": b"||",
    b"||": b"&&",
    b"<<": b">>",
    b">>": b"<<",
    b"+=": b"-=",
    b"-=": b"+=",
    b"|=": b"&=",
    b"&=": b"|=",
}
BINARY = {b"+": b"-", b"-": b"+", b"&": b"|", b"|": b"&"}
STATEMENT = re.compile(
    rb"^[ \t]+(?!(?:return|goto|break|continue|case|else|do|if|for|while|switch|static|struct|enum)\b)"
    rb"((?:\*?[A-Za-z_][\w.\[\]>-]*)(?:\([^;{}]*\)|[^;{}=]*[^=!<>]=[^=;{}][^;{}]*|\+\+|--);)[ \t]*$",
    re.MULTILINE,
)
RETURN = re.compile(rb"\breturn\s+([^;{}]+);")
NUMBER = re.compile(rb"(\d+)([uUlL]*)$")


def sites(source: bytes) -> list[Site]:
    """Every site of the file, in its order."""
    text = hidden(source)
    found = [*_tokens(text), *_conditions(text, source), *_statements(text), *_returns(text, source)]
    return sorted(found, key=lambda site: (site.start, site.operator, site.after))


def hidden(source: bytes) -> bytes:
    """The source with comments, literals and directives blanked; every offset stays."""
    return HIDDEN.sub(lambda match: re.sub(rb"[^\n]", b" ", match.group()), source)


def _tokens(text: bytes) -> Iterator[Site]:
    previous = b""
    for match in TOKEN.finditer(text):
        token, start, end = match.group(), match.start(), match.end()
        after_value = bool(re.match(rb"[\w)\]]", previous[-1:])) and previous != b"return"
        if token in SWAPPED:
            yield Site("operator", start, end, SWAPPED[token])
        elif token in BINARY and after_value:
            yield Site("operator", start, end, BINARY[token])
        elif token == b"!":
            yield Site("negation", start, end, b" ")
        elif number := NUMBER.match(token):
            value = int(number[1], 8 if number[1].startswith(b"0") and len(number[1]) > 1 else 10)
            yield Site("number", start, end, b"%d%s" % (value + 1, number[2]))
        previous = token


def _conditions(text: bytes, source: bytes) -> Iterator[Site]:
    for match in re.finditer(rb"\b(if|while)\s*\(", text):
        start = match.end()
        end = _closing(text, start)
        if match[1] == b"if":
            yield Site("condition", start, end, b"1 || (" + source[start:end] + b")")
        yield Site("condition", start, end, b"0 && (" + source[start:end] + b")")


def _closing(text: bytes, start: int) -> int:
    depth = 1
    for at in range(start, len(text)):
        depth += {0x28: 1, 0x29: -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def _statements(text: bytes) -> Iterator[Site]:
    for match in STATEMENT.finditer(text):
        yield Site("statement", match.start(1), match.end(1), b";")


def _returns(text: bytes, source: bytes) -> Iterator[Site]:
    for match in RETURN.finditer(text):
        yield Site(
            "return", match.start(1), match.end(1), b"!(" + source[match.start(1) : match.end(1)] + b")"
        )
