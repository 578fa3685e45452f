"""Counts without data against sums by hand and against the real model on real tensors."""

import math

import pytest
import torch
from conftest import CONFIGS, ROOT
from mmengine.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab import complexity
from swin_dense.openmmlab import config as configs

SHAPE = (72, 104)


def loaded(name, **options):
    return configs.load(ROOT / f"configs/{name}.py", options)


def parts(found):
    return {part.name: part for part in found.parts}


def built(config):
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        return registry.build(config.model).eval()


def backbone_by_hand(config, height, width):
    """Multiply-adds of each stage of a Swin V1 of windows of 7, one product after the other."""
    backbone = config.model.backbone
    h, w, c = math.ceil(height / 4), math.ceil(width / 4), backbone.embed_dim
    stages = {"backbone.patch_embed": h * w * c * 3 * 4 * 4}
    for stage, depth in enumerate(backbone.depths):
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


@pytest.mark.parametrize("name", ["mask_rcnn_swin_nano", "upernet_swin_t"])
def test_flops_of_the_backbone_by_hand(name):
    config = loaded(name)
    found = parts(complexity.measure(config, SHAPE, SHAPE))
    expected = backbone_by_hand(config, *SHAPE)
    assert {part: found[part].flops for part in expected} == expected


def test_heads_of_two_stages_by_hand():
    """1000 boxes of 7x7 and 100 masks of 14x14, 64 channels, 80 classes."""
    found = parts(complexity.measure(loaded("mask_rcnn_swin_nano"), SHAPE, SHAPE))
    box = 49 * 64 * 160 + 160 * 160 + 160 * 81 + 160 * 320
    assert found["roi_head.bbox_head"].flops == 1000 * box
    mask = 2 * 14 * 14 * 9 * 64 * 64 + 14 * 14 * 4 * 64 * 64 + 28 * 28 * 64 * 80
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


@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_kept_is_what_a_real_backbone_keeps(bf16):
    config = loaded("mask_rcnn_swin_nano")
    backbone = built(config).backbone
    own = (*backbone.parameters(), *backbone.buffers())
    weights = {t.untyped_storage().data_ptr() for t in own}
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        backbone(torch.randn(3, 3, *SHAPE))
    found = complexity.measure(config, SHAPE, SHAPE, batch=3, bf16=bf16)
    ours = sum(p.kept for p in found.parts if p.name.startswith("backbone"))
    assert ours == pytest.approx(sum(s.nbytes() for s in kept.values()), rel=0.005)


def test_activations_grow_with_batch_and_pixels_and_weights_do_not():
    config = loaded("upernet_swin_nano")
    one, three = (complexity.measure(config, SHAPE, (96, 128), batch) for batch in (1, 3))
    assert three.total.kept == pytest.approx(3 * one.total.kept, rel=0.05)
    assert three.weights == one.weights
    assert three.total.flops == one.total.flops
    assert three.memory == 4 * three.weights + three.total.kept
    assert three.learning == three.weights
    whole = complexity.measure(config, SHAPE, (192, 256), 1)
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


@pytest.mark.parametrize(
    ("name", "shape", "crop"),
    [
        ("mask_rcnn_swin_t", (800, 1280), None),
        ("dino_swin_t", (800, 1280), None),
        ("upernet_swin_t", (512, 2048), (512, 512)),
        ("mask2former_swin_b_ade20k", (640, 2560), (640, 640)),
    ],
)
def test_shapes_of_the_papers(name, shape, crop):
    config = loaded(name)
    assert complexity.paper_shape(config) == shape
    assert complexity.crop_shape(config) == crop


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


def test_what_depends_on_the_image_says_so():
    config = loaded("mask_rcnn_swin_nano")
    config.model.roi_head.bbox_roi_extractor.update(type="GenericRoIExtractor", aggregation="sum")
    with pytest.raises(InputError, match=r"MaskRCNN: what it computes depends on what is in"):
        complexity.measure(config, SHAPE, SHAPE)
