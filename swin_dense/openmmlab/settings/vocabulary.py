"""The words that the source of a class uses, among which is each key that it reads from a dict.

`cfg["score_thr"]`, `cfg.score_thr`, `cfg.get("score_thr")` and an argument `score_thr` are words of
a module. They are taken from the module as it is compiled; nothing in it is run.
"""

import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

# Of these the modules are large and read no config; the arguments of their classes count.
OF_OTHERS = frozenset(sys.stdlib_module_names) | {
    "PIL",
    "cv2",
    "matplotlib",
    "numpy",
    "prettytable",
    "pycocotools",
    "scipy",
    "shapely",
    "skimage",
    "terminaltables",
    "torch",
    "torchvision",
    *("config", "device", "dist", "logging", "registry", "runner", "structures", "utils"),
}
# A head takes an attention of mmcv from a file of layers: two steps.
STEPS = 2


def modules_of(kind: Any) -> set[str]:
    """Return the names of the modules in which a class, or a function, and its parents are."""
    every = inspect.getmro(kind) if inspect.isclass(kind) else (kind,)
    names = {str(getattr(one, "__module__", "")) for one in every}
    return {name for name in names if not _of_others(name)}


def words(modules: Iterable[str]) -> frozenset[str] | None:
    """Return the words of modules, and of the modules that they take classes and functions from.

    None where the source of one of `modules` cannot be had, so that it may read any key.
    """
    seen = set(modules)
    if any(_words(name) is None for name in seen):
        return None
    edge = seen
    for _ in range(STEPS):
        edge = {other for name in edge for other in _neighbours(name)} - seen
        seen = seen | edge
    return frozenset().union(*(_words(name) or () for name in seen))


def _of_others(module: str) -> bool:
    library, _, rest = module.partition(".")
    return library in OF_OTHERS or (library == "mmengine" and rest.partition(".")[0] in OF_OTHERS)


@functools.cache
def _words(module: str) -> frozenset[str] | None:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    read = getattr(getattr(spec, "loader", None), "get_code", None)
    try:
        code = read(module) if read else None
    except (ImportError, OSError, SyntaxError):
        code = None
    return None if code is None else frozenset(filter(str.isidentifier, _in_code(code)))


@functools.cache
def _neighbours(module: str) -> frozenset[str]:
    """Return the names of the modules whose classes and functions a module uses."""
    values = list(vars(sys.modules[module]).values())
    for package in [value for value in values if isinstance(value, types.ModuleType)]:
        if not _of_others(package.__name__):  # as mmcv, for mmcv.imnormalize
            used = vars(package).keys() & (_words(module) or ())
            values += [vars(package)[name] for name in used]
    found = {_module(value) for value in values}
    return frozenset(name for name in found if name in sys.modules and not _of_others(name))


def _module(value: Any) -> str:
    is_module = isinstance(value, types.ModuleType)
    return str(value.__name__ if is_module else getattr(value, "__module__", ""))


def _in_code(code: types.CodeType) -> Iterator[str]:
    """Yield the attributes, globals and arguments of some code, and its texts that are names."""
    yield from code.co_names
    yield from code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    rest: list[Any] = list(code.co_consts)
    while rest:
        value = rest.pop()
        if isinstance(value, types.CodeType):
            yield from _in_code(value)
        elif isinstance(value, tuple | frozenset):
            rest += value
        elif isinstance(value, str):
            yield value
