"""Right kernels pass the self-check; one wrong offset does not, and the op falls back."""

import json
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from cuda_on_cpu import SOURCES, kernels, library
from devices import needs_kernels

from swin_dense import ops
from swin_dense.ops import reference, self_check, trust, verdicts

CPU = torch.device("cpu")
# The name of the package's function hides that of its module.
window_attention = sys.modules["swin_dense.ops.window_attention"]
# Of each source, what is right and what a slip of the hand would make of it.
SLIPS = {
    "nms": ("const A inter = w * h;", "const A inter = w * w;"),
    "roi_align": ("plane + v.high * plan.width;", "plane + v.low * plan.width;"),
}


@needs_kernels
@pytest.mark.parametrize("family", self_check.families())
def test_what_is_right_passes_in_every_dtype(family):
    for dtype in self_check.dtypes(family, CPU):
        findings = self_check.run(family, CPU, dtype)
        assert findings
        assert trust.failures(findings) is None
        # Far from the bound, or a fault would have to be large to show.
        assert all(one.error <= one.allowed / 3 for one in findings)


def test_every_op_with_a_cuda_kernel_is_tried():
    tried = {case.op for case in self_check.CASES}
    text = "".join(path.read_text() for path in SOURCES.glob("*.cu"))
    registered = {line.split('"')[1] for line in text.splitlines() if "m.impl(" in line}
    assert tried == registered


def test_cuda_kernels_pass_as_cpu_code():
    with kernels("nms", "roi_align") as harness:
        for family in ("nms", "roi_align"):
            findings = self_check.run(family, CPU, torch.float32, harness)
            assert trust.failures(findings) is None


