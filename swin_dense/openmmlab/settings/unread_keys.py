"""Find keys of a config that nothing reads, where no class declares what it takes.

test_cfg and the like have no type: the code of classes reads them. Others complete what is stated
of a layer, and some classes read their `**kwargs`. Such keys are held against the words that the
source of the section's classes uses, see `vocabulary`.
"""

import difflib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine import registry as roots
from mmengine.config import Config

from swin_dense.errors import one_edit
from swin_dense.openmmlab.settings import signatures, vocabulary
from swin_dense.openmmlab.settings.signatures import Section

# Where classes are found that others build, such as layers.
ANYWHERE = (
    roots.MODELS,
    roots.TASK_UTILS,
    roots.TRANSFORMS,
    roots.WEIGHT_INITIALIZERS,
    roots.OPTIM_WRAPPER_CONSTRUCTORS,
)
NAMING = ("ema_type", "constructor")  # keys whose text names a class beside the type
# What mmengine takes where none is stated.
CONSTRUCTORS = {"optim_wrapper": "DefaultOptimWrapperConstructor"}
PATTERNS = "custom_keys"  # parts of names of parameters
FREE = ("caption_prompt", "path_mapping", "metainfo", "specific_key_path")  # their keys are data
ADAPTERS = ("swin_dense.HuggingFace", "swin_dense.Timm")
# Types whose parts others read.
FOREIGN = (*signatures.OTHER_LIBRARIES, *ADAPTERS, "Detectron2Wrapper")
FOREIGN_PARTS = ("diffusion_cfg",)
GROUPS = ("default_hooks", "train_dataloader", "val_dataloader", "test_dataloader")  # see config
TORCH = {
    "optim_wrapper": (
        torch.amp.GradScaler.__init__,
        torch.nn.utils.clip_grad_norm_,
        torch.nn.utils.clip_grad_value_,
    )
}
ALIKE = 0.86  # difflib's ratio; a key that is less like any word is another's, or of another time


class Part(NamedTuple):
    """A dict within a section; the type it states, or None; its class, or None if unknown."""

    place: tuple[str, ...]
    node: Mapping[str, Any]
    type: Any
    kind: Any

    @property
    def completed(self) -> bool:
        """Say whether what builds it completes it, and may know its type without a registry."""
        return signatures.is_completed(self.place)


def find(config: Config) -> tuple[list[str], list[str]]:
    """Find the keys that no class declares and whose name is in no source that could read it.

    Returns:
        (a sentence about each that is like one that is read, the places of the others)
    """
    misspelt: list[str] = []
    unread: list[str] = []
    words_of_model: set[str] | None = None
    for name, section in signatures.SECTIONS.items():
        parts = list(_parts(config.get(name), (name,), section, config.default_scope))
        if not parts:
            continue
        misspelt += [_says(part.place, key, "type") for part in parts for key in _for_type(part)]
        known = _known(parts, name, section, config.default_scope)
        words_of_model = known if name == "model" else words_of_model
        if known is None:
            continue
        for part in filter(_is_open, parts):
            if part.place[-1] == PATTERNS:
                found = _unknown_patterns(part.node, words_of_model or set())
            else:
                found = _unknown_keys(part, known)
            for key, close in found:
                if close:
                    misspelt.append(_says(part.place, key, close))
                else:
                    unread.append(".".join((*part.place, key)))
    return misspelt, unread


def _unknown_keys(part: Part, known: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each key of a dict that is no word, with the word that may be meant."""
    taken = {*known, *_for_type(part)}
    for key in part.node:
        if isinstance(key, str) and key not in taken:
            near = [word for word in known if one_edit(key, word)]
            yield key, _closest(key, near, 0) or _closest(key, known, ALIKE)


def _unknown_patterns(
    patterns: Iterable[Any], words: Collection[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield each part of parameters' names that only resembles the model's words, as above."""
    for pattern in patterns:
        for word in str(pattern).split("."):
            if not word.isidentifier() or any(word in other for other in words):
                continue
            near = [other for other in words if one_edit(word, other)]
            if close := _closest(word, near, 0):
                yield pattern, str(pattern).replace(word, close)
            elif _closest(word, words, ALIKE):  # SAN's authors say img_encoder for image_encoder
                yield pattern, None


def _says(place: Sequence[str], key: str, close: str) -> str:
    return f"{'.'.join(place)}: nothing reads {key!r}. Did you mean {close!r}?"


def _parts(node: Any, place: tuple[str, ...], section: Section, scope: str) -> Iterator[Part]:
    """Yield every dict in a section that is the section's to read, with its class."""
    if isinstance(node, list | tuple):
        for i, part in enumerate(node):
            yield from _parts(part, (*place, str(i)), section, scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get("_scope_", scope)
    name = node.get("type") or signatures.assumed(node, place)
    kind = name if callable(name) else None
    if isinstance(name, str):
        kind = signatures.find(name, section.registries, scope)
        kind = signatures.find(name, ANYWHERE, scope) if kind is None else kind
    yield Part(place, node, name, kind)
    if name in FOREIGN:
        return
    for key, part in node.items():
        if key not in (*FREE, *FOREIGN_PARTS):
            yield from _parts(part, (*place, str(key)), section, scope)


def _is_open(part: Part) -> bool:
    """Say whether the keys of a part are declared nowhere, and known to be its section's."""
    if part.place in [(name,) for name in GROUPS] or part.type in FOREIGN:
        return False
    if part.type is None or part.kind is None or part.completed:
        return True
    return not signatures.signature(part.kind).closed


def _known(parts: list[Part], name: str, section: Section, scope: str) -> set[str] | None:
    """Return the words that may be keys in a section; None where some cannot be known."""
    named = [part.node[key] for part in parts for key in NAMING if part.node.get(key)]
    named += [CONSTRUCTORS[name]] if name in CONSTRUCTORS else []
    kinds = {part.kind for part in parts} | {signatures.find(one, ANYWHERE, scope) for one in named}
    kinds -= {None}
    words = vocabulary.words({module for kind in kinds for module in vocabulary.modules_of(kind)})
    if words is None:
        return None
    found = {"type", "_scope_", *words, *section.extra}
    for kind in kinds:
        found |= signatures.signature(kind).arguments.keys()
    for function in TORCH.get(name, ()):
        found |= inspect.signature(function).parameters.keys()
    unknown = [part.type for part in parts if part.type is not None and part.kind is None]
    if any(str(kind) not in found for kind in unknown):  # a class that nobody registered
        return None
    return found.union(*(_texts(part.node) for part in parts))


def _texts(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a dict: some name keys beside them, such as branches of a pipeline."""
    for value in node.values():
        yield from filter(_is_text, value if isinstance(value, list | tuple) else [value])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _for_type(part: Part) -> Iterator[str]:
    """Yield the keys of a dict without a type that are nearly one."""
    if part.type is None:
        yield from (key for key in part.node if isinstance(key, str) and one_edit(key, "type"))


def _closest(key: str, known: Iterable[str], cutoff: float) -> str | None:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=cutoff)
    return close[0] if close else None
