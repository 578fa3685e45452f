"""What is computed with plain values in a config: operators, functions and methods, each bounded.

Nothing here reaches an attribute by its name but the methods listed in METHODS.
"""

import ast
import operator
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from swin_dense.config_language.limits import (
    BITS,
    ITEMS,
    PADDING,
    SCALARS,
    TEXT,
    TEXTS,
    Budget,
    MistakeError,
    NotDataError,
)

NUMBERS = (bool, int, float)
SETS = (set, frozenset)
ITERABLES = (str, list, tuple, dict, range, *SETS)
OPERATORS: dict[type[ast.AST], tuple[Callable, Callable]] = {
    ast.Add: (operator.add, operator.iadd),
    ast.Sub: (operator.sub, operator.isub),
    ast.Mult: (operator.mul, operator.imul),
    ast.Div: (operator.truediv, operator.itruediv),
    ast.FloorDiv: (operator.floordiv, operator.ifloordiv),
    ast.Mod: (operator.mod, operator.imod),
    ast.Pow: (operator.pow, operator.ipow),
    ast.LShift: (operator.lshift, operator.ilshift),
    ast.RShift: (operator.rshift, operator.irshift),
    ast.BitOr: (operator.or_, operator.ior),
    ast.BitAnd: (operator.and_, operator.iand),
    ast.BitXor: (operator.xor, operator.ixor),
}
SIGNS: dict[type[ast.AST], Callable] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
COMPARISONS: dict[type[ast.AST], Callable] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda part, whole: part in whole,
    ast.NotIn: lambda part, whole: part not in whole,
}
METHODS: dict[type, frozenset[str]] = {
    dict: frozenset(
        "clear copy get items keys pop setdefault update values".split()  # noqa: SIM905
    ),
    list: frozenset(
        "append clear copy count extend index insert pop remove reverse sort".split()  # noqa: SIM905
    ),
    tuple: frozenset({"count", "index"}),
    set: frozenset(
        "add copy difference discard intersection remove union update".split()  # noqa: SIM905
    ),
    str: frozenset(
        "capitalize count endswith find format index isdigit join lower lstrip removeprefix "  # noqa: SIM905
        "removesuffix replace rsplit rstrip split startswith strip title upper zfill".split()
    ),
}
# These go through what they are given.
GO_THROUGH = frozenset({"extend", "update", "union", "difference", "intersection", "join"})
CONVERSION = re.compile(r"%(?:\([^)]*\))?([#0\-+ \d.*]*)")


