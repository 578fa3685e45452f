"""Swin-T as several projects have it, to be measured beside ours; each imported when asked for."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones.swin import Swin
from swin_dense.backbones.swin_v2 import SwinV2
from swin_dense.benchmarks.ratios import LeftOutError

OURS = "ours"
VERSION_2, VERSION_1 = "Swin V2", "our Swin V1 with windows of 8"


class _FeatureMaps(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.inner(image).feature_maps


def _ours(height: int, width: int) -> nn.Module:
    return Swin("tiny")


def _version_2(height: int, width: int) -> nn.Module:
    return SwinV2("tiny")


def _version_1(height: int, width: int) -> nn.Module:
    return Swin("tiny", window_size=8)


def _mmdet(height: int, width: int) -> nn.Module:
    from swin_dense.openmmlab import peers

    return peers.mmdet_swin_t()


def _transformers(height: int, width: int) -> nn.Module:
    from transformers import SwinBackbone, SwinConfig

    sizes: dict[str, Any] = dict(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
    sizes |= dict(embed_dim=96, out_features=[f"stage{i}" for i in (1, 2, 3, 4)])
    return _FeatureMaps(SwinBackbone(SwinConfig(**sizes)))


def _timm(height: int, width: int) -> nn.Module:
    """Build timm's Swin-T; its maps stay channels-last and lack the last norms: a bit less work."""
    import timm

    name = "swin_tiny_patch4_window7_224"
    return timm.create_model(name, features_only=True, img_size=(height, width))


_OWN = {OURS: _ours, VERSION_2: _version_2, VERSION_1: _version_1}
PEERS = {"mmdet": _mmdet, "transformers": _transformers, "timm": _timm}


def load(name: str, height: int, width: int) -> nn.Module:
    """Swin-T with random weights, one of ours or of PEERS; all take and give maps alike.

    Raises:
        LeftOutError: the project is not installed, or does not import here.
    """
    try:
        name_torchvision_ops()
        return {**_OWN, **PEERS}[name](height, width)
    except (ImportError, RuntimeError) as error:
        missing = isinstance(error, ImportError) and importlib.util.find_spec(name) is None
        reason = "not installed" if missing else f"does not import ({str(error).splitlines()[0]})"
        raise LeftOutError(f"{name}: {reason}, left out") from error


# Where tools/install.py puts what needs torchvision. Not among the other packages: a torchvision
# that does not import ends every run of mmengine, which asks for its version.
FOLDER = Path(sys.prefix) / "peers"


class NotInstalledError(ImportError):
    """A package that is neither among the others nor in FOLDER."""


def reach(name: str) -> ModuleType:
    """Import another project's module, also from FOLDER.

    That is on the path for as long as this takes: processes that are started later do not see it.

    Raises:
        NotInstalledError: it is not there.
    """
    root = name.partition(".")[0]
    sys.path.append(str(FOLDER))
    # Torch does other things where it finds Triton, which lies there for a test of our kernels.
    hidden = sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
    try:
        if importlib.util.find_spec(root) is None:
            raise NotInstalledError(f"{root} is not installed")
        if importlib.util.find_spec("torchvision") is not None:
            name_torchvision_ops()
            importlib.import_module("torchvision")  # others look for it later, and then it is there
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        if hidden is None:
            del sys.modules["triton"]


def reach_backbone(config: Path) -> None:
    """Import the project that the backbone of a config is from, if that may lie in FOLDER.

    Raises:
        NotInstalledError: it is not there.
    """
    if "swin_dense.Timm" in config.read_text(encoding="utf-8"):
        reach("timm")


_declared: list[torch.library.Library] = []  # a library that is dropped takes its names along


def name_torchvision_ops() -> None:
    """Declare the ops without which a torchvision built for another torch does not import."""
    if _declared or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for op in ("nms", "qnms"):
            _declared[0].define(f"{op}() -> ()")
