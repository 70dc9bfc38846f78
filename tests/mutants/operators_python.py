"""The places of a Python file that can be changed: from its syntax tree, without annotations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from types import CodeType

from tests.mutants.mutant import Site

__all__ = ["same_code", "sites"]

COMPARED = {
    ast.Lt: b"<=",
    ast.LtE: b"<",
    ast.Gt: b">=",
    ast.GtE: b">",
    ast.Eq: b"!=",
    ast.NotEq: b"==",
    ast.Is: b"is not",
    ast.IsNot: b"is",
    ast.In: b"not in",
    ast.NotIn: b"in",
}
COMPUTED = {
    ast.Add: b"-",
    ast.Sub: b"+",
    ast.Mult: b"//",
    ast.FloorDiv: b"*",
    ast.Div: b"*",
    ast.Mod: b"*",
    ast.LShift: b">>",
    ast.RShift: b"<<",
    ast.BitAnd: b"|",
    ast.BitOr: b"&",
}
ANNOTATIONS = {"annotation", "returns", "decorator_list"}


def sites(source: bytes) -> list[Site]:
    """Every site of the file, in its order."""
    finder = _Finder(source)
    found = [site for node in _reached(ast.parse(source)) for site in finder.of(node)]
    return sorted(found, key=lambda site: (site.start, site.operator, site.after))


def same_code(before: bytes, after: bytes) -> bool:
    """Do both compile to the same instructions? Raises ``SyntaxError`` if the second does not compile."""
    return _essence(compile(before, "x", "exec")) == _essence(compile(after, "x", "exec"))


def _essence(code: CodeType) -> tuple[object, ...]:
    constants = tuple(
        _essence(value) if isinstance(value, CodeType) else (type(value), value) for value in code.co_consts
    )
    return (code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants)


def _reached(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: no annotation, no decorator, no body of ``if TYPE_CHECKING``."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ANNOTATIONS or isinstance(node, ast.JoinedStr):
            continue  # before Python 3.12 the parts of an f-string have no places
        for child in value if isinstance(value, list) else [value]:
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.AST) and not typing_only:
                yield from _reached(child)


class _Finder:
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def of(self, node: ast.AST) -> Iterator[Site]:
        """The sites of one node."""
        match node:
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in COMPARED:
                yield self._between("operator", node.left, right, COMPARED[type(op)])
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield self._between("operator", left, right, b"or" if isinstance(op, ast.And) else b"and")
            case ast.BinOp(op=op) if type(op) in COMPUTED:
                yield self._between("operator", node.left, node.right, COMPUTED[type(op)])
            case ast.UnaryOp(op=ast.Not()):
                yield self._whole("negation", node, b"bool(" + self._text(node.operand) + b")")
            case ast.Constant(value=bool() as value):
                yield self._whole("constant", node, b"False" if value else b"True")
            case ast.Constant(value=int() as value):
                yield self._whole("number", node, b"%d" % (value + 1))
            case ast.Constant(value=float() as value):
                yield self._whole("number", node, repr(value * 2).encode())
            case ast.If() | ast.IfExp():
                yield self._whole("condition", node.test, b"True")
                yield self._whole("condition", node.test, b"False")
            case ast.While():
                yield self._whole("condition", node.test, b"False")
            case ast.comprehension(ifs=[test, *_]):
                yield self._whole("condition", test, b"True")
            case ast.Return(value=ast.expr() as value) if not _is_none(value):
                yield self._whole("return", value, b"None")
            case ast.Break():
                yield self._whole("jump", node, b"continue")
            case ast.Continue():
                yield self._whole("jump", node, b"break")
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.Assign() | ast.AugAssign() | ast.Raise():
                yield self._whole("statement", node, b"pass")

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def _start(self, node: ast.AST) -> int:
        return self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def _end(self, node: ast.AST) -> int:
        return self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> bytes:
        return self.source[self._start(node) : self._end(node)]

    def _whole(self, operator: str, node: ast.AST, after: bytes) -> Site:
        return Site(operator, self._start(node), self._end(node), after)

    def _between(self, operator: str, left: ast.AST, right: ast.AST, after: bytes) -> Site:
        """The operator's own token between two operands; parentheses and line ends around it stay."""
        start, end = self._end(left), self._start(right)
        token = re.search(rb"(?:is\s+not|not\s+in|[a-z]+|[<>=!+\-*/%&|]+)", self.source[start:end])
        assert token is not None, f"no operator between two operands at byte {start}"
        return Site(operator, start + token.start(), start + token.end(), after)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
