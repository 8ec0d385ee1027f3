"""Arithmetic for computed parameters: `4 * model.hidden_size`, `max(1, 512 // training.batch_size)`.

An expression is parsed with Python's own parser and evaluated node by node: numbers, strings, booleans, parameters by
their dotted keys, operators, comparisons, `a if b else c`, and a few
functions. There is no way to anything else.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from mtf_config.errors import ConfigurationError
from mtf_utils.problems import describe

__all__ = ["Expression"]

_MAX_LENGTH: Final = 1000
_MAX_BITS: Final = 256
_MAX_DEPTH: Final = 50


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * max(exponent, 0) > _MAX_BITS:
        raise ValueError("the result is too large")
    return base**exponent


_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power,
}  # fmt: skip
_UNARY: Final[Mapping[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "min": min, "max": max, "round": round, "abs": abs, "int": int, "float": float, "str": str, "sqrt": math.sqrt,
    "log": math.log, "log2": math.log2, "exp": math.exp, "floor": math.floor, "ceil": math.ceil,
}  # fmt: skip
_ALLOWED: Final = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Call, ast.Constant, ast.Name,
    ast.Attribute, ast.Load, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip


class Expression:
    """An expression over parameters.

    Attributes:
        text: as written.
        names: the dotted keys that it refers to.

    Raises:
        ConfigurationError: the text is not an expression, or does what expressions must not.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            if len(text) > _MAX_LENGTH:
                raise ValueError(f"longer than {_MAX_LENGTH} characters")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # such as for "1if a else 2", which is fine
                self._tree = ast.parse(text.strip(), mode="eval").body
            self.names = tuple(dict.fromkeys(_names(self._tree)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error) or "nested too deeply"
            raise ConfigurationError.because(f"{describe(text)[11:]} is not an expression: {reason}") from error

    def __call__(self, lookup: Callable[[str], Any]) -> Any:
        """The value, with `lookup` giving the value of each dotted key.

        Raises:
            ConfigurationError: the operation is not possible with these values.
        """
        try:
            return _bounded(_evaluate(self._tree, lookup))
        except (ArithmeticError, TypeError, ValueError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError.because(f"cannot compute {self.text!r}: {error}") from error


def _names(tree: ast.expr) -> list[str]:
    names = []
    stack: list[tuple[int, ast.AST]] = [(0, tree)]
    while stack:
        depth, node = stack.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"{type(node).__name__} is not allowed")
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
                raise ValueError(f"functions are: {', '.join(_FUNCTIONS)}")
            stack.extend((depth + 1, argument) for argument in node.args)
        elif isinstance(node, ast.Name | ast.Attribute):
            names.append(_dotted_name(node))
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, bool | int | float | str):
                raise ValueError(f"a constant cannot be {node.value!r}")
        else:
            stack.extend((depth + 1, child) for child in ast.iter_child_nodes(node))
    return names


def _dotted_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted_name(node.value)}.{node.attr}"
    raise ValueError("a dot stands between the parts of a key only")


def _evaluate(node: ast.expr, lookup: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            return lookup(_dotted_name(node))
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in _BINARY:
                raise ValueError(f"the operator {type(op).__name__} is not allowed")
            return _binary(op, _evaluate(left, lookup), _evaluate(right, lookup))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_evaluate(operand, lookup))
        case ast.BoolOp(op=op, values=values):
            wanted = isinstance(op, ast.Or)
            result: Any = None
            for item in values:
                result = _evaluate(item, lookup)
                if bool(result) is wanted:
                    break
            return result
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _evaluate(body if _evaluate(test, lookup) else orelse, lookup)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compare(left, ops, comparators, lookup)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_evaluate(argument, lookup) for argument in arguments))
    raise ValueError(f"{type(node).__name__} is not allowed")


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    texts = isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str)
    if not numbers and not texts:  # others could make gigabytes: "x" * 10**9, "%1000000000d" % 1
        raise TypeError(f"expected numbers, found {describe(left)} and {describe(right)}")
    return _bounded(_BINARY[type(op)](left, right))


def _compare(left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], lookup: Callable[[str], Any]) -> bool:
    value = _evaluate(left, lookup)
    for op, other in zip(ops, others, strict=True):
        if type(op) not in _COMPARE:
            raise ValueError(f"the comparison {type(op).__name__} is not allowed")
        following = _evaluate(other, lookup)
        if not _COMPARE[type(op)](value, following):
            return False
        value = following
    return True


def _bounded(value: Any) -> Any:
    too_large = isinstance(value, int) and value.bit_length() > _MAX_BITS
    if too_large or (isinstance(value, str | list) and len(value) > _MAX_LENGTH):
        raise ValueError("the result is too large")
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    return value
