"""Counts without data against sums by hand and against the real model on real tensors."""

import math
from copy import deepcopy

import mmdet
import mmseg
import pytest
import torch
from conftest import CONFIGS, ROOT
from mmcv.cnn.bricks import DropPath
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.openmmlab.engine import complexity
from swin_dense.openmmlab.settings import config as configs

pytestmark = pytest.mark.plain

SHAPE = (72, 104)


def loaded(name, **options):
    return configs.load(ROOT / f"configs/{name}.py", options)


def parts(found):
    return {part.name: part for part in found.parts}


def built(config):
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        return registry.build(deepcopy(config.model)).eval()  # DETRs write into it


def backbone_by_hand(c, depths, height, width):
    """Multiply-adds of each stage of a Swin V1 of windows of 7, one product after the other."""
    h, w = math.ceil(height / 4), math.ceil(width / 4)
    stages = {"backbone.patch_embed": h * w * c * 3 * 4 * 4}
    for stage, depth in enumerate(depths):
        tokens = h * w
        windows = math.ceil(h / 7) * math.ceil(w / 7)
        qkv, proj, mlp = 3 * c * c, c * c, 2 * 4 * c * c
        attention = 2 * windows * 49 * 49 * c
        total = depth * (tokens * (qkv + proj + mlp) + attention)
        if stage < 3:
            h, w = math.ceil(h / 2), math.ceil(w / 2)
            total += h * w * 4 * c * 2 * c
            c *= 2
        stages[f"backbone.layers.{stage}"] = total
    return stages


@pytest.mark.parametrize(
    ("name", "channels", "depths"),
    [("mask_rcnn_swin_nano", 24, (2, 2, 2, 2)), ("upernet_swin_t", 96, (2, 2, 6, 2))],
)
def test_flops_of_the_backbone_by_hand(name, channels, depths):
    found = parts(complexity.measure(loaded(name), SHAPE, SHAPE))
    expected = backbone_by_hand(channels, depths, *SHAPE)
    assert {part: found[part].flops for part in expected} == expected


def test_heads_of_two_stages_by_hand():
    """1000 boxes of 7x7 and 100 masks of 14x14, 64 channels, 6 classes."""
    found = parts(complexity.measure(loaded("mask_rcnn_swin_nano"), SHAPE, SHAPE))
    box = 49 * 64 * 160 + 160 * 160 + 160 * 7 + 160 * 24
    assert found["roi_head.bbox_head"].flops == 1000 * box
    mask = 2 * 14 * 14 * 9 * 64 * 64 + 14 * 14 * 4 * 64 * 64 + 28 * 28 * 64 * 6
    assert found["roi_head.mask_head"].flops == 100 * mask
    positions = sum(math.ceil(72 / s) * math.ceil(104 / s) for s in (4, 8, 16, 32, 64))
    assert found["rpn_head"].flops == positions * (9 * 64 * 64 + 64 * 3 + 64 * 12)


def test_parameters_are_all_there_and_each_in_its_part():
    for path in CONFIGS.values():
        config = configs.load(path)
        found = complexity.measure(config, SHAPE, SHAPE)
        model = built(config)
        assert found.total.parameters == sum(p.numel() for p in model.parameters())
        assert found.weights == 4 * found.total.parameters
        stage = sum(p.numel() for p in model.backbone.layers[2].parameters())
        assert parts(found)["backbone.layers.2"].parameters == stage


def test_a_real_model_counts_the_same():
    config = loaded("upernet_swin_nano")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        built(config)(torch.zeros(1, 3, *SHAPE), mode="tensor")
    found = complexity.measure(config, SHAPE, SHAPE)
    assert 2 * found.total.flops == counter.get_total_flops()


def really_kept(module, compute, bf16=False):
    """Bytes that real tensors keep for the backward pass, without the module's own."""
    own = (*module.parameters(), *module.buffers())
    weights = {t.untyped_storage().data_ptr() for t in own}
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        compute()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_what_is_kept_is_what_a_real_backbone_keeps(rate, bf16):
    config = loaded("mask_rcnn_swin_nano", **{"model.backbone.drop_path_rate": rate})
    backbone = built(config).backbone.train()
    real = really_kept(backbone, lambda: backbone(torch.randn(3, 3, *SHAPE)), bf16)
    found = complexity.measure(config, SHAPE, SHAPE, batch=3, bf16=bf16)
    ours = sum(p.kept for p in found.parts if p.name.startswith("backbone"))
    assert ours == pytest.approx(real, rel=0.005)


