"""A network of another project as a backbone of ours: `Timm` and `HuggingFace` are such.

What those projects state of a network (its strides, the sizes of its images) is no contract there:
what is announced here was found by asking, see `asked.py`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.asked import Asked
from swin_dense.backbones.backbone import Backbone
from swin_dense.checkpoints import wrappers
from swin_dense.errors import InputError
from swin_dense.layers.channel_norm import ChannelNorm


@dataclass(frozen=True)
class About:
    """What is known of a model's weights.

    Attributes:
        mean, std: of a channel of the images they were trained with, from 0 to 255, in RGB.
        lines: what a user should know of them.
    """

    mean: list[float]
    std: list[float]
    lines: list[str]

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], lines: list[str]) -> "About":
        """Take the mean and std of images from 0 to 1."""
        return cls([round(255 * x, 3) for x in mean], [round(255 * x, 3) for x in std], lines)


class Adapter(Backbone):
    """A network of another project, `net`, whose maps come as ours do.

    An image is filled up with 0, at the bottom and on the right, to a size that the network takes;
    its maps are cut to what the image covers.

    Attributes:
        asked: what the network answered, see `Asked`.
    """

    asked: Asked
    layers: Mapping[str, int]  # name of a parameter of net -> its layer, 0 for the stem
    stem: frozenset[str]  # names of the parameters in front of the first block
    used: frozenset[str]  # and of those that the maps are computed from
    first: frozenset[str]  # and of all behind it that `frozen_stages` counts

    def _adopt(self, network: nn.Module, output_norm: bool) -> None:
        """Take the network in, of which a copy was asked before."""
        self.net = network
        self.stem = frozenset(name for name, layer in self.layers.items() if layer == 0)
        self.used = self._used_by(len(self.out_indices))
        self.first = self._used_by(sum(i < self.frozen_stages for i in self.out_indices))
        if output_norm:
            for index, channels in zip(self.out_indices, self.out_channels, strict=True):
                self.add_module(f"norm{index}", ChannelNorm(channels, eps=1e-5))
        self.output_norm = output_norm
        self.freeze()

    def _used_by(self, count: int) -> frozenset[str]:
        """Return the names of the parameters that the first `count` maps are computed from."""
        if not count:
            return frozenset()
        names, parameters = zip(*self.net.named_parameters(), strict=True)
        sides = self.asked.fixed or (self.asked.least, self.asked.least)
        image = parameters[0].new_zeros(1, self.in_channels, *sides)
        mode = self.net.training
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            maps = self.maps_of(self.net.eval(), image)
            whole = torch.stack([m.sum() for m in maps[:count]]).sum()
            grads = torch.autograd.grad(whole, parameters, allow_unused=True)
        self.net.train(mode)
        return frozenset(n for n, g in zip(names, grads, strict=True) if g is not None)

    @staticmethod
    @abstractmethod
    def maps_of(network: nn.Module, image: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H, W) that a network makes of an image."""

    @classmethod
    @abstractmethod
    def about(cls, model: str, **stated: Any) -> About:
        """Return what is known of the model that a config states, before it is built."""

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map."""
        return self.asked.channels

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Return the pixels of the image between two places of each map."""
        return self.asked.strides

    @property
    def smallest_image(self) -> int:
        """Return the shortest side of an image that it takes, in pixels."""
        return self.asked.least if self.asked.divisor == 1 else 1

    @property
    def depth(self) -> int:
        """Return the number of layers, as the network's own project groups its parameters."""
        return max(self.layers.values())

    def depth_of(self, name: str) -> int:
        """Return the layer of a parameter, `depth` + 1 for the norms of the maps."""
        inner = name.removeprefix("net.")
        return self.depth + 1 if inner == name else self.layers[inner]

    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield what `frozen_stages` names, and what no map is computed from."""
        names = frozenset(name for name, _ in self.net.named_parameters()) - self.used
        if self.frozen_stages >= 0:
            names |= self.stem | self.first
        yield from _parts(self.net, "", names)

    def check_image(self, image: Tensor) -> None:
        """Refuse what the base refuses, and an image larger than a fixed size.

        Raises:
            InputError: with what came and the rule.
        """
        super().check_image(image)
        if self.asked.fixed:
            height, width = image.shape[-2:]
            most = self.asked.fixed
            if height > most[0] or width > most[1]:
                raise InputError(
                    f"{self._name}: an image of {height}x{width} pixels is too large: this network "
                    f"takes {most[0]}x{most[1]} alone, fixed when it is built. State a larger "
                    f"img_size, such as img_size=({height}, {width}) rounded up to what its "
                    "windows divide, or resize the images."
                )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H at most ceil(height / stride)."""
        self.check_image(image)
        if not len(image):  # reshapes of others do not know how many places an empty map has
            one = image.new_zeros(1, *image.shape[1:])
            return tuple(m[:0] for m in self.forward(one))
        height, width = image.shape[-2:]
        rows, columns = self.asked.padded((height, width))
        if (rows, columns) != (height, width):
            image = F.pad(image, (0, columns - width, 0, rows - height))
        maps = self.maps_of(self.net, image)
        if (rows, columns) != (height, width):
            maps = [
                m[..., : -(-height // stride), : -(-width // stride)]
                for m, stride in zip(maps, self.out_strides, strict=True)
            ]
        if self.output_norm:
            norms = [self.get_submodule(f"norm{index}") for index in self.out_indices]
            maps = [norm(m) for norm, m in zip(norms, maps, strict=True)]
        return tuple(maps)

    # Weights.

    def renamed(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return a file's weights under the names they have here, and lines about what was done.

        Dots and underscores count alike, because projects join the names of modules by either.
        What has no name here keeps its own.
        """
        own = {name: name for name in self.state_dict()}
        if sum(name in own for name in weights) > len(own) / 2:
            return dict(weights), []
        peeled = {n: weights[o] for n, o in wrappers.peel(weights).names.items()}
        peeled, lines = self._as_theirs(peeled)
        joined = {joint(n.removeprefix("net.")): n for n in own if n.startswith("net.")}
        return {joined.get(joint(name), name): t for name, t in peeled.items()}, lines

    def starts_anew(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Return the names of norms of maps that weights, under our names, do not hold."""
        return [
            name
            for name in self.state_dict()
            if name not in weights and (name[:4] == "norm" or "hidden_states_norms" in name)
        ]

    def _as_theirs(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the weights under the names of the network's project."""
        return weights, []


def joint(name: str) -> str:
    """Return a name of a parameter in which dots and underscores are one."""
    return name.removeprefix("model.").replace(".", "_")


def _parts(module: nn.Module, prefix: str, names: frozenset[str]) -> Iterator[Any]:
    """Yield the largest modules all of whose parameters are named, then single parameters."""
    own = {f"{prefix}{name}" for name, _ in module.named_parameters()}
    if own and own <= names:
        yield module
        return
    if own.isdisjoint(names):
        return
    for name, parameter in module.named_parameters(recurse=False):
        if f"{prefix}{name}" in names:
            yield parameter
    for name, child in module.named_children():
        yield from _parts(child, f"{prefix}{name}.", names)
