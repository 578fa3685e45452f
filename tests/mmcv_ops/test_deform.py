"""mmcv's and mmdet's own modules, unedited, on our deformable ops."""

import sys

import pytest
import torch
from mmengine.model import bias_init_with_prob
from torch.profiler import ProfilerActivity, profile

import swin_dense.openmmlab
from swin_dense import mmcv_stand_in
from swin_dense.backbones import Swin
from swin_dense.mmcv_ops import deform
from swin_dense.openmmlab import peers
from swin_dense.ops import deform_conv2d

mmcv_ops = pytest.importorskip("mmcv.ops")
pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(not mmcv_stand_in.stands_in(), reason="this mmcv has its own compiled ops"),
]
SIZES = [(7, 9), (4, 5), (2, 3)]


def attention(dim=32, heads=4):
    torch.manual_seed(0)
    module = mmcv_ops.MultiScaleDeformableAttention(
        dim, heads, len(SIZES), num_points=3, dropout=0.0, batch_first=True
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def attention_inputs(dim=32):
    torch.manual_seed(1)
    keys = sum(h * w for h, w in SIZES)
    shapes = torch.tensor(SIZES)
    start = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    return dict(
        query=torch.randn(2, 11, dim),
        value=torch.randn(2, keys, dim),
        reference_points=torch.rand(2, 11, len(SIZES), 2),
        spatial_shapes=shapes,
        level_start_index=start,
    )


def names_of(call):
    with profile(activities=[ProfilerActivity.CPU]) as done:
        call()
    return {event.key for event in done.key_averages()}


def test_mmcvs_module_runs_on_our_op_and_means_the_same(monkeypatch):
    module, inputs = attention(), attention_inputs()
    assert "swin_dense::ms_deform_attn" in names_of(lambda: module(**inputs))
    found = module(**inputs)
    names = vars(sys.modules[type(module).__module__])
    monkeypatch.setitem(
        names, "multi_scale_deformable_attn_pytorch", peers.published_ms_deform_attn()
    )
    assert "swin_dense::ms_deform_attn" not in names_of(lambda: module(**inputs))
    torch.testing.assert_close(found, module(**inputs))


def test_it_would_on_a_gpu_too():
    """There mmcv asks IS_CUDA_AVAILABLE before it calls its compiled function."""
    module = sys.modules[mmcv_ops.MultiScaleDeformableAttention.__module__]
    assert module.IS_CUDA_AVAILABLE is False
    assert module.multi_scale_deformable_attn_pytorch is deform.multi_scale_deformable_attn


def test_autocast_leaves_locations_as_exact_as_they_are(monkeypatch):
    seen = {}

    def look(value, shapes, locations, weights):
        seen.update(value=value.dtype, locations=locations.dtype)
        return deform.ops.ms_deform_attn(value, shapes, locations, weights)

    module, inputs = attention(), attention_inputs()
    names = vars(sys.modules[type(module).__module__])
    monkeypatch.setitem(names, "multi_scale_deformable_attn_pytorch", look)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(**inputs).isfinite().all()
    assert seen == dict(value=torch.bfloat16, locations=torch.float32)


def test_mmcvs_function_for_cuda_is_ours_in_both_directions():
    """MultiScaleDeformableAttnFunction, for those who call it themselves."""
    inputs = attention_inputs()
    value = inputs["value"].unflatten(-1, (4, 8)).requires_grad_()
    torch.manual_seed(2)
    locations = torch.rand(2, 11, 4, 3, 3, 2, requires_grad=True)
    weights = torch.rand(2, 11, 4, 3, 3, requires_grad=True)
    module = sys.modules[mmcv_ops.MultiScaleDeformableAttention.__module__]
    shapes, start = inputs["spatial_shapes"], inputs["level_start_index"]
    out = module.MultiScaleDeformableAttnFunction.apply(
        value, shapes, start, locations, weights, 64
    )
    expected = peers.published_ms_deform_attn()(value, shapes, locations, weights)
    torch.testing.assert_close(out, expected)
    given = torch.randn_like(out)
    leaves = (value, locations, weights)
    pairs = (torch.autograd.grad(x, leaves, given) for x in (out, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class _Encoded(torch.nn.Module):
    """A Swin, projections, and one of mmdet's encoder layers over all positions of two maps."""

    def __init__(self):
        super().__init__()
        from mmdet.models.layers import DeformableDetrTransformerEncoderLayer

        torch.manual_seed(0)
        self.backbone = Swin(
            embed_dim=8,
            depths=(1, 1),
            num_heads=(1, 2),
            drop_path_rate=0.0,
            out_indices=(0, 1),
        )
        self.projections = torch.nn.ModuleList(
            torch.nn.Conv2d(c, 32, 1) for c in self.backbone.out_channels
        )
        attention = dict(
            embed_dims=32, num_heads=4, num_levels=2, num_points=3, dropout=0.0, batch_first=True
        )
        self.layer = DeformableDetrTransformerEncoderLayer(
            self_attn_cfg=attention,
            ffn_cfg=dict(embed_dims=32, feedforward_channels=48, ffn_drop=0.0),
        )
        torch.nn.init.normal_(self.layer.self_attn.sampling_offsets.weight, std=0.1)

    def forward(self, image):
        maps = [p(x) for p, x in zip(self.projections, self.backbone(image), strict=True)]
        sizes = [tuple(x.shape[2:]) for x in maps]
        places = [
            torch.cartesian_prod(*((torch.arange(n) + 0.5) / n for n in size)).flip(1)
            for size in sizes
        ]
        reference = torch.cat(places)[None, :, None].expand(image.shape[0], -1, 2, -1)
        query, shapes = torch.cat([x.flatten(2).mT for x in maps], 1), torch.tensor(sizes)
        start = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
        return self.layer(
            query=query,
            query_pos=torch.zeros_like(query),
            key_padding_mask=None,
            spatial_shapes=shapes,
            level_start_index=start,
            reference_points=reference,
        )


@pytest.mark.parametrize("dynamic", [False, True])
def test_backbone_and_encoder_are_one_graph(dynamic):
    model = _Encoded()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((70, 101), (97, 64)):
        image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
        grads = []
        for path in (model, compiled):
            model.zero_grad()
            path(image).square().mean().backward()
            grads.append({n: p.grad.clone() for n, p in model.named_parameters()})
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), model(image), rtol=1e-4, atol=1e-4)
        for name, grad in grads[0].items():
            torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-4)