@MODELS.register_module()
class _Dropping(nn.Module):
    """A little of whatever drops something in training, and a norm that has two ways, too."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.attention = nn.MultiheadAttention(48, 2, dropout=0.2, batch_first=True)
        self.channels, self.numbers = nn.Dropout2d(0.4), nn.Dropout(0.1)
        self.images = DropPath(0.3)

    def forward(self, images, samples=None, mode="tensor"):
        assert not self.training or samples is None, "ground truth is asked for in training"
        x = self.channels(self.backbone(images)[1] ** 2)  # 48 channels
        x = x.flatten(2).transpose(1, 2) ** 2
        x = x + self.images(self.attention(x, x, x)[0])
        return self.numbers(x**2) ** 2


@pytest.mark.parametrize("bf16", [False, True])
def test_dropouts_keep_what_they_keep_in_training(bf16):
    config = loaded("mask_rcnn_swin_nano")
    config.model = dict(type="_Dropping", backbone=config.model.backbone)
    model = built(config)
    images = torch.randn(3, 3, *SHAPE)
    still = really_kept(model, lambda: model(images), bf16)
    real = really_kept(model.train(), lambda: model(images), bf16)
    found = complexity.measure(config, SHAPE, SHAPE, batch=3, bf16=bf16)
    assert found.total.kept == pytest.approx(real, rel=0.005)
    assert real > 1.02 * still  # without kernels more is kept beside


def test_what_is_kept_is_what_a_real_detr_keeps():
    """Its transformer in training, the rest of it not: there it would ask for ground truth."""
    config = loaded("deformable_detr_swin_t", **{"model.backbone.drop_path_rate": 0.0})
    model = built(config)
    model.encoder.train()
    model.decoder.train()
    about = dict(img_shape=SHAPE, batch_input_shape=SHAPE)
    samples = [DetDataSample(metainfo=about) for _ in range(2)]
    real = really_kept(model, lambda: model(torch.randn(2, 3, *SHAPE), samples, mode="tensor"))
    found = complexity.measure(config, SHAPE, SHAPE, batch=2)
    assert found.total.kept == pytest.approx(real, rel=0.005)


def test_activations_grow_with_batch_and_pixels_and_weights_do_not():
    """Its windows of seven fill every map of these sizes: padding grows with edges, not area."""
    config = loaded("upernet_swin_nano")
    one, three = (complexity.measure(config, SHAPE, (224, 448), batch) for batch in (1, 3))
    assert three.total.kept == pytest.approx(3 * one.total.kept, rel=0.05)
    assert three.weights == one.weights
    assert three.total.flops == one.total.flops
    assert three.memory == 4 * three.weights + three.total.kept
    assert three.learning == three.weights
    whole = complexity.measure(config, SHAPE, (448, 896), 1)
    assert whole.total.kept == pytest.approx(4 * one.total.kept, rel=0.05)


def kept_by_backbone(bf16=False, **options):
    """In images large enough that weights cast to bfloat16 do not matter."""
    large, config = (800, 1216), loaded("mask_rcnn_swin_t", **options)
    found = complexity.measure(config, SHAPE, large, bf16=bf16)
    return sum(p.kept for p in found.parts if p.name.startswith("backbone.layers"))


def test_recomputing_blocks_and_bf16_keep_less():
    assert kept_by_backbone(**{"model.backbone.with_cp": True}) < kept_by_backbone() / 3
    assert kept_by_backbone(bf16=True) < 0.75 * kept_by_backbone()


def test_what_is_frozen_needs_no_gradient():
    frozen = loaded("mask_rcnn_swin_t", **{"model.backbone.frozen_stages": 4})
    found = complexity.measure(frozen, SHAPE, SHAPE)
    plain = complexity.measure(loaded("mask_rcnn_swin_t"), SHAPE, SHAPE)
    stages = ("backbone.patch_embed", *(f"backbone.layers.{i}" for i in range(3)))
    held = sum(4 * parts(plain)[name].parameters for name in stages)
    assert plain.learning - found.learning == held
    assert found.weights == plain.weights
    assert all(parts(found)[name].kept == 0 for name in stages[1:])
    assert found.total.flops == plain.total.flops


def test_parts_come_in_the_order_of_the_model():
    names = list(parts(complexity.measure(loaded("mask_rcnn_swin_nano"), SHAPE, SHAPE)))
    first = ["backbone.patch_embed", *(f"backbone.layers.{i}" for i in range(4))]
    assert names[:5] == first
    assert names.index("neck") < names.index("rpn_head") < names.index("roi_head.mask_head")


def test_a_segmentors_loss_is_kept_at_the_size_of_the_labels():
    """At least: 150 logits in float32 for each pixel, once for each of two heads."""
    config = loaded("upernet_swin_t")
    found = parts(complexity.measure(config, SHAPE, (64, 96), batch=2))
    assert found[complexity.REST].kept >= 2 * 2 * 150 * 64 * 96 * 4


@pytest.mark.parametrize("name", ["dino_swin_t", "mask2former_swin_t_ade20k", "mask_rcnn_swin_t"])
def test_counting_leaves_the_config_as_it_was(name):
    config = loaded(name)
    before = config.to_dict()
    first = complexity.count(config, (224, 320))
    assert config.to_dict() == before
    assert complexity.count(config, (224, 320)) == first


def test_any_backbone_is_counted():
    """ResNet-50 at 224x224 has 4.09 G in torchvision's table, 0.002 of them in its classifier."""
    resnet = dict(type="ResNet", depth=50)
    config = loaded("mask_rcnn_swin_t")
    config.model.backbone = resnet
    config.model.neck.in_channels = [256, 512, 1024, 2048]
    found = complexity.measure(config, (224, 224), (64, 64))
    backbone = sum(p.flops for p in found.parts if p.name.startswith("backbone."))
    assert backbone / 1e9 == pytest.approx(4.09, abs=0.01)


