"""Read a config with its bases into mmengine's Config, as data: without running anything in it.

What a config says is evaluated in `config_language`. Here it is laid over its bases, as mmengine
does it. What only a program has is refused; where the user trusts a config, mmengine runs it.
"""

import ast
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import import_modules_from_strings

from swin_dense.config_language import files, placeholders
from swin_dense.config_language.evaluator import BASE, Evaluator
from swin_dense.config_language.limits import DATA, FILES, Budget, MistakeError, NotDataError
from swin_dense.errors import InputError, MissingInputError, nearest

RESERVED = ("filename", "text", "pretty_text", "env_variables")
# Modules that a config may have imported; others run code that nobody asked for.
PACKAGES = ("swin_dense", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain")


def read(path: Path, trust: bool = False) -> Config:
    """Read a config.

    Args:
        trust: run it as a program, as mmengine does.

    Raises:
        InputError: it holds what only a program has, or a mistake, with its file and line; or one
            of its bases does; or a module that it imports is not there.
    """
    if trust:
        return _run(path)
    reading = _Reading()
    values, text = reading.file(path.absolute())
    with _located(path):
        reading.budget.measure(values)
        for name in RESERVED:
            if name in values:
                raise MistakeError(f"{name} is a name that mmengine keeps for itself")
    _import(values.get("custom_imports"), path)
    found = Config(values, cfg_text=text, filename=str(path), env_variables=reading.variables)
    return _without_yapf(found)


def _without_yapf(config: Config) -> Config:
    """Have a config written without yapf, which takes seconds at each checkpoint."""
    vars(config)["_format_python_code"] = False
    return config


def _run(path: Path) -> Config:
    try:
        # mmengine's fromfile forgets its argument for yapf.
        return _without_yapf(Config.fromfile(str(path)))
    except SyntaxError as error:
        where = f"{error.filename or path}, line {error.lineno}"
        raise InputError(f"config: {where}: {error.msg}.") from error
    except Exception as error:  # whatever the code of a config raises is the config's mistake
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"config: {path} cannot be read: {what}") from error


