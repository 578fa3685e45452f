"""Every way of weights into a model: read safely, recognised, accounted for, refused if too few."""

import copy
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

import swin_dense.backbones  # noqa: F401  registers what is known of their weights
from swin_dense.backbones.adapter import Adapter
from swin_dense.checkpoints import downloads, files, fitting, layouts
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.checkpoints.ledger import Ledger
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import building, channels, classes, sections
from swin_dense.openmmlab.settings import config as configs

WHOLE = 1.0  # to test or to draw, every weight of the model must come from the file
START = 0.95  # to start training from; what must start anew, such as other classes, does not count
HOW_TO_ALLOW = (
    "What may stay at random can be named, as neck roi_head, in `allow_missing` (of the command, "
    "of the config or of an init_cfg)."
)


def _print(text: str) -> None:
    print_log(text, logger="current")


def read(source: str, map_location: Any = None) -> Checkpoint:
    """Read the checkpoint that a path, an address or a name of the authors' weights stands for.

    Raises:
        InputError: it cannot be had or not be read safely.
    """
    path = downloads.locate(source, _print)
    if not path.exists() and (hint := downloads.hint(source)):
        raise InputError(
            f"checkpoint: there is no file {source} and no weights of that name.{hint}"
        )
    return files.read(path, map_location or "cpu", source=source)


def load(
    module: nn.Module,
    checkpoint: Checkpoint,
    share: float,
    advice: str,
    *,
    part: str = "model",
    allowed: Sequence[str] = (),
    class_layers: Callable[[], Collection[str]] = tuple,
    other_classes: bool = False,
) -> Ledger:
    """Load what fits into `module` and say what became of all of it; nothing below `share`.

    Position tables are resized only where training goes on, not where all weights are needed. The
    account is printed and stays with the module, see `loaded_into`.

    Args:
        share: of what should come, see `Ledger.share`.
        part, allowed, class_layers, other_classes: see `fitting.fit`.

    Raises:
        InputError: less than `share` comes; with the whole comparison.
    """
    if isinstance(module, Adapter) and share < WHOLE:
        checkpoint = _renamed(module, checkpoint)
        allowed = (*allowed, *module.starts_anew(checkpoint.weights))
    state, ledger = fitting.fit(
        module.state_dict(),
        checkpoint,
        part=part,
        resizes=share < WHOLE,
        allowed=allowed,
        class_layers=class_layers,
        other_classes=other_classes,
    )
    ledger.require(share, advice if share == WHOLE else f"{advice} {HOW_TO_ALLOW}")
    module.load_state_dict(state, strict=False)
    vars(module).setdefault("_loaded_weights", []).append(ledger.record())
    _print("\n".join(ledger.lines()))
    return ledger


def _renamed(module: Adapter, checkpoint: Checkpoint) -> Checkpoint:
    """Give weights the names that a network of another project has; say what it resized."""
    state, lines = module.renamed(checkpoint.weights)
    for line in lines:
        _print(line)
    found = Checkpoint(checkpoint, state_dict=state)
    vars(found).update(vars(checkpoint))
    return found


def load_pretrained(backbone: nn.Module, source: str, allowed: Sequence[str] = ()) -> Ledger:
    """Start a backbone from a classification checkpoint or from another detector's backbone."""
    return load(
        backbone,
        read(source),
        START,
        "Is this file for the same architecture (depths, widths)?",
        part="backbone",
        allowed=allowed,
    )


def loaded_into(model: nn.Module) -> list[dict[str, Any]]:
    """Return the accounts of all loads into the model and its parts."""
    return [r for part in model.modules() for r in vars(part).get("_loaded_weights", ())]


