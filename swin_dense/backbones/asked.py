"""What a network of another project takes and returns, found out by showing it images.

A copy without data is asked, on the meta device: shapes are computed, numbers are not.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from swin_dense.errors import InputError

Size = tuple[int, int]
Maps = Callable[[nn.Module, Tensor], list[Tensor]]
# Sides that a network may want to divide by: strides, patches, and windows times strides.
DIVISORS = (1, 2, 4, 8, 14, 16, 28, 32, 56, 64, 128, 224, 256, 384)
ODD = (197, 227)  # no multiple of any of them, and large enough for networks that do not pad
STEP = 448  # pixels between two sizes; each stride up to 64, and 7 and 14, divides it


@dataclass(frozen=True)
class Asked:
    """What a network answered.

    Attributes:
        options: arguments beyond those given without which it takes fewer sizes.
        divisor: both sides of an image are multiples of it.
        least: the shortest side that it takes, in pixels.
        fixed: the only size (height, width) that it takes, None if there are others.
        channels, strides: of each map.
    """

    options: Mapping[str, Any]
    divisor: int
    least: int
    fixed: Size | None
    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, indices: Sequence[int]) -> "Asked":
        """Return what was answered of some of the maps."""
        return replace(
            self,
            channels=tuple(self.channels[i] for i in indices),
            strides=tuple(self.strides[i] for i in indices),
        )

    def padded(self, size: Size) -> Size:
        """Return the (height, width) to which an image of that size is filled up."""
        if self.fixed:
            return self.fixed
        if self.divisor == 1:
            return size
        height, width = (max(-(-s // self.divisor) * self.divisor, self.least) for s in size)
        return height, width

    @property
    def in_words(self) -> str:
        """Say what becomes of an image's size, "" if it is left alone."""
        if self.fixed:
            height, width = self.fixed
            return (
                f"takes images of {height}x{width} (height x width) alone, fixed when it is built; "
                "smaller ones are filled up with 0. Larger ones need another img_size"
            )
        if self.divisor > 1:
            return f"images are filled up with 0 to multiples of {self.divisor} pixels"
        return ""