@contextmanager
def _located(path: Path, line: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Make what is refused within a user's mistake that names the file and the line."""
    try:
        yield
    except InputError:
        raise
    except NotDataError as error:
        raise InputError(f"config: {_at(path, line())}: {error}. {DATA}") from error
    except SyntaxError as error:
        raise InputError(f"config: {_at(path, error.lineno or 0)}: {error.msg}.") from error
    except MistakeError as error:
        what = str(error)
        raise InputError(f"config: {_at(path, line())}: {what}{_stop(what)}") from error
    except RecursionError as error:
        raise InputError(f"config: {_at(path, line())}: it is nested too deep.") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"[:300]
        raise InputError(f"config: {_at(path, line())}: {what}{_stop(what)}") from error


def _at(path: Path, line: int) -> str:
    return f"{path}, line {line}" if line else str(path)


def _stop(text: str) -> str:
    return "" if text.endswith(("?", ".")) else "."


@dataclass
class _Reading:
    """One config being read: what it may still cost, and where it is."""

    budget: Budget = field(default_factory=Budget)
    variables: dict[str, str] = field(default_factory=dict)
    _open: list[Path] = field(default_factory=list)
    _count: int = 0

    def file(self, path: Path) -> tuple[dict[str, Any], str]:
        """Return what a file and its bases say together, and their texts."""
        path = Path(os.path.abspath(os.path.expanduser(path)))  # as mmengine
        self._count += 1
        if path in self._open:
            chain = " -> ".join(str(p) for p in (*self._open, path))
            raise InputError(f"config: {path} is a base of itself: {chain}.")
        if self._count > FILES:
            raise InputError(f"config: {self._open[0]} has more than {FILES} bases, the limit.")
        self._open.append(path)
        original = files.read_text(path)
        line = 0
        with _located(path, lambda: line):
            text = placeholders.of_path(original, path)
            text, used = placeholders.of_environment(text, os.environ)
            self.variables |= used
            text, places = placeholders.of_bases(text)
        with _located(path, lambda: line):
            if path.suffix == ".py":
                tree = files.parse_python(text)
                named, line = self._bases_in(tree)
            else:
                own = files.parse_values(text, path.suffix, self.budget)
                named = own.get(BASE, [])
        bases, texts = self._bases(named, path, line)
        if path.suffix == ".py":
            own = self._evaluated(tree, bases, path)
        with _located(path):
            Config._parse_scope(own)  # type: ignore[arg-type]
            own.pop("_deprecation_", None)
            own = placeholders.filled(own, places, bases)
            own.pop(BASE, None)
            merged = Config._merge_a_into_b(own, bases)
            found = {k: v for k, v in merged.items() if not str(k).startswith("__")}
        self._open.pop()
        return found, "\n".join([*texts, f"{path}\n{original}"])

    def _bases_in(self, tree: ast.Module) -> tuple[Any, int]:
        """Return what `_base_` is in a file, and its line."""
        assigned = (node for node in tree.body if isinstance(node, ast.Assign))
        named = (
            node
            for node in assigned
            if isinstance(node.targets[0], ast.Name) and node.targets[0].id == BASE
        )
        if (node := next(named, None)) is None:
            return [], 0
        evaluator = Evaluator({}, self.budget)
        with _located(self._open[-1], lambda: evaluator.line):
            return evaluator.value(node.value), node.lineno

    def _evaluated(self, tree: ast.Module, bases: ConfigDict, path: Path) -> dict[str, Any]:
        evaluator = Evaluator({BASE: bases}, self.budget, ConfigDict)
        with _located(path, lambda: evaluator.line):
            evaluator.run(tree.body)
            del evaluator.names[BASE]
            evaluator.line = 0
            self.budget.measure(evaluator.names)
            self.budget.measure(bases)
        return {k: v for k, v in evaluator.names.items() if not k.startswith("__")}

    def _bases(self, named: Any, path: Path, line: int) -> tuple[ConfigDict, list[str]]:
        found, texts = ConfigDict(), []
        for name in named if isinstance(named, list) else [named]:
            where = _at(path, line)
            if not isinstance(name, str) or "\0" in name:
                raise InputError(f"config: {where}: _base_ names files by texts, not {name!r:.60}.")
            file, scope = _base_file(name, path, where)
            values, text = self.file(file)
            texts.append(text)
            if twice := sorted(map(str, found.keys() & values.keys())):
                raise InputError(
                    f"config: {where}: its bases both state {', '.join(twice)}; {name} is the "
                    "second to do so. Leave it out of one of them."
                )
            with _located(file):
                found.update(Config._dict_to_config_dict(values, scope))  # type: ignore[arg-type]
        return found, texts


def _base_file(name: str, path: Path, where: str) -> tuple[Path, str | None]:
    """Return the file of a base, and the library it is from if that is written before it."""
    if "::" not in name:
        file = Path(os.path.join(path.parent, name))
        if file.suffix in files.SUFFIXES and not file.is_file():
            there = [other.name for other in file.parent.glob("*") if other.suffix == file.suffix]
            raise MissingInputError(
                f"config: {where}: its base {name} is not there, {file}.{nearest(file.name, there)}"
            )
        return file, None
    scope, _, inner = name.partition("::")
    if scope not in MODULE2PACKAGE:
        raise InputError(
            f"config: {where}: its base {name} is of {scope!r}, which is none of "
            f"{', '.join(MODULE2PACKAGE)}.{nearest(scope, MODULE2PACKAGE)}"
        )
    spec = importlib.util.find_spec(scope)
    if spec is None or spec.origin is None:
        raise InputError(f"config: {where}: its base {name} needs {scope}, which is not installed.")
    inner = inner if inner.endswith(files.SUFFIXES) else f"{inner}.py"
    file = Path(spec.origin).parent / ".mim" / "configs" / inner
    if not file.is_file():
        raise MissingInputError(f"config: {where}: {scope} has no config {inner}: {file}.")
    return file, scope


def _import(asked: Any, path: Path) -> None:
    """Import what `custom_imports` names, if it is of a library that configs are made for."""
    if not asked:
        return
    names = asked.get("imports") if isinstance(asked, Mapping) else None
    names = [names] if isinstance(names, str) else names
    rest = set(asked) - {"imports", "allow_failed_imports"} if isinstance(asked, Mapping) else ()
    if rest or not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise InputError(
            f"config: {path}: custom_imports is dict(imports=[names of modules], "
            f"allow_failed_imports=False), not {asked!r:.80}."
        )
    for name in names:
        if name.partition(".")[0] not in PACKAGES:
            raise InputError(
                f"config: {path}: custom_imports names {name}, and importing it runs its code; a "
                f"config may have modules of {', '.join(PACKAGES)} imported. {DATA}"
            )
    try:
        import_modules_from_strings(
            list(names), allow_failed_imports=bool(asked.get("allow_failed_imports", False))
        )
    except ImportError as error:
        raise InputError(
            f"config: {path}: custom_imports: {error}. Install what is missing, or correct the "
            "name."
        ) from error
