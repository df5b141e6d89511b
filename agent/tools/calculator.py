"""The tool `calculator`: arithmetic with simpleeval, which never runs its input as Python.

simpleeval alone would allow strings, attributes and exponents up to 4,000,000. Here only numbers are allowed, and they
are small enough that every operation is fast.
"""

import ast
import math
import operator
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from simpleeval import (  # type: ignore[import-untyped]  # it has no types
    FunctionNotDefined,
    InvalidExpression,
    NameNotDefined,
    SimpleEval,
)

from agent.tools.streaming import PURE, streaming_tool

Number = int | float

_LONGEST_EXPRESSION = 1000
"""Longest expression, in characters."""
_BITS = 14_000
"""Bits of an intermediate number, at most; about 4,200 digits."""
_DIGITS = 1000
"""Digits of a result, at most."""
_MOST_FACTORIAL = 1500
_MOST_PLACES = 400
"""Places that `round` accepts, before or after the point."""

_TOO_LARGE = "This gives a number that is too large."
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "^": "**"})  # noqa: RUF001 - the signs that people type
_FOREIGN = re.compile(r"[^0-9A-Za-z.,+\-*/%()\s]")


def _number(value: Any) -> Number:
    """Returns the value. Raises ValueError if it is not a number that is allowed here."""
    if isinstance(value, complex):
        raise ValueError("The result is no real number.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"Only numbers can be computed with. {_ALLOWED}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(_TOO_LARGE)
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise ValueError(_TOO_LARGE)
    return value


def _power(base: Number, exponent: Number) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(base) > 1 and int(base).bit_length() * exponent > _BITS:
        raise ValueError(_TOO_LARGE)
    return base**exponent


def _factorial(number: Number) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("factorial wants a whole number from 0 on.")
    if number > _MOST_FACTORIAL:
        raise ValueError(_TOO_LARGE)
    return math.factorial(number)


def _round(number: Number, places: Number = 0) -> Number:
    if not isinstance(places, int) or abs(places) > _MOST_PLACES:
        raise ValueError(f"round wants a whole number of places, at most {_MOST_PLACES}.")
    return round(number, places) if places else round(number)


def _bounded(compute: Callable[..., Any]) -> Callable[..., Number]:
    """Restricts an operation to numbers, with a number as its result."""

    def operation(*values: Any) -> Number:
        numbers = [_number(value) for value in values]
        try:
            return _number(compute(*numbers))
        except ValueError as e:
            if "math domain" in str(e) or str(e).startswith("expected"):  # Python's messages before and since 3.14
                raise ValueError(f"{compute.__name__} is not defined for {numbers[0]:.6g}.") from None
            raise

    return operation


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _bounded(operator.add),
    ast.Sub: _bounded(operator.sub),
    ast.Mult: _bounded(operator.mul),
    ast.Div: _bounded(operator.truediv),
    ast.FloorDiv: _bounded(operator.floordiv),
    ast.Mod: _bounded(operator.mod),
    ast.Pow: _bounded(_power),
    ast.USub: _bounded(operator.neg),
    ast.UAdd: _bounded(operator.pos),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": _bounded(math.sqrt),
    "sin": _bounded(math.sin),
    "cos": _bounded(math.cos),
    "tan": _bounded(math.tan),
    "log": _bounded(math.log),
    "log10": _bounded(math.log10),
    "exp": _bounded(math.exp),
    "floor": _bounded(math.floor),
    "ceil": _bounded(math.ceil),
    "round": _bounded(_round),
    "abs": _bounded(abs),
    "min": _bounded(min),
    "max": _bounded(max),
    "factorial": _bounded(_factorial),
}
_NAMES = {"pi": math.pi, "e": math.e, "tau": math.tau}
_NODES = ast.Name, ast.UnaryOp, ast.BinOp, ast.Call, ast.Constant
_ALLOWED = (
    "Allowed are numbers (with a point, without separators), + - * / // % ** ^ ( ), "
    f"{', '.join(_NAMES)} and the functions {', '.join(_FUNCTIONS)}."
)


@streaming_tool
async def calculator(expression: str) -> AsyncGenerator[str, None]:
    """Computes an arithmetic expression, such as 17*23 or sqrt(2)*pi.

    Operators: + - * / // (whole division) % (remainder) ** or ^ (power). Names: pi, e, tau. Functions: sqrt, sin, cos,
    tan (of radians), log (natural, or log(x, base)), log10, exp, floor, ceil, round, abs, min, max, factorial.
    """
    yield _shown(_compute(expression))


calculator.metadata = {PURE: True}


def _compute(expression: str) -> Number:
    """Evaluates an expression. Raises ValueError with a sentence for people."""
    text = expression.translate(_SIGNS).strip()
    if not text or len(text) > _LONGEST_EXPRESSION:
        raise ValueError(f"An expression has 1 to {_LONGEST_EXPRESSION:,} characters; this one has {len(text):,}.")
    if foreign := _FOREIGN.search(text):
        raise ValueError(f"{foreign[0]!r} cannot be computed with. {_ALLOWED}")
    evaluator = SimpleEval(_OPERATORS, _FUNCTIONS, _NAMES)
    evaluator.nodes = {kind: evaluator.nodes[kind] for kind in _NODES}
    try:
        return _number(evaluator.eval(text, ast.parse(text, mode="eval").body))
    except ZeroDivisionError:
        raise ValueError("This divides by zero.") from None
    except OverflowError:
        raise ValueError(_TOO_LARGE) from None
    except (RecursionError, MemoryError):
        raise ValueError("This is nested too deeply.") from None
    except NameNotDefined as e:
        raise ValueError(f"{e.name!r} is not known. {_ALLOWED}") from None
    except FunctionNotDefined as e:
        raise ValueError(f"{e.func_name!r} is no known function. {_ALLOWED}") from None
    except (SyntaxError, TypeError, InvalidExpression):
        raise ValueError(f"This cannot be computed. {_ALLOWED}") from None


def _shown(number: Number) -> str:
    if isinstance(number, float):
        return repr(float(f"{number:.15g}"))  # so that 0.1+0.2 is 0.3
    if len(digits := str(number)) > _DIGITS + (number < 0):
        raise ValueError(f"The result has {len(digits):,} digits; at most {_DIGITS:,} are shown.")
    return digits
