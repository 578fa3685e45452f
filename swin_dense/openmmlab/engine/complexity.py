"""Count what a config's model costs, part by part: nothing is computed, tensors have a shape only.

FLOPs are multiply-adds, as the papers of this field count them: of products, convolutions and
attention (torch's counter, and the formulas that our ops register); norms, activations, RoIAlign
and NMS count nothing. A two-stage detector is given PROPOSALS boxes, of which MASKS get a mask.
Kept is what torch's kernels for processors keep, its dropouts switched on; those for GPUs keep a
byte where a dropout keeps a number here.
"""

import contextlib
import functools
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from mmcv.cnn.bricks.drop import DropPath
from mmdet.models.dense_heads import MaskFormerHead, RPNHead
from mmdet.models.roi_heads import SparseRoIHead
from mmdet.models.roi_heads.bbox_heads import DIIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmseg.models.decode_heads import PointHead
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as trees
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.openmmlab.engine.torch_errors import explained
from swin_dense.openmmlab.settings import building
from swin_dense.openmmlab.settings.channels import build_device

PROPOSALS = 1000
MASKS = 100
UNFOLDED = ("backbone", "roi_head", "panoptic_head")  # told apart by their own parts
LISTS = ("backbone", "neck", "roi_head")  # and by the parts of their lists
REST = "rest"  # what is computed between the parts; of a segmentor, its loss
NEEDS_MORE = (DataDependentOutputException, DynamicOutputShapeException, NotImplementedError)
HERE = Path(__file__)
DROPOUTS = (_DropoutNd, nn.MultiheadAttention, DropPath, residual.DropPath)


@dataclass(frozen=True)
class Part:
    """Say what one part of a model costs.

    Attributes:
        name: where it is in the model.
        parameters: how many numbers its weights have, frozen ones included.
        flops: multiply-adds of one image in a test.
        kept: bytes of activations that a training step keeps for the backward pass.
    """

    name: str
    parameters: int
    flops: int
    kept: int


@dataclass(frozen=True)
class Complexity:
    """Say what a model costs, part by part.

    Attributes:
        parts: in the order of the model; those that cost nothing are left out.
        weights: bytes of all weights.
        learning: bytes of those that learn; gradients take as many, AdamW's state twice as many.
    """

    parts: tuple[Part, ...]
    weights: int
    learning: int

    @property
    def total(self) -> Part:
        """Add up all parts."""
        columns = zip(*((p.parameters, p.flops, p.kept) for p in self.parts), strict=True)
        return Part("total", *map(sum, columns))

    @property
    def uses(self) -> dict[str, int]:
        """Return bytes of a training step with AdamW, by what they are used for."""
        return {
            "weights": self.weights,
            "gradients": self.learning,
            "optimizer_state": 2 * self.learning,
            "activations": self.total.kept,
        }

    @property
    def memory(self) -> int:
        """Add up the bytes of all uses; what allocators and products add is not in it."""
        return sum(self.uses.values())


def count(config: Config, shape: tuple[int, int]) -> Part:
    """Count parameters and FLOPs alone, of the whole model; see `measure`."""
    model, fake = _build(config)
    with fake, _KnownNumbers():
        flops = _flops(model, shape)
    return Part("total", sum(p.numel() for p in model.parameters()), flops.total(), 0)


def measure(
    config: Config,
    shape: tuple[int, int],
    training_shape: tuple[int, int],
    batch: int = 2,
    bf16: bool = False,
) -> Complexity:
    """Count a config's model.

    Args:
        shape: height and width in pixels of the image that FLOPs are counted for.
        training_shape: height and width in pixels of an image of a training step.
        batch: images of a training step.
        bf16: whether a training step runs under bf16 autocast; fp16 keeps as many bytes.

    Raises:
        InputError: the model computes no images of this size, or not from their size alone.
    """
    model, fake = _build(config)
    with fake, _KnownNumbers():
        flops = _flops(model, shape)
        kept = _kept(model, training_shape, batch, bf16)
    numbers: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        numbers[_place(name)] += parameter.numel()
    # A set that keeps its order: that of the model, then what lies between the parts.
    names = dict.fromkeys([*(_place(n) for n, _ in model.named_modules() if n), *flops, *kept])
    parts = tuple(Part(name, numbers[name], flops[name], kept[name]) for name in names)
    parts = tuple(p for p in parts if p.parameters or p.flops or p.kept)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Complexity(parts, _bytes(model.parameters()), _bytes(learning))


