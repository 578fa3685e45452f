"""What runs a config: one runner, in which each process holds the whole model."""

from collections.abc import Mapping
from typing import Any

from swin_dense.errors import InputError

RUNNERS = ("Runner", "DenseRunner", "swin_dense.DenseRunner")
WRAPPERS = ("MMDistributedDataParallel", "mmengine.MMDistributedDataParallel")
INSTEAD = (
    "Each process holds the whole model here; dividing it among them (FSDP, ZeRO) is not "
    "supported. Less memory take a smaller train_dataloader.batch_size with "
    "optim_wrapper.accumulative_counts, checkpointing in the backbone (with_cp), bf16 (`amp`), and "
    "smaller images (`image_scale`)."
)


def require_ours(config: Mapping[str, Any]) -> None:
    """Check that a config asks for no other way to run, which would be passed over in silence.

    Raises:
        InputError: it names a strategy, another runner, or a wrapper that divides the model.
    """
    wrapper = config.get("model_wrapper_cfg") or {}
    for name, value, known in (
        ("strategy", _kind(config.get("strategy")), ()),
        ("runner_type", config.get("runner_type"), RUNNERS),
        ("model_wrapper_cfg.type", _kind(wrapper), WRAPPERS),
    ):
        if value is not None and value not in known:
            allowed = f"is {known[0]!r} or left out" if known else "has to be left out"
            raise InputError(f"config: {name} {allowed}, it is {value!r}. {INSTEAD}")


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, Mapping) else part
