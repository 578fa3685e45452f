import ast
import importlib.machinery
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from swin_dense import mmcv_stand_in, ops
from swin_dense.mmcv_ops import ext

mmcv_ops = pytest.importorskip("mmcv.ops")

pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(not mmcv_stand_in.stands_in(), reason="this mmcv has its own compiled ops"),
]


def boxes_and_scores(count=83):
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=random) * 40
    sides = torch.rand(count, 2, generator=random) * 20 + 1
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=random)


def map_and_rois():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 7, 11, generator=random)
    rois = torch.tensor([[1, 2.3, 1.9, 14.2, 9.7], [0, -6, -4, 9, 8], [0, 7, 5, 26, 17]])
    return features.requires_grad_(), rois


@pytest.mark.parametrize("offset", [0, 1])
def test_nms(offset):
    boxes, scores = boxes_and_scores()
    dets, kept = mmcv_ops.nms(boxes, scores, 0.4, offset=offset)
    expected = ops.nms(boxes, scores, 0.4, offset)
    assert torch.equal(kept, expected)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[expected])
    kept = mmcv_ops.nms(boxes, scores, 0.4, offset=offset, score_threshold=0.5, max_num=7)[1]
    assert torch.equal(kept, expected[scores[expected] > 0.5][:7])


def test_batched_nms():
    boxes, scores = boxes_and_scores()
    labels = torch.arange(83) % 4
    dets, kept = mmcv_ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.4})
    assert torch.equal(kept, ops.batched_nms(boxes, scores, labels, 0.4))
    assert torch.equal(dets[:, :4], boxes[kept])


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(method):
    boxes, scores = boxes_and_scores()
    dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.6, 0.2, method, 1)
    expected = ops.soft_nms(boxes, scores, 0.3, 0.6, 0.2, method, 1)
    assert torch.equal(dets, expected[0])
    assert torch.equal(kept, expected[1])


def test_nms_match():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 5], [0, 1, 10, 10]])
    dets = torch.cat([boxes, torch.tensor([[0.5], [0.9], [0.4], [0.6]])], 1)
    groups = mmcv_ops.nms_match(dets, 0.5)  # box 2 shares exactly half of box 0
    assert [group.tolist() for group in groups] == [[1], [3, 0], [2]]
    groups = mmcv_ops.nms_match(dets[[0, 2]], 0.5)
    assert [group.tolist() for group in groups] == [[0, 1]]
    assert mmcv_ops.nms_match(dets[:0], 0.5) == []


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize(("aligned", "ratio"), [(True, 0), (False, 2)])
def test_roi_align(mode, aligned, ratio):
    features, rois = map_and_rois()
    module = mmcv_ops.RoIAlign((3, 2), 0.4, ratio, mode, aligned)
    theirs = module(features, rois)
    ours = ops.roi_align(features, rois, (3, 2), 0.4, ratio, mode, aligned)
    assert torch.equal(theirs, ours)
    weights = torch.rand(theirs.shape, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad(out, features, weights)[0] for out in (theirs, ours)]
    assert torch.equal(*grads)


def test_roi_align_in_bfloat16():
    features, rois = map_and_rois()
    small = features.detach().bfloat16().requires_grad_()
    out = mmcv_ops.RoIAlign(2, 0.4, 0)(small, rois.bfloat16())
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert small.grad.dtype == torch.bfloat16
    assert small.grad.isfinite().all()


def test_what_is_not_there_says_what_to_do():
    text = r"op 'softmax_focal_loss_forward' .* does not need it, or compile mmcv .* pip install"
    with pytest.raises(RuntimeError, match=text):
        mmcv_ops.softmax_focal_loss(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = ext.__wrapped__


def test_mmcv_finds_it():
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert importlib.util.find_spec("mmcv._ext").loader is not None
    if hasattr(pkgutil, "find_loader"):  # what mmcv's check_ops_exist calls; gone in Python 3.14
        from mmcv.utils.ext_loader import check_ops_exist

        assert check_ops_exist()
    assert get_compiler_version() == get_compiling_cuda_version()


def test_a_compiled_mmcv_wins(tmp_path):
    """In a process of its own, with a mmcv that has a `_ext` beside it."""
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    compiled = f"_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    (tmp_path / "mmcv" / compiled).write_text("")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib.util, swin_dense\n"
        "found = importlib.util.find_spec('mmcv._ext')\n"
        f"assert found.origin.endswith({compiled!r}), found\n"
        "assert not swin_dense.mmcv_stand_in.stands_in()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def asked_for():
    """Name -> module of mmcv.ops, of every function that mmcv wants to find."""
    found = {}
    for path in Path(mmcv_ops.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_ext":
                found |= dict.fromkeys(ast.literal_eval(node.args[1]), path.stem)
    return found


def test_the_table_of_the_docs_is_true():
    listed = {}
    for line in (ROOT / "docs/ops.md").read_text().splitlines():
        state, _, rest = line.strip("| ").partition(" | ")
        if state in ("ours", "plain torch", "plain text", "not provided"):
            module, _, names = rest.partition(" | ")
            for name in names.split():
                listed[name.strip("`")] = (module.strip("`"), state)
    assert {name: module for name, (module, _) in listed.items()} == asked_for()
    here = {name for name in listed if name in vars(ext)}
    assert here == {name for name, (_, state) in listed.items() if state != "not provided"}