def write_record(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """weights.json: each load in full."""
    with files.replaced(path) as temporary:
        temporary.write_text(json.dumps(records, indent=1) + "\n")


class Pretrained(PretrainedInit):
    """init_cfg=dict(type="Pretrained", checkpoint=...), for any module.

    Args:
        checkpoint: a path, an address or a name of the authors' weights.
        prefix: load only what is called so in the file, without it.
        allow_missing: patterns of names that may stay at random.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        map_location: str = "cpu",
        allow_missing: Sequence[str] = (),
    ):
        super().__init__(checkpoint, prefix, map_location)
        self.allow_missing = allow_missing

    def __call__(self, module: nn.Module) -> None:
        found = CheckpointLoader._get_checkpoint_loader(self.checkpoint)(
            self.checkpoint, map_location=self.map_location
        )
        if not isinstance(found, Checkpoint):
            raise InputError(
                f"init_cfg: {self.checkpoint} comes from a store that we cannot account for. "
                "Download it and give its path."
            )
        if self.prefix:
            start = f"{self.prefix.rstrip('.')}."
            within = [name for name in found.weights if name.startswith(start)]
            if not within:
                raise InputError(
                    f"init_cfg: nothing in {self.checkpoint} is called {start}*, see its prefix."
                )
            found["state_dict"] = {n.removeprefix(start): found.weights[n] for n in within}
        whole = hasattr(module, "backbone")
        load(
            module,
            found,
            START,
            f"Is the init_cfg of {type(module).__name__} meant for this file?",
            part="model" if whole else "backbone",
            allowed=self.allow_missing,
        )
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())


def compare(path: str, checkpoint: Checkpoint, trust_config: bool = False) -> Ledger:
    """Return the account of `checkpoint` against a config's model; load and refuse nothing.

    A bare backbone is laid into the model's backbone. The heads have the file's classes if it
    names them, else the config's.
    """
    config = configs.load(path, trust_config=trust_config)
    names = class_names(checkpoint)
    if names:
        classes.set_classes(config, names, thing_names(checkpoint))
    init_default_scope(config.default_scope)
    with channels.build_device(MODELS, config.model.backbone):
        model: Any = building.build(MODELS, config.model, "model")
    bare = is_backbone_alone(checkpoint)
    return fitting.fit(
        (model.backbone if bare else model).state_dict(),
        checkpoint,
        part="backbone" if bare else "model",
    )[1]


def is_backbone_alone(checkpoint: Checkpoint) -> bool:
    """Say whether a file holds a backbone without a neck and heads, by the names of its weights."""
    try:
        return not layouts.convert(checkpoint.weights).whole
    except InputError:
        return False


def trained_on(config: Config) -> Mapping[str, Any]:
    """Return what a complete config says of its training data: classes and, if any, things."""
    node = config.get("train_dataloader") or {}
    while "dataset" in node:
        node = node["dataset"]
    return node.get("metainfo") or {}


def class_layers(config: Config, model: nn.Module) -> frozenset[str]:
    """Names of weights whose shape follows from the number of classes.

    They are those that have another shape in the same model with one class more.
    """
    names = trained_on(config).get("classes")
    if names is None:
        return frozenset()
    twin = Config(copy.deepcopy(config._cfg_dict))
    for node in sections.walk(twin.model):
        if isinstance(node.get("class_weight"), list | tuple):
            node["class_weight"] = None  # of a loss, one number for each class
    classes.set_classes(twin, (*names, "one more"), trained_on(config).get("thing_classes"))
    with channels.build_device(MODELS, twin.model.backbone):
        other = MODELS.build(twin.model).state_dict()
    return frozenset(
        name
        for name, tensor in model.state_dict().items()
        if name in other and other[name].shape != tensor.shape
    )


def class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that a training run stored with its weights, if it did."""
    meta = checkpoint.get("meta") or {}
    dataset = meta.get("dataset_meta") or {}
    # mmdet and mmseg have changed the place and the case over time.
    names = dataset.get("classes") or meta.get("classes")
    names = names or dataset.get("CLASSES") or meta.get("CLASSES")
    return tuple(names) if names else None


def thing_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that are things, if the weights were trained on panoptic data."""
    meta = checkpoint.get("meta") or {}
    names = (meta.get("dataset_meta") or meta).get("thing_classes")
    return None if names is None else tuple(names)


def require_classes(
    trained: tuple[str, ...], asked: tuple[str, ...], path: str, ordered: bool
) -> None:
    """Weights and data must speak of the same classes.

    Args:
        ordered: whether the order counts too, as it does where values carry no names.

    Raises:
        InputError: with the names that have no partner on either side.
    """
    only_weights = [n for n in trained if n not in asked]
    only_data = [n for n in asked if n not in trained]
    if only_weights or only_data:
        raise InputError(
            f"checkpoint: {path} was trained for {len(trained)} classes, the data has "
            f"{len(asked)}. Only in the checkpoint: {only_weights or 'none'}. Only in the data: "
            f"{only_data or 'none'}. Test on the data set it was trained for, or rename classes."
        )
    if ordered and trained != asked:
        raise InputError(
            f"checkpoint: {path} knows the classes in another order than the label maps' values. "
            f"Checkpoint: {list(trained)}. Data: {list(asked)}. Give the `classes` file of "
            "the training."
        )
