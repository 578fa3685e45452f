"""Say in one line each what of a model is frozen, and how learning rates are spread over it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

SHOWN = 4  # names in a line


def frozen_line(model: nn.Module) -> str | None:
    """Name what does not learn, as "frozen: backbone.patch_embed (0.1M of 47.8M parameters)"."""
    frozen = {id(p): p.numel() for p in model.parameters() if not p.requires_grad}
    if not frozen:
        return None
    whole = sum(p.numel() for p in model.parameters())
    share = f"{_millions(sum(frozen.values()))} of {_millions(whole)} parameters"
    every = {id(p) for p in model.parameters()}
    return f"frozen: {_listed(parts_of(model, frozen, every))} ({share})"


def rates_line(model: nn.Module, groups: Sequence[Mapping[str, Any]], options: Any) -> str | None:
    """Name the highest and the lowest rate of an optimizer, and where they hold.

    Args:
        groups: of the optimizer, each with its "lr".
        options: the paramwise_cfg of the config.

    Returns:
        "learning rate: 1e-4 at neck, ... to 2.5e-5 at backbone.patch_embed (layer_decay 0.9, 14
        layers)"; None where all rates are equal.
    """
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    ends = max(rates.values(), default=0), min(rates.values(), default=0)
    if ends[0] == ends[1]:
        return None
    high, low = (
        f"{short(end)} at {_listed(parts_of(model, {p for p in rates if rates[p] == end}, rates))}"
        for end in ends
    )
    decay = (options or {}).get("layer_decay", 1)
    depth = getattr(getattr(model, "backbone", None), "depth", None)
    known = f" (layer_decay {decay:g}, {depth + 2} layers)" if decay < 1 and depth else ""
    return f"learning rate: {high} to {low}{known}"


def parts_of(model: nn.Module, chosen: Collection[int], every: Collection[int]) -> list[str]:
    """Name the largest modules whose parameters, as far as they are in `every`, are all `chosen`.

    Args:
        chosen, every: id() of parameters.

    Returns:
        dotted names, those nearer to the model first.
    """
    found = []

    def look(module: nn.Module, name: str) -> None:
        own = [id(p) for p in module.parameters() if id(p) in every]
        if own and all(p in chosen for p in own):
            found.append(name or "the whole model")
            return
        start = f"{name}." if name else ""
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in chosen:
                found.append(start + key)
        for key, child in module.named_children():
            look(child, start + key)

    look(model, "")
    return sorted(found, key=lambda name: name.count("."))


def short(rate: float) -> str:
    """Write 0.0000125 as "1.25e-5"."""
    digits, exponent = f"{rate:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.1f}k"
