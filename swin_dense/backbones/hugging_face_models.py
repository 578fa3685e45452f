"""Any backbone of transformers (github.com/huggingface/transformers) as one of ours.

transformers is imported when the first model is built.
"""

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from swin_dense.backbones.adapter import About, Adapter
from swin_dense.backbones.asked import Asked, Question, layers_by_name
from swin_dense.backbones.timm_models import IMAGENET, usual_indices
from swin_dense.errors import InputError, nearest
from swin_dense.registry import MODELS

OURS = {
    "swin": ("Swin", "ours computes windows by its own kernels and skips what only pads"),
    "swinv2": ("SwinV2", "ours keeps the window of training at any size and resizes its tables"),
    "convnext": ("ConvNeXt", "ours has the layers of the authors' dense code for layer decay"),
    "convnextv2": ("ConvNeXtV2", "ours has the layers of the authors' dense code for layer decay"),
    "focalnet": ("FocalNet", "ours pads and normalises modulators as the authors' configs say"),
    "vitdet": ("ViT", "ours has the simple pyramid of maps and resizes tables for any size"),
}
INSTALL = "pip install '.[transformers]' in the project's folder"
HALF = (0.5, 0.5, 0.5)  # mean and std of the image processors that shift to -1 to 1
_answers: dict[str, Asked] = {}