def _build(config: Config) -> tuple[nn.Module, FakeTensorMode]:
    """Build the model of tensors that have no data."""
    if "backbone" not in config.model:
        built = {k: part for k, part in config.model.items() if isinstance(part, dict)}
        parts = [k for k in built if "type" in built[k] and k != "data_preprocessor"]
        raise InputError(
            f"config: only a model that has a backbone itself can be counted; {config.model.type} "
            f"has {', '.join(parts)}. Count one of them as the model of a config of its own."
        )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    scope = MODELS.switch_scope_and_registry(config.default_scope)
    with scope as registry, build_device(registry, config.model.backbone):
        # DETRs write into what they are built from.
        model = revert_sync_batchnorm(building.build(registry, deepcopy(config.model), "model"))
    # As to_empty does, without asking torch's dispatcher about each tensor.
    model._apply(lambda x: FakeTensor(fake, x.detach().to("meta"), torch.device("cpu")))
    return model.eval(), fake


class _KnownNumbers(TorchFunctionMode):
    """Compute what follows from shapes alone, such as the sizes of maps in a DETR."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        given = (tuple(args), kwargs or {})
        if func is torch._shape_as_tensor:
            with unset_fake_temporarily():
                return torch.tensor(list(args[0].shape))
        tensors = [x for x in trees.tree_leaves(given) if isinstance(x, Tensor)]
        if tensors and not any(isinstance(x, FakeTensor) for x in tensors):
            with unset_fake_temporarily():
                return func(*given[0], **given[1])
        args, kwargs = trees.tree_map_only(Tensor, _number, given)
        return func(*args, **kwargs)


def _number(x: Tensor) -> Any:
    """Return a known number as such, every other tensor as it is."""
    if x.dim() > 0 or isinstance(x, FakeTensor):
        return x
    with unset_fake_temporarily():
        return x.item()


class _Work(nn.Module):
    """Wrap what is done with a model in a module, from which trackers name its parts."""

    def __init__(self, model: nn.Module, do: Callable) -> None:
        super().__init__()
        self.model = model
        self.do = do

    def forward(self, shape: tuple[int, int], batch: int) -> Any:
        with _countable(self.model, shape), explained():
            return self.do(self.model, shape, batch)

    @classmethod
    def place(cls, tracker: ModuleTracker) -> str:
        """Return the part of the innermost module that is being called."""
        start = f"{cls.__name__}.model."
        around = [name for name in tracker.parents if name.startswith(start)]
        return _place(max(around, key=len, default=start + REST).removeprefix(start))


@contextlib.contextmanager
def _countable(model: nn.Module, shape: tuple[int, int]) -> Iterator[None]:
    """Say what to do about a model that cannot be counted; a fault of ours keeps its traceback."""
    try:
        yield
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if place.is_relative_to(HERE.parents[2]) and place != HERE:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        problem = (
            f"what it computes depends on more than the size of images ({reason}), so it cannot be "
            "counted from the config alone. Let it run: the log of tools/train.py tells the memory "
            "after 20 iterations."
        )
        if isinstance(error, RuntimeError) and not isinstance(error, NEEDS_MORE):
            problem = (  # of tensors without data, nothing but the shapes can be wrong
                f"it cannot compute images of {shape[1]}x{shape[0]} ({reason}). They are too small "
                "for it or not of the size it is made for: give another `shape`, or another size "
                "in the pipeline of train_dataloader."
            )
        raise InputError(f"{type(model).__name__}: {problem}") from error


class _FlopCounter(FlopCounterMode):
    """torch's counter, which also says what each part of the model added."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.by_part: Counter[str] = Counter()

    def _count_flops(self, *call: Any) -> Any:
        before = self.get_total_flops()
        out = super()._count_flops(*call)
        if added := self.get_total_flops() - before:
            self.by_part[_Work.place(self.mod_tracker)] += added
        return out


