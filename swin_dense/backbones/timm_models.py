"""Any model of timm (github.com/huggingface/pytorch-image-models) as a backbone.

timm is imported when the first model is built. It imports torchvision, which has to be the build
for the torch that is installed.
"""

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from swin_dense.backbones.adapter import About, Adapter, joint
from swin_dense.backbones.asked import Asked, Question, layers_by_name
from swin_dense.errors import InputError, nearest
from swin_dense.registry import MODELS

# Options by which models that are built for one size take others.
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)
# Families that have a class here: what it is called, and why it is the better one.
OURS = {
    "swin_transformer": (
        "Swin",
        "timm rolls a map before it pads it, the authors' dense code pads first; ours does as they "
        "do, norms its maps and skips what only pads",
    ),
    "swin_transformer_v2": (
        "SwinV2",
        "ours takes any image size with the window of training, norms its maps and resizes tables",
    ),
    "convnext": (
        "ConvNeXt",
        "ours has the norms of the maps and the layers of the authors' dense code",
    ),
    "focalnet": ("FocalNet", "ours pads and normalises modulators as the authors' configs say"),
    "vision_transformer": ("ViT", "ours has windows, relative positions and a pyramid of maps"),
}
# Names in the authors' own files that timm's filters do not know, by family.
AUTHORS: dict[str, tuple[tuple[str, Callable[[re.Match], str]], ...]] = {
    "tiny_vit": (
        (r"^patch_embed\.seq\.(\d)\.", lambda m: f"patch_embed.conv{1 + int(m[1]) // 2}."),
        (r"^layers\.(\d+)\.downsample", lambda m: f"stages.{int(m[1]) + 1}.downsample"),
        (r"^layers\.", lambda m: "stages."),
        (r"\.c\.weight$", lambda m: ".conv.weight"),
    ),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INSTALL = "pip install '.[timm]' in the project's folder"


def _timm() -> Any:
    """Import timm.

    Raises:
        InputError: it or its torchvision is missing or does not import, with what to do.
    """
    try:
        import timm
        from timm.models import group_parameters  # noqa: F401  old ones lack it
    except ImportError as error:
        raise InputError(
            f"Timm: {error.name or 'timm'} does not import ({error}). timm and its torchvision are "
            f"an extra of this project: {INSTALL}"
        ) from error
    except RuntimeError as error:  # operator torchvision::nms does not exist
        raise InputError(
            "Timm: timm imports torchvision, and the one installed is not built for torch "
            f"{torch.__version__} ({str(error).splitlines()[0]}). Install the torchvision of the "
            "same release and kind (CPU or CUDA) from where torch came from; pytorch.org lists "
            "which belongs to which."
        ) from error
    return timm


def require(model: str) -> None:
    """Check that timm knows a model, and its weights if the name has a tag.

    Raises:
        InputError: it does not; with the nearest name.
    """
    timm = _timm()
    base, dot, _ = str(model).partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        raise InputError(
            f"Timm: timm {timm.__version__} has no model {model!r}.{nearest(base, known)} It has "
            f"{len(known)}; timm.list_models() gives their names."
        )
    tagged = timm.list_pretrained(f"{base}.*") if dot else []
    if dot and model not in tagged:
        hint = nearest(model, tagged)
        raise InputError(
            f"Timm: timm has no weights {model!r}.{hint} Of {base} there are "
            f"{', '.join(tagged) or 'none'}."
        )


@functools.lru_cache(maxsize=32)
def _plain(model: str, options: str) -> nn.Module:
    """Return the whole model without data; timm says of it what it does not say of features."""
    with unset_fake_temporarily(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _timm().create_model(model, num_classes=0, **_options[options])


_options: dict[str, dict[str, Any]] = {}  # by their text, because dicts are no keys
_answers: dict[str, Asked] = {}


def _key(options: Mapping[str, Any]) -> str:
    key = repr(sorted(options.items()))
    _options[key] = dict(options)
    return key


def _features(
    model: str, given: Mapping[str, Any], in_channels: int, indices: Sequence[int]
) -> nn.Module:
    """Build the part of a model that makes its maps."""
    arguments = dict(given, in_chans=in_channels, out_indices=tuple(indices))
    try:
        return _timm().create_model(model, features_only=True, **arguments)
    except TypeError:
        raise
    except Exception as error:  # whatever the code of others raises
        raise InputError(
            f"Timm: {model} cannot be built to give maps ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            f"{_like(model)}"
        ) from error


def _like(model: str) -> str:
    """Name models whose names are near, of other families, that give maps."""
    timm = _timm()
    base = model.partition(".")[0]
    others = [name for name in timm.list_models() if _family(name) != _family(base)]
    hint = nearest(base, others)
    return f"Another option is wrong for it, or it has no maps.{hint} Take another model."


@MODELS.register_module()
class Timm(Adapter):
    """A model of timm as a backbone for images of any size, or of the sizes it says it takes.

    The maps come as (B, C, H, W) with the strides that the model was found to have. Layers and what
    never decays are those of timm's own groups. A model that was built for one size is asked
    whether it takes others: with timm's options for that, then filled up to a multiple. Weights
    under timm's names load by their own names, also those timm itself converts.

    Attributes:
        licence: of the weights of that name, as timm states it.
    """

    def __init__(
        self,
        model: str,
        out_indices: Sequence[int] | None = None,
        img_size: int | Sequence[int] | None = None,
        pretrained: bool = False,
        output_norm: bool = False,
        options: Mapping[str, Any] | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            model: its name in timm, such as "convnext_tiny" or "convnext_tiny.in12k_ft_in1k".
            out_indices: which of timm's maps are returned, in growing order. By default the last
                of each stride from 4 on, four at most; of a plain transformer four blocks of
                equal distance.
            img_size: side, or (height, width), in pixels that the model is built for, where it has
                such an argument: of windows and tables of positions.
            pretrained: start from the weights that timm names for the model, fetched from the hub.
            output_norm: put a LayerNorm over C on each map, as dense models of most papers have it.
            options: further arguments of the model in timm.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the last residual branch in training.
            frozen_stages: what does not train: from 0 on the stem (timm's first group), then all
                that the maps of number 0 to `frozen_stages` - 1 are computed from.
            with_cp: compute blocks again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.

        Raises:
            InputError: timm is missing, has no such model, or the model gives no maps.
        """
        require(model)
        given: dict[str, Any] = dict(options or {})
        if img_size is not None:
            side = [img_size] * 2 if isinstance(img_size, int) else list(img_size)
            given["img_size"] = (side[0], side[-1])
        if drop_path_rate:
            given["drop_path_rate"] = drop_path_rate
        self.model = model
        plain, given = _accepted(model, given)
        strides = _levels(plain)
        if out_indices is None:
            out_indices = usual_indices(strides)
        if pretrained and init_cfg is None:
            init_cfg = dict(type="Pretrained", checkpoint=pretrained_state(model))
        super().__init__(
            stages=len(strides),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=False,
            init_cfg=init_cfg,
        )
        key = repr((model, sorted(given.items())))
        if key not in _answers:
            _answers[key] = self._question(given, plain).ask()
        self.asked = _answers[key].of(self.out_indices)
        network = _features(model, {**given, **self.asked.options}, in_channels, self.out_indices)
        self._given = {**given, **self.asked.options}
        self._read_groups(plain, network)
        self.with_cp = with_cp
        if with_cp:
            self._spare_memory(network)
        self._adopt(network, output_norm)

    def _question(self, given: Mapping[str, Any], plain: nn.Module) -> Question:
        model, channels = self.model, self.in_channels
        height, width = given.get("img_size", _configuration(model).input_size[1:])
        return Question(
            name=f"Timm: {model}",
            build=lambda more: _features(
                model, {**given, **more}, channels, range(len(_levels(plain)))
            ),
            maps_of=self.maps_of,
            in_channels=channels,
            usual=(height, width),
            stated=_levels(plain),
            variants=VARIANTS,
        )

    def _read_groups(self, plain: nn.Module, network: nn.Module) -> None:
        """Take the layers and what never decays from the whole model, by names without dots."""
        timm = _timm()
        kept = {joint(name): name for name, _ in network.named_parameters()}
        matcher = getattr(plain, "group_matcher", None)
        found = layers_by_name(list(kept.values()))
        if matcher is not None:
            groups = timm.models.group_parameters(plain, matcher(coarse=False), reverse=True)
            found = {kept[joint(n)]: g for n, g in groups.items() if joint(n) in kept}
        last = max(found.values(), default=0)
        found = {name: found.get(name, last) for name in kept.values()}
        order = {group: place for place, group in enumerate(sorted(set(found.values())))}
        self.layers = {name: order[group] for name, group in found.items()}
        free: set[str] = getattr(plain, "no_weight_decay", set)()
        self.no_weight_decay_keywords = tuple(
            f"net.{kept[joint(name)]}" for name in sorted(free) if joint(name) in kept
        )

    def _spare_memory(self, network: nn.Module) -> None:
        inner = getattr(network, "model", network)
        switch = getattr(inner, "set_grad_checkpointing", None)
        try:
            if switch is None:
                raise NotImplementedError("it has no such switch")
            switch(True)
        except (AssertionError, NotImplementedError) as error:
            raise InputError(
                f"Timm: {self.model} does not compute blocks again in the backward pass ({error}). "
                "Leave with_cp out, or wrap blocks by activation_checkpointing of mmengine."
            ) from error

    @staticmethod
    def maps_of(network: nn.Module, image: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H, W) that a network makes of an image."""
        maps = list(network(image))
        if str(getattr(network, "output_fmt", "")).endswith("NHWC"):
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return maps

    @property
    def licence(self) -> str:
        """Return what timm states of the licence of the weights."""
        return _configuration(self.model).license or "not stated"

    @classmethod
    def about(cls, model: str, **stated: Any) -> About:
        """Return what timm states of a model's weights, and whether there is a class of ours.

        Raises:
            InputError: timm is missing, or has no such model.
        """
        require(model)
        found = _configuration(model)
        licence = found.license or "not stated"
        lines = [f"timm's {model}; licence of its weights, as timm has it: {licence}"]
        family = _family(model)
        if family in OURS and OURS[family][0] in MODELS.module_dict:
            name, why = OURS[family]
            lines.append(f"timm's {model}: this project has swin_dense.{name}; {why}")
        return About.of(found.mean, found.std, lines)

    def _as_theirs(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return weights as timm's own filter of the family has them: other names, other sizes."""
        plain = _plain(self.model, _key(self._given))
        for pattern, to in AUTHORS.get(_family(self.model), ()):
            weights = {re.sub(pattern, to, name): t for name, t in weights.items()}
        wanted = {joint(name) for name in plain.state_dict()}
        turn: Callable | None = getattr(
            sys.modules[type(plain).__module__], "checkpoint_filter_fn", None
        )
        if turn is None:
            return weights, []
        try:
            turned = turn(dict(weights), plain)
        except Exception as error:  # written for files of its family alone
            lines = [
                f"weights: timm's filter did not take the file ({type(error).__name__}: {error})"
            ]
            return weights, lines
        if sum(joint(n) in wanted for n in turned) < sum(joint(n) in wanted for n in weights):
            return weights, []
        lines = [
            f"weights: {name} {tuple(weights[name].shape)} -> {tuple(tensor.shape)}, by timm"
            for name, tensor in turned.items()
            if name in weights and weights[name].shape != tensor.shape
        ]
        return dict(turned), lines


def _family(model: str) -> str:
    """Return timm's name of the file that a model is from."""
    return _timm().models._registry._model_to_module.get(model.partition(".")[0], "")


def _levels(plain: Any) -> list[int]:
    """Return the strides that timm states for all maps of a model."""
    return [info["reduction"] for info in plain.feature_info]


def usual_indices(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the last map of each stride from 4 on, or four at equal distances if all are alike."""
    if len(set(strides)) == 1:
        count = min(4, len(strides))
        return tuple(len(strides) * (i + 1) // count - 1 for i in range(count))
    last = {stride: index for index, stride in enumerate(strides)}
    return tuple(index for stride, index in sorted(last.items()) if stride >= 4)[-4:]


def _configuration(model: str) -> Any:
    """Return what timm states of a model's weights."""
    timm = _timm()
    found = timm.get_pretrained_cfg(model)
    return found or timm.models.PretrainedCfg(input_size=(3, 224, 224), mean=IMAGENET[0])


def pretrained_state(model: str) -> str:
    """Return where timm's weights of a model lie, as `checkpoint` of an init_cfg takes it.

    Raises:
        InputError: timm names none.
    """
    stated = _configuration(model)
    if stated.hf_hub_id:
        return f"hf://{stated.hf_hub_id}/{stated.hf_hub_filename or 'model.safetensors'}"
    if stated.url:
        return stated.url
    raise InputError(
        f"Timm: timm names no weights for {model}. Leave `pretrained` out, or give a file by "
        "init_cfg=dict(type='Pretrained', checkpoint=...)."
    )


def _accepted(model: str, given: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Return the whole model without data, and the options it takes.

    Raises:
        InputError: it does not know an option.
    """
    try:
        return _plain(model, _key(given)), given
    except InputError:
        raise
    except Exception as error:  # whatever the code of others raises
        rule = (
            " It has no img_size: it takes any size, or the one of its weights; leave img_size out."
            if "img_size" in given and "img_size" in str(error)
            else " See the arguments of the model in timm."
        )
        raise InputError(
            f"Timm: {model} does not take {', '.join(given) or 'its own defaults'} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}).{rule}"
        ) from error