@pytest.fixture
def planted():
    """Gives (source) -> its ops with the slip, in place of the kernels of swin_dense."""
    placed = []

    def plant(name):
        right, wrong = SLIPS[name]
        source = (SOURCES / f"{name}.cu").read_text()
        assert source.count(right) == 1
        source = source.replace(right, wrong)
        source = source.replace("IMPL(swin_dense, CUDA, m)", f"IMPL(planted_{name}, CPU, m)")
        place = torch.library.Library("swin_dense", "IMPL")
        for case in self_check.CASES:
            if case.family == name and not hasattr(getattr(torch.ops, f"planted_{name}"), case.op):
                schema = str(getattr(torch.ops.swin_dense, case.op).default._schema)
                op = f"planted_{name}::{case.op}"
                torch.library.define(op, schema.removeprefix(f"swin_dense::{case.op}"))
        torch.ops.load_library(library(f"planted_{name}", source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for op in trust._OPS[name]:
                fault = getattr(getattr(torch.ops, f"planted_{name}"), op).default
                place.impl(op, fault, "CPU", allow_override=True)
        placed.append(place)

    yield plant
    for override in (*trust._overrides.values(), *placed):
        override._destroy()
    for state in (trust._overrides, trust._instead, trust._seen):
        state.clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where the verdicts of this test go; the CPU stands in for a card."""
    path = tmp_path / "folder" / "verdicts.json"
    monkeypatch.setattr(verdicts, "path", lambda device: path)
    monkeypatch.setattr(verdicts, "card", lambda device: "a card")
    return path


def box_and_map():
    random = torch.Generator().manual_seed(3)
    features = torch.randn(1, 2, 7, 9, generator=random)
    return features, torch.tensor([[0, 1.2, 0.7, 6.1, 5.3]])


@needs_kernels
def test_a_wrong_offset_is_found_and_the_op_falls_back(planted, cache, monkeypatch):
    features, rois = box_and_map()
    right = reference.roi_align(features, rois, 2, 3, 1.0, 2, False, True)[0]
    planted("roi_align")
    assert not torch.allclose(ops.roi_align(features, rois, (2, 3), sampling_ratio=2), right)
    with pytest.warns(
        RuntimeWarning,
        match=r"roi_align: its CUDA kernel failed its self-check on a card: roi_align \(means\) in "
        r"float32 is off by \d\.\de[-+]\d+ of its largest number, 2e-05 at most; .*"
        r"switched off\. .*Meanwhile plain torch computes it\.",
    ):
        trust.decide("roi_align", CPU, torch.float32)
    assert torch.equal(ops.roi_align(features, rois, (2, 3), sampling_ratio=2), right)
    # In another dtype nothing was tried: the kernel is still there.
    wide = ops.roi_align(features.double(), rois, (2, 3), sampling_ratio=2)
    assert not torch.allclose(wide.float(), right)
    assert "left out: roi_align" in trust.describe()
    # The next process reads the verdict.
    trust._seen.clear()
    trust._instead.clear()
    monkeypatch.setattr(self_check, "run", None)
    with pytest.warns(RuntimeWarning, match="failed its self-check"):
        trust.decide("roi_align", CPU, torch.float32)


@needs_kernels
def test_gradients_come_from_the_meaning_too(planted, cache):
    features, rois = box_and_map()
    planted("roi_align")
    with pytest.warns(RuntimeWarning, match="failed its self-check"):
        trust.decide("roi_align", CPU, torch.float32)
    features.requires_grad_()
    out = ops.roi_align(features, rois, 2, sampling_ratio=2)
    (grad,) = torch.autograd.grad(out, features, torch.ones_like(out))
    rest = (*features.shape, 1.0, 2, False, True)
    none = torch.empty(0)
    want = reference.roi_align_backward(torch.ones_like(out), rois, none, none, *rest)
    torch.testing.assert_close(grad, want)


def test_a_comparison_the_wrong_way_round_is_found(planted, cache):
    planted("nms")
    findings = self_check.run("nms", CPU, torch.float32)
    assert trust.failures(findings).startswith("nms (301 boxes, equal scores) in float32 is off")


@needs_kernels
def test_a_good_verdict_is_kept_and_a_torn_file_is_tried_again(cache):
    for _ in range(2):
        trust.decide("nms", CPU, torch.float32)
        assert json.loads(cache.read_text()) == {"kernel nms torch.float32": None}
        cache.write_text("torn{")
        trust._seen.clear()
    assert not trust._instead
    assert not list(cache.parent.glob("tmp*"))


@needs_kernels
def test_a_check_that_cannot_run_leaves_the_kernel_out(planted, cache, monkeypatch):
    def launch(*_):
        raise RuntimeError("CUDA error: no kernel image is available\nand more")

    monkeypatch.setattr(self_check, "run", launch)
    with pytest.warns(RuntimeWarning, match=r"nms: .* an error, CUDA error: no .* available\. It"):
        trust.decide("nms", CPU, torch.float32)
    assert not cache.exists()  # the next process tries again
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3]])
    assert ops.nms(boxes, torch.tensor([0.1, 0.2]), 0.5).tolist() == [1]


def test_nowhere_to_write_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    verdicts.add(tmp_path / "file" / "under" / "it", {"nms": None})
    assert verdicts.read(tmp_path / "file" / "under" / "it") == {}


def test_a_capability_without_code_is_told(monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(trust.extension, "loaded", lambda: {"cpu": "", "cuda": ""})
    monkeypatch.setattr(verdicts, "card", lambda device: "NVIDIA Tesla P4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    held = {False: "75,80,86,90+ptx", True: "80,86,90+ptx"}
    monkeypatch.setattr(trust.extension, "architectures", lambda tensor_cores: held[tensor_cores])
    assert trust.no_code("nms", device).startswith(
        "nms: NVIDIA Tesla P4 has compute capability 6.1, and the CUDA kernels here are built for "
        "75,80,86,90+ptx. If it is 7.5 or later"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert trust.no_code("nms", device) is None
    assert "80,86,90+ptx" in trust.no_code("window_attention", device)
    assert trust.no_code("window_attention", CPU) is None


def test_the_back_end_that_was_measured_to_be_faster_is_taken(monkeypatch):
    qkv = torch.randn(1, 5, 6, 3, 2, 8)
    usual = window_attention.choose(qkv, 3).name
    size = trust.size_of(qkv.dtype, 3, 8, training=True)
    monkeypatch.setattr(trust, "_faster", {(CPU, *size): "plain"})
    assert window_attention.choose(qkv, 3).name == usual  # without gradients
    assert window_attention.choose(qkv.requires_grad_(), 3).name == "plain"
    assert window_attention.choose(qkv, 4).name == usual
    assert window_attention.choose(qkv, 3, "sdpa").name == "sdpa"


class Driver:
    """Answers as the driver of a card for CUDA 13 does, or says that it failed."""

    def __init__(self, status):
        self.status = status

    def cuDriverGetVersion(self, answer):
        answer._obj.value = 13000
        return self.status


def test_the_file_is_of_this_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    found = {}
    for driver in (Driver(0), Driver(1), None):
        monkeypatch.setattr(verdicts.ctypes, "CDLL", lambda name, driver=driver: missing(driver))
        found[verdicts.driver()] = verdicts.path(torch.device("cuda", 0))
    assert list(found) == ["13000", "unknown"]
    assert found["13000"] != found["unknown"]


def missing(driver):
    if driver is None:
        raise OSError("no such library")
    return driver


def test_a_fault_while_deciding_is_raised_and_decided_anew(monkeypatch):
    """It comes from another thread, and the next call must not find the op undecided."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(verdicts, "path", lambda device: {}["no such thing"])
    tensor = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32)
    for _ in range(2):
        with pytest.raises(KeyError, match="no such thing"):
            trust.look("nms", tensor)