def _flops(model: nn.Module, shape: tuple[int, int]) -> Counter[str]:
    """Count multiply-adds of each part for one image."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # else the counter looks for gradients that are not recorded
    with torch.no_grad(), _proposals(model, PROPOSALS, MASKS), _FlopCounter() as counter:
        _Work(model, _forward)(shape, 1)
    for parameter in learning:
        parameter.requires_grad_(True)
    return Counter({part: flops // 2 for part, flops in counter.by_part.items()})


def _kept(model: nn.Module, shape: tuple[int, int], batch: int, bf16: bool) -> Counter[str]:
    """Count bytes of activations that each part keeps; a segmentor's loss included.

    Of the model only the dropouts are in training: whole DETRs would ask for ground truth then.
    """
    for module in model.modules():
        module.training = isinstance(module, DROPOUTS)
    weights = {_memory(x) for x in (*model.parameters(), *model.buffers())}
    alive: dict[int, Tensor] = {}  # lest another tensor comes to lie in the same place
    kept: Counter[str] = Counter()
    tracker = ModuleTracker()

    def keep(tensor: Tensor) -> Tensor:
        memory = _memory(tensor)
        if memory not in weights and memory not in alive:
            alive[memory] = tensor
            kept[_Work.place(tracker)] += tensor.untyped_storage().nbytes()
        return tensor

    sampler = _sampler(model)
    boxes = batch * sampler.get("num", PROPOSALS)
    masks = int(boxes * sampler.get("pos_fraction", 1.0))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with tracker, hooks, autocast, _proposals(model, boxes, masks):
        _Work(model, _segment if hasattr(model, "decode_head") else _forward)(shape, batch)
    return kept


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.itemsize for x in tensors)


def _memory(x: Tensor) -> int:
    """Return a number that tells apart what lies in different places."""
    return x.untyped_storage()._cdata


def _place(name: str) -> str:
    """Return the part that a module or parameter belongs to, by its name in the model."""
    whole = name.split(".")
    length = 2 if whole[0] in UNFOLDED else 1
    if whole[0] in LISTS and "".join(whole[length : length + 1]).isdecimal():
        length += 1
    return ".".join(whole[:length])


def _forward(model: Any, shape: tuple[int, int], batch: int) -> Any:
    """Run images through the model, to what its heads return before boxes or labels are made."""
    images, samples = torch.empty(batch, 3, *shape), _samples(shape, batch)
    if hasattr(model, "decode_head"):
        maps, found = model.extract_feat(images), None
        for head in _listed(model.decode_head):
            found = _logits(model, head, maps, found, samples)
        return found
    if isinstance(getattr(model, "roi_head", None), SparseRoIHead):  # its forward is its loss
        maps = model.extract_feat(images)
        proposals = model.rpn_head.predict(maps, samples)
        about = [sample.metainfo for sample in samples]
        return model.roi_head.predict_bbox(maps, about, proposals, model.test_cfg.rcnn)
    return model(images, samples, mode="tensor")


def _samples(shape: tuple[int, int], batch: int) -> list[DetDataSample]:
    sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), shape)
    return [DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0))) for _ in range(batch)]


def _segment(model: Any, shape: tuple[int, int], batch: int) -> None:
    """Run images to what a segmentor's losses are made of: logits at the size of the labels."""
    maps, samples = model.extract_feat(torch.empty(batch, 3, *shape)), _samples(shape, batch)
    *earlier, last = _listed(model.decode_head)
    found, before = [], None
    for head in earlier:  # computed for its own loss, and again for the head behind it
        found.append(_logits(model, head, maps, before, samples))
        before = _logits(model, head, maps, before, samples)
    found.append(_logits(model, last, maps, before, samples))
    for head in _listed(getattr(model, "auxiliary_head", None)):
        found.append(_logits(model, head, maps, None, samples))
    for logits in found:
        if isinstance(logits, Tensor) and logits.dim() == 4:  # other losses look at a few points
            large = functional.interpolate(logits.float(), shape, mode="bilinear")
            functional.cross_entropy(large, torch.empty(batch, *shape, dtype=torch.long))


