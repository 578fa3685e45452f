"""The names by which `save_best` chooses a checkpoint: known before a run, and one per number."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from swin_dense.errors import InputError, nearest
from swin_dense.openmmlab.data.coco_metric import CocoMetric
from swin_dense.openmmlab.data.metrics import IoUMetric, table_name
from swin_dense.openmmlab.data.panoptic_metric import PanopticMetric
from swin_dense.registry import METRICS


def check(config: Config) -> None:
    """Write the name of a log for an older name of ours, and refuse one that no log will have.

    All our numbers are better when they are greater, and that is said where the config does not.

    Raises:
        InputError: none of the evaluator's numbers is called so; with the nearest.
    """
    hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
    asked = hook.get("save_best")
    found = config.get("val_evaluator") or []
    evaluators = found if isinstance(found, list | tuple) else [found]
    names: dict[str, str] = {}
    for evaluator in evaluators:
        own = _names(evaluator)
        if own is None:
            return  # only a run can tell what it returns
        names |= own
    if not asked or not names:
        return
    if asked != "auto":
        best = [_translated(name, names) for name in ([asked] if isinstance(asked, str) else asked)]
        hook["save_best"] = best[0] if isinstance(asked, str) else best
    hook.setdefault("rule", "greater")


def _translated(name: str, names: Mapping[str, str]) -> str:
    if name in names.values():
        return name
    if name in names:
        return names[name]
    raise InputError(
        f"config: default_hooks.checkpoint.save_best={name!r} is no number of this evaluator."
        f"{nearest(name, names.values())} It has: {', '.join(dict.fromkeys(names.values()))}."
    )


def _names(evaluator: Mapping[str, Any]) -> dict[str, str] | None:
    """Return older name -> name in the log, of all numbers of an evaluator of ours."""
    kind = METRICS.get(evaluator["type"]) if isinstance(evaluator.get("type"), str) else None
    if kind not in (CocoMetric, IoUMetric, PanopticMetric):
        return None
    prefix = evaluator.get("prefix") or kind.default_prefix
    older = "seg" if kind is IoUMetric else prefix
    names = {}
    for name in kind.names(evaluator):
        names[f"{older}/{table_name(name)}"] = f"{prefix}/{name}" if prefix else name
    return names
