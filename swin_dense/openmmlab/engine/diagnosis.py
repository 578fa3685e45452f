"""Where numbers stop being finite: looked for by computing an iteration once more, part by part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Finding:
    """Say what is not finite first.

    Attributes:
        kind: "input", "weight", "buffer", "module", "loss", "gradient", "optimizer" or "nothing".
        text: of a sentence, with names of images, tensors and modules.
    """

    kind: str
    text: str


def broken(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those that hold a number that is not finite."""
    floating = {k: t for k, t in tensors.items() if t.is_floating_point() and t.numel()}
    return [name for name, tensor in floating.items() if not torch.isfinite(tensor).all()]


def of_state(model: nn.Module, optimizer: Any = None) -> Finding | None:
    """Look at weights, buffers and the optimizer's state."""
    for kind, tensors in (
        ("weight", dict(model.named_parameters())),
        ("buffer", dict(model.named_buffers())),
        ("optimizer", _state(model, optimizer)),
    ):
        if names := broken(tensors):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            what = "state of the optimizer" if kind == "optimizer" else kind
            return Finding(kind, f"the {what} {names[0]}{more} is not finite")
    return None


def of_batch(batch: Mapping[str, Any]) -> Finding | None:
    """Look at the images of a batch."""
    bad = [
        name
        for name, image in zip(images(batch), batch["inputs"], strict=True)
        if broken({"": image})
    ]
    return Finding("input", f"pixels of {', '.join(bad)} are not finite") if bad else None


def images(batch: Mapping[str, Any]) -> list[str]:
    """Return the names of the images of a batch."""
    samples = batch.get("data_samples") or [None] * len(batch["inputs"])
    paths = [getattr(sample, "img_path", None) for sample in samples]
    return [Path(path).name if path else f"image {i}" for i, path in enumerate(paths)]


def of_iteration(
    model: Any, batch: Mapping[str, Any], context: Callable[[], AbstractContextManager[Any]]
) -> Finding:
    """Compute losses and gradients of a batch, and say what is the first that is not finite.

    Args:
        model: in training; its gradients are lost.
        batch: as its loader gives it.
        context: of the precision of the training.
    """
    if found := of_batch(batch) or of_state(model):
        return found
    first: list[Finding] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            handle = module.register_forward_hook(partial(_forward, name or "the model", first))
            stack.callback(handle.remove)
        with context():
            data = model.data_preprocessor(dict(batch), True)
            losses = model._run_forward(data, mode="loss")
        if first:
            return first[0]
        total, named = model.parse_losses(losses)
    if names := broken(named):
        return Finding("loss", f"the loss {names[0]} is not finite")
    model.zero_grad()
    with ExitStack() as stack:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                handle = parameter.register_hook(partial(_backward, name, first))
                stack.callback(handle.remove)
        total.backward()
    return first[0] if first else Finding("nothing", "computed once more, all is finite")


def _forward(name: str, first: list[Finding], module: nn.Module, given: Any, out: Any) -> None:
    """Note the module that ends first with such numbers, the innermost one."""
    if not first and broken(dict(_tensors(out, "output"))):
        text = f"the output of {name} ({type(module).__name__}) is not finite"
        if broken(dict(_tensors(given, "input"))):
            text += ", nor is its input, which no module gave"
        first.append(Finding("module", text))


def _backward(name: str, first: list[Finding], gradient: Tensor) -> None:
    if not first and broken({"": gradient}):
        first.append(Finding("gradient", f"the gradient of {name} is the first not finite"))


def _tensors(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, Mapping):
        for key, part in node.items():
            yield from _tensors(part, f"{name}.{key}")
    elif isinstance(node, list | tuple):
        for i, part in enumerate(node):
            yield from _tensors(part, f"{name}.{i}")


def _state(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for parameter, values in (getattr(optimizer, "state", None) or {}).items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                found[f"{names.get(id(parameter), 'a weight')} ({key})"] = value
    return found