def conv_sample(channels_last=False):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 6, 9, 7), torch.randn(2, 36, 5, 4), torch.rand(2, 18, 5, 4)]
    if channels_last:
        tensors = [x.to(memory_format=torch.channels_last) for x in tensors]
    return [x.requires_grad_() for x in tensors]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_mmcvs_convolutions_are_ours(version, channels_last):
    image, offset, mask = conv_sample(channels_last)
    kind = mmcv_ops.DeformConv2d if version == 1 else mmcv_ops.ModulatedDeformConv2d
    torch.manual_seed(1)
    module = kind(6, 8, 3, stride=2, padding=1, groups=2, deform_groups=2, bias=version == 2)
    inputs = (image, offset) if version == 1 else (image, offset, mask)
    out = module(*inputs)
    expected = deform_conv2d(
        image, offset, module.weight, module.bias if version == 2 else None, 2, 1, 1,
        mask=mask if version == 2 else None,
    )  # fmt: skip
    torch.testing.assert_close(out, expected)
    leaves = (*inputs, *module.parameters())
    given = torch.randn(out.shape)
    pairs = (torch.autograd.grad(x, leaves, given) for x in (out, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("channels_last", [False, True])
def test_larger_offsets_are_read_as_mmcv_does(channels_last):
    """DyHead's convolution over the next coarser map: numbers in the order they come, cut off."""
    image, offset, mask = conv_sample(channels_last)
    torch.manual_seed(1)
    module = mmcv_ops.ModulatedDeformConv2d(6, 4, 3, padding=1, stride=3, deform_groups=2)
    out = module(image, offset, mask)  # 3x3 outputs, offsets for 5x4
    cut = [x.flatten(1)[:, : x.shape[1] * 9].reshape(2, -1, 3, 3) for x in (offset, mask)]
    expected = deform_conv2d(image, cut[0], module.weight, module.bias, 3, 1, mask=cut[1])
    torch.testing.assert_close(out, expected)
    leaves, given = (image, offset, mask, module.weight), torch.randn(out.shape)
    pairs = (torch.autograd.grad(x, leaves, given, retain_graph=True) for x in (out, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match=r"output of \(3, 3\) needs .* shape \(2, 36, 1, 4\)"):
        module(image, offset[:, :, :1], mask[:, :, :1])


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_is_mmdets_plain_one(weighted):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    assert swin_dense.openmmlab
    torch.manual_seed(0)
    logits = (torch.randn(9, 5) * 4 + bias_init_with_prob(0.1)).requires_grad_()
    target = torch.tensor([0, 4, 5, 2, 5, 1, 3, 5, 0])  # 5 is the background
    weight = torch.rand(5) if weighted else None
    loss = mmcv_ops.sigmoid_focal_loss(logits, target, 1.7, 0.3, weight, "none")
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5]
    expected = py_sigmoid_focal_loss(logits, one_hot, None, 1.7, 0.3, "none")
    if weighted:
        expected = expected * torch.cat([weight, torch.ones(1)])[target][:, None]
    torch.testing.assert_close(loss, expected)
    given = torch.rand(loss.shape)
    ours, theirs = (torch.autograd.grad(x, logits, given)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    far = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(far, torch.tensor([1]), 2.0, 0.25, None, "sum")
    assert torch.autograd.grad(loss, far)[0].isfinite().all()


def test_convolutions_under_autocast_keep_the_dtype_mmcv_chose():
    """That of the offsets."""
    image, offset, mask = conv_sample()
    torch.manual_seed(1)
    module = mmcv_ops.ModulatedDeformConv2d(6, 4, 3, stride=2, padding=1, deform_groups=2)
    expected = module(image, offset, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(image, offset, mask), expected)
        assert module(image, offset.bfloat16(), mask).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["DeformConv2d", "ModulatedDeformConv2d"])
def test_offsets_for_other_deformable_groups_are_refused(kind):
    image, offset, mask = conv_sample()
    module = getattr(mmcv_ops, kind)(6, 4, 3, stride=2, padding=1, deform_groups=1)
    inputs = (image, offset) if kind == "DeformConv2d" else (image, offset, mask)
    with pytest.raises(ValueError, match=r"1 deformable groups .* 18 channels .*\(2, 36, 5, 4\)"):
        module(*inputs)


def test_installing_twice_keeps_the_published_function():
    before = peers.published_ms_deform_attn()
    swin_dense.openmmlab.install()
    assert peers.published_ms_deform_attn() is before is not deform.multi_scale_deformable_attn