class Operations:
    """Compute with plain values within a budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def binary(self, kind: type[ast.AST], left: Any, right: Any, in_place: bool = False) -> Any:
        """Return `left OP right`; in place as Python does for lists, dicts and sets.

        Raises:
            MistakeError: it would be too large.
            NotDataError: there is no such operator for plain values.
        """
        if kind not in OPERATORS:
            raise NotDataError(f"the operator {kind.__name__} is not for plain values")
        if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
            self._check_number(kind, left, right)
        elif kind is ast.Mult:
            row, times = (right, left) if isinstance(left, int) else (left, right)
            if not (isinstance(row, str | list | tuple) and isinstance(times, int)):
                raise _no_operator(left, right)
            size = len(row) if isinstance(row, str) else self.budget.measure(row)
            self._check_size(row, size * max(times, 0))
        elif kind is ast.Add and in_place and isinstance(left, list):
            right = self.listed(right)
            self._check_size(left, len(left) + len(right))
        elif kind is ast.Add and isinstance(left, str | list | tuple):
            if not isinstance(right, type(left)):
                raise _no_operator(left, right)
            self._check_size(left, len(left) + len(right))
        elif kind is ast.Mod and isinstance(left, str):
            self._check_percent(left, right)
        else:
            both = (isinstance(left, SETS) and isinstance(right, SETS)) or (
                kind is ast.BitOr and isinstance(left, dict) and isinstance(right, dict)
            )
            if not both:
                raise _no_operator(left, right)
            self.budget.measure(left)
            self.budget.measure(right)
        return self.checked(OPERATORS[kind][in_place](left, right))

    def checked(self, value: Any) -> Any:
        """Return a number or text that was computed, once it is known to be no larger than allowed.

        Raises:
            MistakeError: it is too large, or a number that is not real.
        """
        if isinstance(value, complex):
            raise MistakeError("the result is a complex number")
        if type(value) is int and value.bit_length() > BITS:
            raise MistakeError(f"a whole number of more than {BITS} bits, the limit")
        if isinstance(value, str):
            self._check_size(value, len(value))
        return value

    def compare(self, kind: type[ast.AST], left: Any, right: Any) -> bool:
        """Return whether a comparison holds."""
        if kind in (ast.In, ast.NotIn):
            if isinstance(right, range) and type(left) is not int:
                raise MistakeError("only a whole number can be looked for in a range")
            if not isinstance(right, ITERABLES):
                raise MistakeError(f"nothing can be looked for in a {type(right).__name__}")
        if kind not in (ast.Is, ast.IsNot):
            self.budget.measure(left)
            self.budget.measure(right)
        return COMPARISONS[kind](left, right)

    def unary(self, kind: type[ast.AST], value: Any) -> Any:
        """Return `not value`, or a number with another sign."""
        if kind is ast.Not:
            return not value
        if not isinstance(value, NUMBERS) or (kind is ast.Invert and isinstance(value, float)):
            raise MistakeError(f"a {type(value).__name__} has no sign")
        return SIGNS[kind](value)

    def part(self, value: Any, key: Any) -> Any:
        """Return `value[key]`; a slice is a copy."""
        if not isinstance(value, str | list | tuple | dict | range):
            raise MistakeError(f"a {type(value).__name__} has no parts")
        if isinstance(key, slice) and not isinstance(value, dict | range):
            self.budget.spend(len(value) // 16)
        self.key(key)
        return value[key]

    def key(self, value: Any) -> Any:
        """Return a value that becomes a key, once it is known that its hash is soon found."""
        if type(value) not in (*SCALARS, slice):
            self.budget.measure(value)
        return value

    def listed(self, value: Any) -> list[Any]:
        """Return what iterating over a value gives.

        Raises:
            MistakeError: it cannot be iterated over, or has too many.
        """
        if not isinstance(value, ITERABLES):
            raise MistakeError(f"a {type(value).__name__} has nothing to go through")
        self._check_size([], len(value))
        return list(value)

    def formatted(self, value: Any, conversion: int, layout: str) -> str:
        """Return a part of an f-string."""
        self.budget.measure(value)
        if conversion in (ord("r"), ord("a")):
            value = ascii(value) if conversion == ord("a") else repr(value)
        elif conversion == ord("s") or type(value) not in SCALARS:
            value = str(value)
        _check_layout(layout)
        return self.checked(format(value, layout))

    def call(self, name: str, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Return what the function of that name gives, see FUNCTIONS.

        Raises:
            NotDataError: there is none.
        """
        if name not in FUNCTIONS:
            raise NotDataError(f"{name}(...) calls a function that configs do not have")
        function, keywords = FUNCTIONS[name]
        if keywords is not None and (unknown := named.keys() - set(keywords)):
            raise MistakeError(f"{name}(...) takes no {sorted(unknown)[0]!r} here")
        return self.checked(function(self, *given, **named))

    def method(self, value: Any, name: str, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Return what a method of a plain value gives; what it changes is changed in place.

        Raises:
            NotDataError: plain values have no such method.
        """
        kind = dict if isinstance(value, dict) else type(value)
        if name not in METHODS.get(kind, ()):
            raise NotDataError(f".{name}(...) is no method that configs have of a {kind.__name__}")
        self.budget.spend(1 + len(value) // 64)
        if named and not (name in ("update", "format") or list(named) == ["reverse"]):
            raise MistakeError(f".{name}(...) takes no {next(iter(named))!r} here")
        for argument in (*given, *named.values()):
            self.budget.measure(argument)
        if name in ("count", "index", "remove", "sort") and kind is not str:
            self.budget.measure(value)
        if name in GO_THROUGH:
            given = [a if isinstance(a, dict) else self.listed(a) for a in given]
        if kind is str:
            self._check_text_method(value, name, given, named)
        found = getattr(value, name)(*given, **named)
        if kind in (list, set, dict) and len(value) > ITEMS:
            raise MistakeError(f"a {kind.__name__} of more than {ITEMS} values, the limit")
        return list(found) if name in ("items", "keys", "values") else self.checked(found)

    def _check_size(self, value: Any, size: int) -> None:
        if isinstance(value, str):
            if size > TEXT:
                raise MistakeError(f"a text of more than {TEXT} characters, the limit")
            self.budget.spend(size // 16)
            return
        if size > ITEMS:
            raise MistakeError(f"a list of more than {ITEMS} values, the limit")
        self.budget.spend(size // 4)

    def _check_number(self, kind: type[ast.AST], left: Any, right: Any) -> None:
        if not (isinstance(left, int) and isinstance(right, int)):
            return
        size = 0
        if kind is ast.Pow and right > 0:
            size = left.bit_length() * right if abs(left) > 1 else 1
        elif kind is ast.LShift and right > 0:
            size = left.bit_length() + right
        if size > 2 * BITS:
            raise MistakeError(f"a whole number of more than {BITS} bits, the limit")

    def _check_percent(self, text: str, values: Any) -> None:
        layouts = CONVERSION.findall(text)
        if any("*" in layout or re.search(r"\d{4}", layout) for layout in layouts):
            raise MistakeError(f"text is padded to at most {PADDING}")
        if isinstance(values, dict):
            parts = list(dict.values(values))
        else:
            parts = list(values) if isinstance(values, tuple) else [values]
        self._check_parts(len(layouts), parts)

    def _check_parts(self, fields: int, parts: Sequence[Any]) -> None:
        longest = 0
        for part in parts:
            if type(part) not in SCALARS:
                raise MistakeError(f"a {type(part).__name__} is not laid out as text")
            longest = max(longest, len(str(part)))
        if fields * (PADDING + 4 * longest) > TEXTS:
            raise MistakeError(f"a text of more than {TEXT} characters, the limit")

    def _check_text_method(
        self, text: str, name: str, given: Sequence[Any], named: Mapping[str, Any]
    ) -> None:
        size = 0
        if name == "format":
            self._check_parts(_fields(text), [*given, *named.values()])
        elif name == "join":
            rows = [part for part in given[0] if isinstance(part, str)] if given else []
            size = sum(map(len, rows)) + len(text) * len(rows)
        elif name == "replace" and len(given) > 1 and isinstance(given[0], str):
            size = len(text) + text.count(given[0]) * len(given[1])
        elif name == "zfill" and given and type(given[0]) is int:
            size = given[0]
        self._check_size(text, size)

    def _dict(self, *given: Any, **named: Any) -> dict:
        if given and not isinstance(given[0], dict):
            given = ([tuple(map(self.key, self.listed(pair))) for pair in self.listed(given[0])],)
        self._check_size([], sum(map(len, given)) + len(named))
        return dict(*given, **named)

    def from_keys(self, keys: Any, value: Any = None) -> dict:
        """Return what dict.fromkeys does."""
        return {self.key(key): value for key in self.listed(keys)}

    def _row(self, kind: type) -> Callable:
        return lambda *given: kind(*(map(self.key, self.listed(row)) for row in given))

    def _sum(self, row: Any, start: Any = 0) -> Any:
        for value in self.listed(row):
            start = self.binary(ast.Add, start, value)
        return start

    def _least(self, function: Callable, *given: Any, **named: Any) -> Any:
        rows = [self.listed(given[0])] if len(given) == 1 else given
        self.budget.measure(list(rows))
        return function(*rows, **named)

    def _sorted(self, row: Any, reverse: Any = False) -> list:
        self.budget.measure(listed := self.listed(row))
        return sorted(listed, reverse=bool(reverse))

    def _round(self, value: Any, digits: Any = None) -> Any:
        if not isinstance(value, NUMBERS) or (digits is not None and abs(digits) > 300):
            raise MistakeError("round(...) takes a number and at most 300 digits")
        return round(value, digits)

    def _scalar(self, kind: type, *given: Any) -> Any:
        if any(type(value) not in SCALARS for value in given):
            raise MistakeError(f"{kind.__name__}(...) takes a number or a text")
        return kind(*given)

    def _text(self, *given: Any) -> str:
        if len(given) > 1:
            raise MistakeError("str(...) takes one value")
        for value in given:
            self.budget.measure(value)
        return str(*given)

    def _zip(self, *rows: Any) -> list:
        return list(zip(*map(self.listed, rows), strict=False))

    def _count(self, row: Any, start: Any = 0) -> list:
        return list(enumerate(self.listed(row), start))

    def _len(self, value: Any) -> int:
        self.listed(value) if isinstance(value, range) else None
        return len(value)


# What each takes by name; None: anything.
FUNCTIONS: dict[str, tuple[Callable, tuple[str, ...] | None]] = {
    "abs": (lambda ops, value: abs(ops._scalar(float, value) and value), ()),
    "all": (lambda ops, row: all(ops.listed(row)), ()),
    "any": (lambda ops, row: any(ops.listed(row)), ()),
    "bool": (lambda ops, *given: bool(*given), ()),
    "dict": (Operations._dict, None),
    "enumerate": (Operations._count, ("start",)),
    "float": (lambda ops, *given: ops._scalar(float, *given), ()),
    "frozenset": (lambda ops, *given: ops._row(frozenset)(*given), ()),
    "int": (lambda ops, *given: ops._scalar(int, *given), ()),
    "len": (Operations._len, ()),
    "list": (lambda ops, *given: ops._row(list)(*given), ()),
    "max": (lambda ops, *given, **named: ops._least(max, *given, **named), ("default",)),
    "min": (lambda ops, *given, **named: ops._least(min, *given, **named), ("default",)),
    "range": (lambda ops, *given: range(*given), ()),
    "reversed": (lambda ops, row: ops.listed(row)[::-1], ()),
    "round": (Operations._round, ("ndigits",)),
    "set": (lambda ops, *given: ops._row(set)(*given), ()),
    "sorted": (Operations._sorted, ("reverse",)),
    "str": (Operations._text, ()),
    "sum": (Operations._sum, ("start",)),
    "tuple": (lambda ops, *given: ops._row(tuple)(*given), ()),
    "zip": (Operations._zip, ()),
}


def _no_operator(left: Any, right: Any) -> MistakeError:
    return MistakeError(
        f"there is no such operator between a {type(left).__name__} and a {type(right).__name__}"
    )


def _check_layout(layout: str) -> None:
    """Check what stands behind the colon of a field, which may ask for any number of spaces."""
    if re.search(r"\d{4}", layout) or "{" in layout:
        raise MistakeError(f"text is padded to at most {PADDING}")


def _fields(text: str) -> int:
    """Count the fields of a text for `format`.

    Raises:
        NotDataError: one names an attribute or a part of a value.
    """
    count = 0
    for field, layout in _read_fields(text):
        if not re.fullmatch(r"\w*", field):
            raise NotDataError(f"the field {{{field[:40]}}} reaches into a value")
        _check_layout(layout)
        count += 1
    return count


def _read_fields(text: str) -> Iterator[tuple[str, str]]:
    for _, field, layout, _ in string.Formatter().parse(text):
        if field is not None:
            yield field, layout or ""
