"""The command that tries every kernel, and what it says where there is none."""

import json
import re

import pytest
import torch
from devices import needs_kernels

from swin_dense.cli import check
from swin_dense.ops import extension, self_check


@needs_kernels
def test_every_case_is_shown_and_written(capsys, tmp_path):
    file = tmp_path / "found.json"
    assert (
        check.main(["--device", "cpu", "--op", "nms", "--op", "roi_align", "--json", str(file)])
        == 0
    )
    printed = capsys.readouterr().out
    assert re.search(
        r"^roi_align_backward +means +cpu +bfloat16 .* 4e-02 +- +\d+ +good$", printed, re.M
    )
    assert re.search(r"^16 cases in \d+\.\d s, 0 of them no good$", printed, re.M)
    content = json.loads(file.read_text())
    assert len(content["findings"]) == 16
    assert content["findings"][0]["op"] == "nms"
    assert content["findings"][0]["ok"] is True
    assert content["machine"]["torch"] == torch.__version__


@needs_kernels
def test_a_fault_ends_with_status_1(capsys, monkeypatch):
    wrong = self_check.Finding("nms", "nms", "boxes", "float32", float("inf"), 0.0, False, 0.1)
    monkeypatch.setattr(self_check, "run", lambda *_: [wrong])
    assert check.main(["--device", "cpu", "--op", "nms"]) == 1
    assert "inf    0e+00         NO  100  NO GOOD" in capsys.readouterr().out


@needs_kernels
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--op", "roi_alin"], "error: --op: there is no op roi_alin. Did you mean 'roi_align'?"),
        (["--device", "gpu"], "error: --device: kernels are here for cpu; got gpu. kernels: cpu ("),
    ],
)
def test_what_is_not_there_is_named(arguments, says, capsys):
    assert check.main(arguments) == 2
    assert capsys.readouterr().err.startswith(says)


def test_without_kernels_there_is_nothing_to_check(capsys, monkeypatch):
    monkeypatch.setattr(extension, "_loaded", {})
    monkeypatch.setattr(extension, "MISSING", "switched off")
    assert check.main([]) == 2
    assert capsys.readouterr().err == "error: nothing to check: kernels: none, switched off.\n"