def _listed(part: Any) -> list[Any]:
    """Return the heads of a cascade, one head, or none."""
    return list(part) if isinstance(part, nn.ModuleList) else [part] if part is not None else []


def _logits(
    model: Any, head: Any, maps: Sequence[Tensor], before: Any, samples: list[DetDataSample]
) -> Any:
    """Run a head; in a cascade it is given what the one before returned."""
    if isinstance(head, PointHead):  # its forward takes the points that these choose
        if torch.is_grad_enabled():
            return head.loss(maps, before, samples, model.train_cfg)
        return head.predict(maps, before, [s.metainfo for s in samples], model.test_cfg)
    if isinstance(head, MaskFormerHead):
        return head(maps, samples)
    return head(maps) if before is None else head(maps, before)


@contextlib.contextmanager
def _proposals(model: Any, boxes: int, masks: int) -> Iterator[None]:
    """Stand in for what images and labels decide: so many boxes, of which the first get a mask."""
    changed: list[tuple[Any, str]] = []

    def replace(holder: Any, name: str, by: Callable) -> None:
        changed.append((holder, name))
        setattr(holder, name, by)

    rpn = getattr(model, "rpn_head", None)
    if isinstance(rpn, RPNHead):
        replace(rpn, "predict", functools.partial(_predict, rpn, boxes))
    for module in model.modules():
        if isinstance(module, SingleRoIExtractor):
            replace(module, "forward", functools.partial(_extract, module))
        elif isinstance(module, DIIHead):
            replace(module, "refine_bboxes", functools.partial(_refine, module))
        elif isinstance(module, FCNMaskHead):
            replace(module, "forward", functools.partial(_first_rows, module.forward, masks))
        elif isinstance(module, PointHead):
            replace(module, "loss_by_feat", lambda logits, *_: logits)
    try:
        yield
    finally:
        for holder, name in changed:
            delattr(holder, name)


def _predict(
    rpn: RPNHead, boxes: int, maps: Sequence[Tensor], samples: Sequence[Any], **_: Any
) -> list[InstanceData]:
    rpn(maps)
    count = boxes // len(samples)
    return [InstanceData(bboxes=maps[0].new_empty(count, 4)) for _ in samples]


def _extract(
    extractor: SingleRoIExtractor, maps: Sequence[Tensor], rois: Tensor, *_: Any, **__: Any
) -> Tensor:
    size = extractor.roi_layers[0].output_size
    return maps[0].new_empty(len(rois), extractor.out_channels, *size) * maps[0].flatten()[0]


def _refine(
    head: DIIHead, bbox_results: dict[str, Tensor], batch_img_metas: Sequence[Any], **_: Any
) -> list[InstanceData]:
    """Refine boxes: every image has as many, so that their place tells whose they are."""
    boxes = head.bbox_coder.decode(bbox_results["rois"][:, 1:], bbox_results["bbox_pred"])
    return [InstanceData(bboxes=own) for own in boxes.chunk(len(batch_img_metas))]


def _first_rows(forward: Callable, count: int, x: Tensor, *rest: Any, **options: Any) -> Any:
    """Run a head on its first `count` rows, and spread what it returns over all."""
    given = trees.tree_map_only(Tensor, lambda t: t[:count], ((x, *rest), options))
    out = forward(*given[0], **given[1])
    return trees.tree_map_only(Tensor, lambda t: t[:1].expand(len(x), *t.shape[1:]), out)


def _sampler(model: Any) -> dict[str, Any]:
    """Return how a two-stage detector draws the boxes it trains on in one image."""
    stages = (getattr(model, "train_cfg", None) or {}).get("rcnn") or {}
    first = stages[0] if isinstance(stages, list | tuple) else stages
    return first.get("sampler") or {}
