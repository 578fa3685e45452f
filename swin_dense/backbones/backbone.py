"""What every backbone promises to necks, heads, optimizers and weight files.

A new architecture is one file beside this one: a subclass of `Backbone` with its sizes, registered
in `registry.MODELS`. Nothing lists it; `tests/backbones/contract.py` asks all the same questions.
Letters: B images, C channels, H W rows and columns of a map.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin_dense.errors import InputError, nearest


class Backbone(BaseModule):
    """Turn an image of any size into maps (B, C, H, W), fine to coarse.

    Attributes:
        archs: name of a size -> the constructor's arguments that make it. "nano" is the size for
            tests and laptops. Any argument given beside `arch` changes the named size.
        no_weight_decay_keywords: a parameter with one of these words in its name never decays, nor
            does any vector, see `openmmlab.engine.layer_decay`.
        frozen_before_stages: how many counts of `frozen_stages` come before the first stage, beside
            the stem's own, which is 0.
    """

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    no_weight_decay_keywords: tuple[str, ...] = ()
    frozen_before_stages: ClassVar[int] = 0

    def __init__(
        self,
        *,
        stages: int,
        in_channels: int,
        drop_path_rate: float,
        out_indices: Sequence[int],
        frozen_stages: int,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        """
        Args:
            stages: how many resolutions there are.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the last residual branch in training.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: how much does not train: -1 nothing, 0 the stem, then stage by stage.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.

        Raises:
            InputError: a value that no backbone of so many stages can have.
        """
        super().__init__(init_cfg)
        wanted, most = list(out_indices), stages + self.frozen_before_stages
        if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0 or wanted[-1] >= stages:
            raise InputError(
                f"{self._name}: out_indices are stages from 0 to {stages - 1}, in growing order, "
                f"each once; got {tuple(wanted)}. Try {tuple(range(stages))}."
            )
        if not -1 <= frozen_stages <= most:
            more = f" + {self.frozen_before_stages}" * bool(self.frozen_before_stages)
            raise InputError(
                f"{self._name}: frozen_stages is -1 (all trains) to {most} (all {stages} stages "
                f"frozen); got {frozen_stages}. Freeze the first n stages with n{more}."
            )
        if not 0 <= drop_path_rate < 1:
            raise InputError(
                f"{self._name}: drop_path_rate is a share from 0 to below 1; got {drop_path_rate}. "
                "Usual values are 0.1 to 0.5."
            )
        self.in_channels = in_channels
        self.drop_path_rate = drop_path_rate
        self.out_indices = tuple(wanted)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

    # What a subclass says of itself.

    @property
    @abstractmethod
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map."""

    @property
    @abstractmethod
    def out_strides(self) -> tuple[int, ...]:
        """Return the pixels of the image between two places of each map."""

    @property
    @abstractmethod
    def smallest_image(self) -> int:
        """Return the shortest side of an image that it takes, in pixels."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Return the number of layers that layer-wise rules count between stem and output norms."""

    @abstractmethod
    def depth_of(self, name: str) -> int:
        """Return the layer of a parameter by its name.

        0 for the stem, 1 to `depth` for the blocks, `depth` + 1 for the norms of the maps.
        """

    @abstractmethod
    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield what `frozen_stages` names, and what no returned map is computed from."""

    # What it does for a subclass.

    @classmethod
    def sizes(cls, arch: str, **given: Any) -> dict[str, Any]:
        """Return the arguments of a size, each replaced by the one given if that is not None.

        Raises:
            InputError: no size has this name.
        """
        if arch not in cls.archs:
            raise InputError(
                f"{cls.__name__}: no size is called {arch!r}.{nearest(str(arch), cls.archs)} "
                f"Choose from {', '.join(cls.archs)}, or state the sizes themselves."
            )
        return {**cls.archs[arch], **{k: v for k, v in given.items() if v is not None}}

    def drop_path_rates(self, blocks: int) -> list[float]:
        """Return the rate of each block: from 0 in the first, linearly to `drop_path_rate`."""
        return torch.linspace(0, self.drop_path_rate, blocks, device="cpu").tolist()

    def run(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Call a block; with `with_cp` keep only its input for the backward pass."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def check_image(self, image: Tensor) -> None:
        """Refuse an image of another form than (B, in_channels, height, width), or too small.

        Raises:
            InputError: with what came and the rule.
        """
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise InputError(
                f"{self._name}: images come as (B, {self.in_channels}, height, width), this has "
                f"shape {tuple(image.shape)}. Set in_channels to what the data has, or mend the "
                "data."
            )
        least = self.smallest_image
        if min(image.shape[-2:]) < least:
            height, width = image.shape[-2:]
            raise InputError(
                f"{self._name}: an image of {height}x{width} pixels is too small. The smallest "
                f"allowed is {least}x{least}; resize or drop it."
            )

    def freeze(self) -> None:
        """Stop what is frozen from training; its modules stay in evaluation mode."""
        for part in self.frozen():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode and return self; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.freeze()
        return self

    @property
    def _name(self) -> str:
        return type(self).__name__
