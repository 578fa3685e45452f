"""Say which parameter decays how much and learns how fast, by what the backbone says of itself."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from swin_dense.errors import InputError
from swin_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS

# What does not decay in a backbone that says nothing of it: tables of places, tokens of the image.
USUAL = ("absolute_pos_embed", "pos_embed", "relative_position_bias_table", "cls_token")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Group parameters as mmengine does, with two more rules for the backbone.

    Vectors of the backbone (norms, biases) and what its `no_weight_decay_keywords` name, else the
    usual ones, do not decay. With `layer_decay` below 1 the learning rate falls from layer to
    layer towards the image (arXiv 2111.06377, A.2; for Swin as in SimMIM, arXiv 2111.09886): times
    layer_decay ** k, k layers before the norms of the maps. A backbone announces its `depth`, and
    by `depth_of(name)` how deep a parameter lies, from 0 for the embeddings to `depth` + 1.

    Both hold on top of mmengine's options, `custom_keys` among them. Parameters of equal options
    share a group, so that an optimizer updates them together.

    Args:
        paramwise_cfg: mmengine's options, and `layer_decay`, above 0 and at most 1, the default.

    Raises:
        InputError: layer_decay is no such number, there is no learning rate, or the backbone does
            not announce its depth.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.layer_decay = options.setdefault("layer_decay", 1.0)
        super().__init__(optim_wrapper_cfg, options)
        self.base_lr: float
        if self.base_lr is None:
            raise InputError(
                "config: optim_wrapper.optimizer.lr is the rate that all others follow from, and "
                "it is not stated. As in optimizer=dict(type='AdamW', lr=1e-4)."
            )
        if type(self.layer_decay) not in (int, float) or not 0 < self.layer_decay <= 1:
            raise InputError(
                "config: optim_wrapper.paramwise_cfg.layer_decay is a number above 0 and at most "
                f"1, not {self.layer_decay!r}. Usual are 0.8 to 0.95; 1 for one rate everywhere."
            )

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append a group for each parameter below `module`, as mmengine's own does."""
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model is done
            backbone = getattr(module, "backbone", None)
            if isinstance(backbone, nn.Module):
                self._apply_rules(params, backbone)
            elif self.layer_decay < 1:
                _layers_above(module, "")  # says what it lacks
            # A log shows the rate of the first group: that of most parameters, not the backbone's.
            params[:] = _joined(params)
            params.sort(key=lambda group: float(group.get("lr", self.base_lr)), reverse=True)

    def _apply_rules(self, groups: list[dict], backbone: nn.Module) -> None:
        names = {id(parameter): name for name, parameter in backbone.named_parameters()}
        undecayed = tuple(getattr(backbone, "no_weight_decay_keywords", USUAL))
        for group in groups:
            (parameter,) = group["params"]
            name = names.get(id(parameter))
            if name is None:
                continue
            if parameter.ndim == 1 or any(word in name for word in undecayed):
                group["weight_decay"] = 0.0
            if self.layer_decay < 1:
                group.setdefault("lr", self.base_lr)
                group["lr"] *= self.layer_decay ** _layers_above(backbone, name)


def _layers_above(backbone: Any, name: str) -> int:
    try:
        return backbone.depth + 1 - backbone.depth_of(name)
    except AttributeError as error:
        raise InputError(
            f"config: layer_decay needs a backbone that announces depth and depth_of(name), "
            f"{type(backbone).__name__} does not. Take swin_dense.Swin or swin_dense.SwinV2, or "
            "leave optim_wrapper.paramwise_cfg.layer_decay out."
        ) from error


def _joined(groups: list[dict]) -> list[dict]:
    """Join the groups of equal options, in the order they first occur."""
    joined: dict[str, dict] = {}
    for group in groups:
        options = {key: group[key] for key in sorted(group) if key != "params"}
        joined.setdefault(repr(options), {**options, "params": []})["params"] += group["params"]
    return list(joined.values())