def _transformers() -> Any:
    """Import transformers.

    Raises:
        InputError: it does not import; with what to do.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"HuggingFace: {error.name or 'transformers'} does not import ({error}). transformers "
            f"is an extra of this project: {INSTALL}"
        ) from error
    return transformers


@functools.lru_cache(maxsize=1)
def architectures() -> tuple[str, ...]:
    """Return the names of the architectures that transformers has a backbone of."""
    _transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    return tuple(name for name in MODEL_FOR_BACKBONE_MAPPING_NAMES if name != "timm_backbone")


def configuration(model: str, config: Mapping[str, Any] | None) -> Any:
    """Return the configuration that a name, a folder or an architecture stands for.

    Raises:
        InputError: there is none, or not of a backbone; with the nearest name.
    """
    transformers, known = _transformers(), architectures()
    if model in known or (config is not None and "/" not in model):
        if model not in known:
            raise InputError(
                f"HuggingFace: transformers {transformers.__version__} has no backbone of the "
                f"architecture {model!r}.{nearest(model, known)} It has: {', '.join(known)}."
            )
        return _of_architecture(model, config or {})
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model.strip("/."):
        raise InputError(
            f"HuggingFace: {model!r} is no architecture, no folder and no OWNER/NAME of the hub."
            f"{nearest(model, known)} Architectures: {', '.join(known)}."
        )
    try:
        found = transformers.AutoConfig.from_pretrained(str(folder) if folder.is_dir() else model)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"HuggingFace: {model} cannot be read ({str(error).partition(chr(10))[0]}). Without a "
            "network give a folder that holds its config.json, or an architecture and `config`."
        ) from error
    if found.model_type not in known:
        raise InputError(
            f"HuggingFace: {model} is a {found.model_type}, of which transformers has no backbone."
            f"{nearest(found.model_type, known)} It has: {', '.join(known)}."
        )
    for key, value in (config or {}).items():
        setattr(found, key, value)
    return found


def _of_architecture(model: str, config: Mapping[str, Any]) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model]
    plain = kind()
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
    unknown = [key for key in config if not hasattr(plain, key)]
    if unknown:
        raise InputError(
            f"HuggingFace: a {kind.__name__} has no {unknown[0]!r}."
            f"{nearest(unknown[0], plain.to_dict())} See its documentation in transformers."
        )
    try:
        found = kind(**config)
    except Exception as error:  # whatever the checks of others raise
        raise InputError(
            f"HuggingFace: {kind.__name__} does not take these values: "
            f"{' '.join(str(error).split())} See its documentation in transformers."
        ) from error
    for key, value in list(vars(found).items()):
        if isinstance(value, tuple):  # some add lists to them
            setattr(found, key, list(value))
    return found


def _build(config: Any, indices: Sequence[int], **more: Any) -> nn.Module:
    """Build a backbone that returns the maps of these stages."""
    config = copy.deepcopy(config)
    for key, value in more.items():
        setattr(config, key, value)
    config.out_features = [name for i, name in enumerate(config.stage_names) if i in indices]
    try:
        return _transformers().AutoBackbone.from_config(config)
    except Exception as error:  # whatever the code of others raises
        what = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        raise InputError(
            f"HuggingFace: a backbone {config.model_type} cannot be built as `config` has it "
            f"({what}). See the arguments of its configuration in transformers."
        ) from error


@MODELS.register_module()
class HuggingFace(Adapter):
    """A backbone of transformers for images of any size, or of the sizes it says it takes.

    Stages are counted as transformers does, mostly from the stem as 0. Layers are the blocks in the
    order of their names; vectors, tables of positions and tokens never decay.

    Attributes:
        config: the configuration in transformers.
    """

    no_weight_decay_keywords = (
        "position_embeddings",
        "pos_embed",
        "cls_token",
        "mask_token",
        "register_tokens",
        "relative_position_bias_table",
    )

    def __init__(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        img_size: int | Sequence[int] | None = None,
        pretrained: bool = False,
        output_norm: bool = False,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            model: OWNER/NAME of the hub, a folder with config.json, or an architecture such as
                "dinov2", whose configuration `config` changes.
            config: values of the configuration that are others.
            out_indices: stages whose maps are returned, in growing order; of a plain transformer
                each block is a stage. By default the last of each stride from 4 on, four at
                most, or four blocks of equal distance.
            img_size: side, or (height, width), in pixels that the model is built for.
            pretrained: start from the weights of the hub, or of the folder.
            output_norm: put a LayerNorm over C on each map.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the last residual branch in training.
            frozen_stages: what does not train: from 0 on the stem, then all that the maps of
                number 0 to `frozen_stages` - 1 are computed from.
            with_cp: compute blocks again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.

        Raises:
            InputError: transformers is missing, or has no such backbone.
        """
        self.model = model
        self.config = copy.deepcopy(configuration(model, config))
        if not hasattr(self.config, "stage_names"):
            raise InputError(
                f"HuggingFace: transformers names no stages of {self.config.model_type}. Take "
                f"another of {', '.join(architectures())}."
            )
        self.config.num_channels = in_channels
        if img_size is not None:
            side = [img_size] * 2 if isinstance(img_size, int) else list(img_size)
            self.config.image_size = side[0] if len(set(side)) == 1 else tuple(side)
        if drop_path_rate:
            self.config.drop_path_rate = drop_path_rate
        count = len(self.config.stage_names)
        indices = out_indices
        every = self._ask()
        if indices is None:
            behind = len(set(every.strides)) == 1  # of a plain transformer the first is no block
            indices = [i + behind for i in usual_indices(every.strides[behind:])]
        if pretrained and init_cfg is None:
            init_cfg = dict(type="Pretrained", checkpoint=_weights(model))
        super().__init__(
            stages=count,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.asked = every.of(self.out_indices)
        network = _build(self.config, self.out_indices)
        self.layers = layers_by_name([n for n, _ in network.named_parameters()])
        if with_cp:
            self._spare_memory(network)
        self._adopt(network, output_norm)

    def _spare_memory(self, network: Any) -> None:
        if not getattr(network, "supports_gradient_checkpointing", False):
            raise InputError(
                f"HuggingFace: {self.model} does not compute blocks again in the backward pass. "
                "Leave with_cp out."
            )
        network.gradient_checkpointing_enable(dict(use_reentrant=False))

    def _ask(self) -> Asked:
        key = repr({**self.config.to_dict(), "num_channels": 0})
        if key not in _answers:
            size = getattr(self.config, "image_size", None) or 224
            sides = [size] * 2 if isinstance(size, int) else list(size)
            _answers[key] = Question(
                name=f"HuggingFace: {self.model}",
                build=lambda more: _build(self.config, range(len(self.config.stage_names)), **more),
                maps_of=self.maps_of,
                in_channels=self.config.num_channels,
                usual=(sides[0], sides[-1]),
            ).ask()
        return _answers[key]

    @staticmethod
    def maps_of(network: nn.Module, image: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H, W) that a network makes of an image."""
        return list(network(image).feature_maps)

    @classmethod
    def about(cls, model: str, config: Mapping[str, Any] | None = None, **stated: Any) -> About:
        """Return what transformers states of a model, and whether there is a class of ours.

        Raises:
            InputError: transformers is missing, or has no such backbone.
        """
        kind = configuration(model, config).model_type
        lines = [
            f"transformers' {model}: the licence of weights stands on their page of the hub; "
            "transformers does not carry it"
        ]
        if kind in OURS and OURS[kind][0] in MODELS.module_dict:
            name, why = OURS[kind]
            lines.append(f"transformers' {model}: this project has swin_dense.{name}; {why}")
        return About.of(*_statistics(model, kind), lines)

    def _as_theirs(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return weights as transformers loads them: files have the names of its older releases."""
        kind: Any = type(self.net)
        try:
            loaded, told = kind.from_pretrained(
                None, config=self.net.config, state_dict=dict(weights), output_loading_info=True
            )
        except Exception as error:  # written for files of its family alone
            what = str(error).strip().partition("\n")[0]
            return weights, [f"weights: transformers did not take the file ({what})"]
        found = {n: t for n, t in loaded.state_dict().items() if n not in told["missing_keys"]}
        rest = {n: weights[n] for n in told["unexpected_keys"] if n in weights}
        return {**found, **rest}, []


def _weights(model: str) -> str:
    """Return where the weights of a folder or of a name of the hub lie."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if "/" not in model:
            raise InputError(
                f"HuggingFace: {model} is an architecture and has no weights of its own. Give "
                "OWNER/NAME of the hub or a folder, or init_cfg=dict(type='Pretrained', ...)."
            )
        return f"hf://{model}/model.safetensors"
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    for name in names:
        if (folder / name).is_file():
            return str(folder / name)
    raise InputError(f"HuggingFace: {folder} holds no weights. One of these: {', '.join(names)}.")


def _statistics(model: str, kind: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of images of 0 to 1: of the folder, the hub, or the architecture."""
    stated = Path(model).expanduser() / "preprocessor_config.json"
    if stated.is_file():
        found = json.loads(stated.read_text(encoding="utf-8"))
        if found.get("image_mean") and found.get("image_std"):
            return found["image_mean"], found["image_std"]
    elif "/" in model and not stated.parent.is_dir():
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            found, _ = ImageProcessingMixin.get_image_processor_dict(model)
        except OSError:
            found = {}
        if found.get("image_mean") and found.get("image_std"):
            return found["image_mean"], found["image_std"]
    return (HALF, HALF) if kind == "beit" else IMAGENET
