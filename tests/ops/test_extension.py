import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from devices import needs_kernels

from swin_dense.ops import extension

ROOT = Path(__file__).parents[2]
OPS = Path(extension.__file__).parent

# Every op against its reference, on whatever path is in use; prints what that is.
TRY_ALL = """
import torch
from swin_dense import ops
from swin_dense.ops import reference
torch.manual_seed(0)
features = torch.randn(2, 19, 11, 13, requires_grad=True)
rois = torch.tensor([[1, 0.5, 2.5, 9, 7], [0, -3, 1, 5, 4.5]])
for mode in ("avg", "max"):
    out = ops.roi_align(features, rois, (3, 2), mode=mode)
    right = reference.roi_align(features.detach(), rois, 3, 2, 1.0, 0, mode == "max", True)
    torch.testing.assert_close(out, right[0])
    weights = torch.rand_like(out)
    (grad,) = torch.autograd.grad(out, features, weights)
    rest = (*features.shape, 1.0, 0, mode == "max", True)
    torch.testing.assert_close(grad, reference.roi_align_backward(weights, rois, *right[1:], *rest))
boxes = torch.rand(300, 4) * 20 + torch.tensor([0, 0, 30, 30])
scores = torch.rand(300)
assert torch.equal(ops.nms(boxes, scores, 0.6), reference.nms(boxes, scores, 0.6, 0))
soft = ops.soft_nms(boxes, scores, 0.6), reference.soft_nms(boxes, scores, 0.6, 0.5, 1e-3, 1, 0)
assert all(map(torch.equal, *soft))

def close(ours, right, dtype):
    for one, other in zip(ours, right, strict=True):
        atol, rtol = (1e-5, 1e-5) if dtype == torch.float32 else (1e-3, 1e-2)
        torch.testing.assert_close(one, other, atol=atol, rtol=rtol)

call = torch.ops.swin_dense
for dtype, head_dim, cosine in ((torch.float32, 5, True), (torch.bfloat16, 33, False)):
    maps = torch.randn(2, 9, 13, 3, 3, head_dim, dtype=dtype), torch.randn(3, 25, 25)
    inputs = (*maps, torch.randn(3, 3, head_dim, dtype=dtype), torch.rand(3) / 4, 5, 2, cosine)
    right = reference.window_attention(*inputs)
    close([call.window_attention(*inputs)], [right], dtype)
    back = "window_attention_backward"
    weight = torch.rand_like(right)
    ours, right = (getattr(kind, back)(weight, *inputs) for kind in (call, reference))
    close(ours, right, dtype)

    x, y, grad = (torch.randn(70, 37, dtype=dtype) for _ in range(3))
    weight, bias, factor = torch.randn(37), torch.randn(37), torch.rand(70, 1)
    found = []
    for kind in (call, reference):
        outs = [torch.empty_like(x) for _ in range(7)]
        kind.norm_rows(x, weight, bias, 1e-5, outs[0])
        outs.append(kind.norm_rows_backward(grad, x, weight, 1e-5, y, outs[1]))
        kind.gelu_rows(x, bias, outs[2])
        kind.gelu_rows_backward(grad, x, bias, outs[3], outs[4])
        kind.add_rows(x, y, bias, factor, outs[5])
        kind.scale_rows(x, factor, outs[6])
        found.append(outs)
    close(*found, dtype)
print(ops.extension.describe())
"""


def run(*arguments, cwd=ROOT, **environment):
    # What these tests ask must not depend on the switches they are run under.
    unset = {name: value for name, value in os.environ.items() if "SWIN_DENSE" not in name}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**unset, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_without_kernels_the_ops_are_their_references():
    done = run("-c", TRY_ALL, SWIN_DENSE_KERNELS="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "kernels: none, switched off by SWIN_DENSE_KERNELS=off\n"


@needs_kernels
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_every_level_gives_the_same(level):
    done = run("-c", TRY_ALL, SWIN_DENSE_CPU_LEVEL=level)
    assert done.returncode == 0, done.stderr
    levels = ["portable", "avx2", "avx512"]
    names = levels[: levels.index(level) + 1]  # the machine may have less
    assert any(done.stdout.startswith(f"kernels: cpu ({name})") for name in names)


def test_a_misspelt_switch_is_an_error():
    done = run("-c", "import swin_dense.ops", SWIN_DENSE_KERNELS="0")
    assert "SWIN_DENSE_KERNELS is 'on' or 'off', not '0'. Correct or unset it." in done.stderr


def test_needs_torch_only():
    done = run("-c", "import sys, swin_dense.ops; print(*sorted(sys.modules))")
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert "torch" in roots
    assert not roots & {"mmcv", "mmdet", "mmengine", "mmseg", "torchvision", "timm", "PIL"}


@needs_kernels
def test_says_what_is_loaded():
    assert re.fullmatch(r"avx512|avx2|portable", extension.loaded()["cpu"])
    assert extension.describe().startswith(f"kernels: cpu ({extension.loaded()['cpu']})")
    assert ("cuda" in extension.describe()) == (torch.version.cuda is not None)


def test_a_library_that_does_not_load_is_an_error(tmp_path):
    broken = tmp_path / "_cpu.so"
    broken.write_text("no library")
    with pytest.raises(RuntimeError, match=rf"{broken} does not load: .*Build it again .*=off"):
        extension._open(broken)


@needs_kernels
@pytest.mark.parametrize("path", sorted(OPS.glob("_*.so")), ids=lambda path: path.name)
def test_libraries_know_no_python(path):
    assert not re.findall(rb"\0_?Py[A-Za-z]*_[A-Za-z_]+\0", path.read_bytes())


@pytest.mark.parametrize(
    ("held", "capability", "runs"),
    [
        ("75,80", (7, 5), True),
        ("75,80", (7, 0), False),
        ("80,90", (8, 9), True),  # of the same major number
        ("86,90", (8, 0), False),
        ("80,90", (10, 0), False),
        ("80,90+ptx", (12, 1), True),
        ("90+ptx", (8, 9), False),
        ("", (9, 0), False),
    ],
)
def test_what_code_runs_on(held, capability, runs):
    assert extension.runs_on(held, capability) == runs