@dataclass(frozen=True)
class Question:
    """What is asked of a network.

    Attributes:
        name: what messages call it.
        build: makes it with these options more; raises TypeError for an option it does not know.
        maps_of: gives its maps (B, C, H, W).
        in_channels: channels of the image.
        usual: (height, width) it is built for, the one to try where others are refused.
        stated: the strides its project states; taken for a network of one size, which shows none.
        variants: options to try, one after another, for as many sizes as possible.
    """

    name: str
    build: Callable[[Mapping[str, Any]], nn.Module]
    maps_of: Maps
    in_channels: int
    usual: Size
    stated: Sequence[int] = ()
    variants: Sequence[Mapping[str, Any]] = ({},)

    def ask(self) -> Asked:
        """Find out which images a network takes and which maps it makes of them.

        Raises:
            InputError: it takes no image that was tried, or its maps do not grow with the image.
        """
        with unset_fake_temporarily(), torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self._answer()
            except InputError as error:
                if "meta" not in str(error):
                    raise
            with torch.device("cpu"):  # it puts numbers among tensors that have none
                return self._answer()

    def _answer(self) -> Asked:
        first: tuple[Mapping[str, Any], nn.Module] | None = None
        for options in self.variants:
            try:
                network = self.build(options).eval()
            except TypeError:
                if not options:
                    raise
                continue
            first = first or (options, network)
            for divisor in sorted({*DIVISORS, *self.usual}):
                if found := self._multiples(network, options, divisor):
                    return found
        if first is None:
            raise InputError(f"{self.name}: there is nothing to try it with.")
        return self._one_size(*first)

    def _maps(self, network: nn.Module, height: int, width: int) -> list[Tensor] | str:
        """Return the maps of an image of that size, or what the network says instead."""
        try:
            with torch.no_grad():
                maps = self.maps_of(network, torch.zeros(1, self.in_channels, height, width))
        except Exception as error:  # whatever the code of others raises
            return f"{type(error).__name__}: {error}".partition("\n")[0]
        flat = next((m for m in maps if m.dim() != 4), None)
        return maps if flat is None else f"a result of shape {tuple(flat.shape)} is no map"

    def _shapes(self, network: nn.Module, height: int, width: int) -> list[torch.Size] | None:
        """Return (C, H, W) of the maps, None if the network refuses the size."""
        maps = self._maps(network, height, width)
        return None if isinstance(maps, str) else [m.shape[1:] for m in maps]

    def _multiples(
        self, network: nn.Module, options: Mapping[str, Any], divisor: int
    ) -> Asked | None:
        """Return the answers if images of all multiples of a number are taken, else None."""
        height, width = (_odd_multiple(side, divisor) for side in ODD)
        width += 2 * divisor * (width == height)
        shapes = self._shapes(network, height, width)
        if shapes is None:
            return None
        step = math.lcm(STEP, divisor)
        larger = self._shapes(network, height + step, width + step)
        between = divisor == 1 or self._shapes(network, height + divisor, width + 2 * divisor)
        if larger is None or not between:
            return None
        if any(a[1] >= b[1] or a[2] >= b[2] for a, b in zip(shapes, larger, strict=True)):
            small, large = ([tuple(s[1:]) for s in some] for some in (shapes, larger))
            raise InputError(
                f"{self.name}: its maps do not grow with the image ({small} for {height}x{width} "
                f"pixels, {large} for {height + step}x{width + step}): it resizes images itself, "
                "so that they have no stride. Take another model."
            )
        pairs = zip(shapes, larger, strict=True)
        strides = tuple(max(round(step / (b[1] - a[1])), 1) for a, b in pairs)
        sides = (divisor * 2**i for i in range(8))
        taken = (side for side in sides if side < height and self._shapes(network, side, side))
        channels = tuple(shape[0] for shape in shapes)
        least = next(taken, height)
        return Asked(options, divisor, least, None, channels, strides)

    def _one_size(self, options: Mapping[str, Any], network: nn.Module) -> Asked:
        """Return the answers for the size that the network is built for."""
        height, width = self.usual
        maps = self._maps(network, height, width)
        if isinstance(maps, str):
            raise InputError(
                f"{self.name}: it takes no image that was tried, up to multiples of {DIVISORS[-1]} "
                f"pixels, and none of {height}x{width} ({maps}). State an img_size that its "
                "windows and patches divide, or take another model."
            )
        strides = [max(round(height / m.shape[2]), 1) for m in maps]
        for place, (stride, m) in enumerate(zip(self.stated, maps, strict=False)):
            if abs(height / stride - m.shape[2]) < 1:  # 4 places of 224 pixels may be of stride 64
                strides[place] = stride
        channels = tuple(m.shape[1] for m in maps)
        return Asked(options, 1, 1, (height, width), channels, tuple(strides))


def _odd_multiple(side: int, divisor: int) -> int:
    times = -(-side // divisor)
    return (times if times % 2 else times + 1) * divisor


LISTS = re.compile(r"(?:^|\.)\w*(?:block|layer|stage|transformer)\w*\.(\d+)(?=\.)")


def layers_by_name(names: Sequence[str]) -> dict[str, int]:
    """Return the layer of each parameter of a network that groups none, from 0 for the stem.

    Each number of a list of blocks, or of a list of stages and of blocks within, is a layer. What
    stands before the first block is the stem; what has no number counts with the layer before it,
    at the start of a later stage with the one behind it.

    Args:
        names: in the order in which the network computes with them.
    """
    places = [tuple(map(int, LISTS.findall(name)[:2])) for name in names]
    deep = {place[0] for place in places if len(place) == 2}
    found: dict[str, int] = {}
    order: dict[tuple[int, ...], int] = {}
    waiting: list[str] = []
    layer = 0
    for name, place in zip(names, places, strict=True):
        begins = len(place) == 1 and place[0] in deep and (place[0], 0) not in order
        if begins and order:
            waiting.append(name)
            continue
        if place and not begins and (len(place) == 2 or place[0] not in deep):
            layer = order.setdefault(place, len(order) + 1)
            found |= dict.fromkeys(waiting, layer)
            waiting = []
        found[name] = layer
    return found | dict.fromkeys(waiting, layer)