def theirs(library, name):
    """A config that comes with mmdet or mmseg."""
    return Config.fromfile(f"{library.__path__[0]}/.mim/configs/{name}.py")


OCRNET = "ocrnet/ocrnet_hr18s_4xb4-80k_ade20k-512x512"
POINT_REND = "point_rend/pointrend_r50_4xb4-160k_ade20k-512x512"


@pytest.mark.parametrize("name", [OCRNET, POINT_REND])
def test_a_cascade_of_heads_counts_what_a_real_one_does(name):
    config, shape = theirs(mmseg, name), (128, 160)
    model = revert_sync_batchnorm(built(config))
    about = dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.encode_decode(torch.zeros(1, 3, *shape), [about])
    found = complexity.measure(theirs(mmseg, name), shape, shape)
    assert 2 * found.total.flops == counter.get_total_flops()


def test_the_first_head_of_a_cascade_is_computed_twice_in_training():
    """mmseg computes it for its own loss, and again for the head behind it."""
    config, shape = theirs(mmseg, OCRNET), (64, 96)
    model = revert_sync_batchnorm(built(config))
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(2, 3, *shape))
    first, second = model.decode_head

    def heads():
        return first(maps), second(maps, first(maps))

    real = really_kept(model, heads)
    found = parts(complexity.measure(config, shape, shape, batch=2))
    assert found["decode_head"].kept == pytest.approx(real, rel=0.005)


def test_maskformers_head_takes_the_samples():
    config = theirs(mmseg, "maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512")
    found = parts(complexity.measure(config, SHAPE, SHAPE))
    assert found["decode_head"].flops > 1e8


def test_images_too_small_say_so():
    config = theirs(mmdet, "ssd/ssd300_coco")
    with pytest.raises(InputError, match=r"cannot compute images of 256x256 .* `shape`"):
        complexity.measure(config, (256, 256), (300, 300))
    with pytest.raises(InputError, match=r"images of 200x160 .* pipeline of train_dataloader"):
        complexity.measure(config, (300, 300), (160, 200))
    assert complexity.count(config, (300, 300)).flops / 1e9 == pytest.approx(34.9, abs=1)


@pytest.mark.parametrize(
    ("library", "name", "has"),
    [
        (
            mmdet,
            "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco",
            "detector",
        ),
        (mmseg, "san/san-vit-b16_coco-stuff164k-640x640", "image_encoder, text_encoder"),
    ],
)
def test_models_without_a_backbone_of_their_own_say_so(library, name, has):
    with pytest.raises(InputError, match=f"a backbone itself .* has .*{has}.* Count one of them"):
        complexity.count(theirs(library, name), SHAPE)


def test_heads_that_look_at_labels_say_so():
    config = theirs(mmdet, "yolact/yolact_r50_1xb8-55e_coco")
    with pytest.raises(InputError, match=r"YOLACT: .* more than the size .*gt_instances.* Let it"):
        complexity.measure(config, SHAPE, SHAPE)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.delattr(residual, "add_mlp")
    with pytest.raises(AttributeError, match="add_mlp"):
        complexity.measure(loaded("mask_rcnn_swin_nano"), SHAPE, SHAPE)


def test_what_depends_on_the_image_says_so():
    config = loaded("mask_rcnn_swin_nano")
    config.model.roi_head.bbox_roi_extractor.update(type="GenericRoIExtractor", aggregation="sum")
    with pytest.raises(InputError, match=r"MaskRCNN: what it computes depends on more than"):
        complexity.measure(config, SHAPE, SHAPE)
