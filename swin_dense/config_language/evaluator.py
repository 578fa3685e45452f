"""Evaluate the statements of a config: assignments, loops and conditions over plain values.

Each kind of statement and expression that a config may have is a method here; every other one is
refused. Nothing is compiled or executed.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from swin_dense.config_language.limits import (
    BITS,
    NESTED,
    Budget,
    MistakeError,
    NotDataError,
)
from swin_dense.config_language.operations import Operations
from swin_dense.errors import nearest

BASE = "_base_"
CALLED = {
    ast.Import: "an import",
    ast.ImportFrom: "an import",
    ast.FunctionDef: "a function",
    ast.AsyncFunctionDef: "a function",
    ast.ClassDef: "a class",
    ast.Lambda: "a lambda",
    ast.With: "a with block",
    ast.While: "a while loop",
    ast.Try: "a try block",
    ast.NamedExpr: "an assignment within an expression",
    ast.Assert: "an assertion",
    ast.Raise: "a raise",
    ast.Break: "a break",
    ast.Continue: "a continue",
    ast.Await: "an await",
    ast.Yield: "a yield",
}


class Evaluator:
    """Evaluate a config's text.

    Attributes:
        names: what it assigned so far.
        line: where it is.
    """

    def __init__(self, names: dict[str, Any], budget: Budget, keyed: type[dict] = dict) -> None:
        """Begin with `names`; the keys of a `keyed` dict are its attributes, too."""
        self.names, self.budget, self.keyed = names, budget, keyed
        self.operations = Operations(budget)
        self.line = 0
        self._inner: list[dict[str, Any]] = []  # names of comprehensions
        self._depth = 0

    def run(self, body: Sequence[ast.stmt]) -> None:
        """Evaluate statements.

        Raises:
            NotDataError: one is what only a program has.
            MistakeError: one cannot be evaluated.
        """
        for statement in body:
            self.budget.spend(1)
            self.line = statement.lineno
            self._method_of(statement)(statement)

    def value(self, node: ast.AST) -> Any:
        """Return the value of an expression."""
        self.budget.spend(1)
        self._depth += 1
        if self._depth > NESTED:
            raise MistakeError(f"expressions lie more than {NESTED} deep, the limit")
        self.line = getattr(node, "lineno", self.line)
        try:
            return self._method_of(node)(node)
        finally:
            self._depth -= 1

    def _method_of(self, node: ast.AST) -> Callable[[Any], Any]:
        method = getattr(self, f"_do_{type(node).__name__}", None)
        if method is None:
            called = CALLED.get(type(node), f"what Python calls {type(node).__name__}")
            raise NotDataError(f"{called}: {_short(node)}")
        return method

    # Statements

    def _do_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.targets[0], ast.Name) and node.targets[0].id == BASE:
            return  # read before
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target, self.value(node.value))

    def _do_AugAssign(self, node: ast.AugAssign) -> None:
        old = self.value(node.target)
        new = self.operations.binary(type(node.op), old, self.value(node.value), in_place=True)
        self._assign(node.target, new)

    def _do_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_Pass(self, node: ast.Pass) -> None:
        pass

    def _do_If(self, node: ast.If) -> None:
        self.run(node.body if self.value(node.test) else node.orelse)

    def _do_For(self, node: ast.For) -> None:
        for item in self.operations.listed(self.value(node.iter)):
            self._assign(node.target, item)
            self.run(node.body)
        self.run(node.orelse)

    def _do_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._named(target.id)
                self.names.pop(target.id, None)
                continue
            whole, key = self._place(target)
            if not isinstance(whole, dict | list):
                raise MistakeError(f"nothing can be deleted from a {type(whole).__name__}")
            del whole[self.operations.key(key)]

    def _assign(self, target: ast.AST, value: Any) -> None:
        if isinstance(target, ast.Name):
            (self._inner[-1] if self._inner else self.names)[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            values = self.operations.listed(value)
            if any(isinstance(part, ast.Starred) for part in target.elts):
                raise NotDataError(f"an assignment to {_short(target)}")
            if len(values) != len(target.elts):
                raise MistakeError(f"{len(values)} values for {len(target.elts)} names")
            for part, one in zip(target.elts, values, strict=True):
                self._assign(part, one)
        else:
            whole, key = self._place(target)
            if not isinstance(whole, dict | list):
                raise MistakeError(f"nothing can be put into a {type(whole).__name__}")
            self.budget.measure(value)
            value = self.operations.listed(value) if isinstance(key, slice) else value
            whole[self.operations.key(key)] = value

    def _place(self, target: ast.AST) -> tuple[Any, Any]:
        """Return the whole, and the key in it, of `whole[key]` or `whole.key`."""
        if isinstance(target, ast.Subscript):
            return self.value(target.value), self.value(target.slice)
        if isinstance(target, ast.Attribute):
            whole = self.value(target.value)
            if isinstance(whole, self.keyed) and self.keyed is not dict and _is_key(target.attr):
                return whole, target.attr
        raise NotDataError(f"an assignment to {_short(target)}")

    # Expressions

    def _do_Constant(self, node: ast.Constant) -> Any:
        value = node.value
        if value is not None and not isinstance(value, bool | int | float | str):
            raise NotDataError(f"{_short(node)} is no number, text, True, False or None")
        if isinstance(value, int) and value.bit_length() > BITS:
            raise MistakeError(f"a whole number of more than {BITS} bits, the limit")
        return value

    def _do_Name(self, node: ast.Name) -> Any:
        return self._named(node.id)

    def _do_List(self, node: ast.List) -> list:
        return self._row(node.elts)

    def _do_Tuple(self, node: ast.Tuple) -> tuple:
        return tuple(self._row(node.elts))

    def _do_Set(self, node: ast.Set) -> set:
        return {self.operations.key(value) for value in self._row(node.elts)}

    def _do_Dict(self, node: ast.Dict) -> dict:
        found: dict[Any, Any] = {}
        for key, part in zip(node.keys, node.values, strict=True):
            if key is not None:
                name = self.operations.key(self.value(key))
                found[name] = self.value(part)
                continue
            other = self.value(part)
            if not isinstance(other, dict):
                raise MistakeError(f"behind ** is a dict, not a {type(other).__name__}")
            self.operations.listed(other)
            found.update(other)
        return found

    def _do_BinOp(self, node: ast.BinOp) -> Any:
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):  # a + b + c + ... nests to the left
            chain.append(first)
            first = first.left
        value = self.value(first)
        for link in reversed(chain):
            value = self.operations.binary(type(link.op), value, self.value(link.right))
        return value

    def _do_UnaryOp(self, node: ast.UnaryOp) -> Any:
        return self.operations.unary(type(node.op), self.value(node.operand))

    def _do_BoolOp(self, node: ast.BoolOp) -> Any:
        value = None
        for part in node.values:
            value = self.value(part)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _do_Compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part)
            if not self.operations.compare(type(op), left, right):
                return False
            left = right
        return True

    def _do_IfExp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _do_JoinedStr(self, node: ast.JoinedStr) -> str:
        text = ""
        for part in node.values:
            text = self.operations.binary(ast.Add, text, self.value(part))
        return text

    def _do_FormattedValue(self, node: ast.FormattedValue) -> str:
        layout = self.value(node.format_spec) if node.format_spec else ""
        return self.operations.formatted(self.value(node.value), node.conversion, layout)

    def _do_Subscript(self, node: ast.Subscript) -> Any:
        whole = self.value(node.value)
        return self.operations.part(whole, self.value(node.slice))

    def _do_Slice(self, node: ast.Slice) -> slice:
        lower, upper, step = (
            None if end is None else self.value(end) for end in (node.lower, node.upper, node.step)
        )
        return slice(lower, upper, step)

    def _do_Attribute(self, node: ast.Attribute) -> Any:
        whole = self.value(node.value)
        if not (isinstance(whole, self.keyed) and self.keyed is not dict and _is_key(node.attr)):
            raise NotDataError(f"the attribute .{node.attr} of a {type(whole).__name__}")
        if node.attr not in dict.keys(whole):
            raise MistakeError(
                f"{_short(node.value)} has no {node.attr!r}.{nearest(node.attr, dict.keys(whole))}"
            )
        return dict.__getitem__(whole, node.attr)

    def _do_Call(self, node: ast.Call) -> Any:
        function = node.func
        if isinstance(function, ast.Name):
            if self._find(function.id) is not None:
                raise NotDataError(f"{_short(function)}(...) calls a value of this config")
            return self.operations.call(function.id, *self._arguments(node))
        if not isinstance(function, ast.Attribute):
            raise NotDataError(f"a call of {_short(function)}")
        whole = function.value
        if isinstance(whole, ast.Name) and whole.id == "dict" and self._find("dict") is None:
            if function.attr == "fromkeys":
                given, named = self._arguments(node)
                return self.operations.from_keys(*given, **named)
            raise NotDataError(f"a call of {_short(function)}")
        value = self.value(whole)
        return self.operations.method(value, function.attr, *self._arguments(node))

    def _do_ListComp(self, node: ast.ListComp) -> list:
        found: list[Any] = []
        for _ in self._each(node.generators):
            found.append(self.value(node.elt))
            self.budget.spend(1)
        return found

    _do_GeneratorExp = _do_ListComp

    def _do_SetComp(self, node: ast.SetComp) -> set:
        return {self.operations.key(self.value(node.elt)) for _ in self._each(node.generators)}

    def _do_DictComp(self, node: ast.DictComp) -> dict:
        return {
            self.operations.key(self.value(node.key)): self.value(node.value)
            for _ in self._each(node.generators)
        }

    def _each(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        """Go through the loops of a comprehension, whose names are its own."""
        self._inner.append({})
        try:
            yield from self._loops(generators)
        finally:
            self._inner.pop()

    def _loops(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        if not generators:
            yield
            return
        if len(generators) > NESTED // 4:
            raise MistakeError(f"a comprehension has more than {NESTED // 4} loops, the limit")
        loop = generators[0]
        for item in self.operations.listed(self.value(loop.iter)):
            self._assign(loop.target, item)
            if all(self.value(test) for test in loop.ifs):
                yield from self._loops(generators[1:])

    def _row(self, nodes: Sequence[ast.AST]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += self.operations.listed(self.value(node.value))
            else:
                found.append(self.value(node))
        return found

    def _arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        named: dict[str, Any] = {}
        given = self._row(node.args)
        for keyword in node.keywords:
            part = self.value(keyword.value)
            if keyword.arg is None:
                if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
                    raise MistakeError("behind ** is a dict whose keys are texts")
                self.operations.listed(part)
            parts = part if keyword.arg is None else {keyword.arg: part}
            if twice := named.keys() & parts.keys():
                raise MistakeError(f"{_short(node.func)}(...) gets {sorted(twice)[0]!r} twice")
            named.update(parts)
        return given, named

    def _find(self, name: str) -> dict[str, Any] | None:
        """Return the names among which a name is, the innermost."""
        return next(
            (names for names in (*reversed(self._inner), self.names) if name in names), None
        )

    def _named(self, name: str) -> Any:
        names = self._find(name)
        if names is not None:
            return names[name]
        if name.startswith("__"):
            raise NotDataError(f"the name {name}")
        raise MistakeError(f"name {name!r} is not defined.{nearest(name, self.names)}")


def _is_key(name: str) -> bool:
    return not name.startswith("__")


def _short(node: ast.AST) -> str:
    """Return the beginning of what a node was read from."""
    try:
        text = ast.unparse(node).partition("\n")[0]
    except RecursionError:
        return "..."
    return text if len(text) <= 60 else f"{text[:57]}..."
