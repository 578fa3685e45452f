"""Converting from the command line: what is written, what is said, what is refused."""

import json
import pickle

import numpy as np
import pytest
import torch
from conftest import CONFIGS, ROOT
from safetensors import safe_open

from swin_dense.backbones.swin import Swin
from swin_dense.checkpoints import files, layouts
from swin_dense.cli import convert
from swin_dense.cli.command import MISTAKE

NANO = ROOT / "demo/weights/mask_rcnn_swin_nano.safetensors"


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.fixture
def classifier(tmp_path):
    """A small Swin as the authors' classifier names it."""
    torch.manual_seed(4)
    model = Swin(embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=3, out_indices=(0, 1))
    state = {n: torch.rand_like(t) + 0.5 for n, t in model.state_dict().items()}
    ours = {n: t for n, t in state.items() if not n.startswith("norm0.")}
    theirs = {n.replace("norm1.", "norm.", n.startswith("norm1.")): t for n, t in ours.items()}
    torch.save({"model": {**theirs, "head.weight": torch.ones(3, 16)}}, tmp_path / "imagenet.pth")
    return tmp_path / "imagenet.pth", ours


def run(*arguments):
    return convert.main([str(a) for a in arguments])


def refused(capsys, target, *arguments):
    assert run(*arguments) == MISTAKE
    printed = capsys.readouterr()
    assert sum(line.startswith("error: ") for line in printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err
    assert not target.exists()
    return printed.err


def test_our_names_are_written_with_the_account(classifier, tmp_path, capsys):
    source, ours = classifier
    target = tmp_path / "deep/w.safetensors"
    assert run(source, target) == 0
    written = files.read(target)
    assert written.weights.keys() == ours.keys()
    assert all(torch.equal(written.weights[n], t) for n, t in ours.items())
    (record,) = written["meta"]["weights"]
    assert record["sha256"] == files.sha256(source)
    assert "classification" in record["layout"]
    assert list(record["left_out"]) == ["head.weight"]
    printed = capsys.readouterr().out
    assert "found: official Swin V1 classification" in printed
    assert "left out: 1 tensor" in printed
    assert f"{len(ours)} tensors" in printed
    assert [p.name for p in target.parent.iterdir()] == ["w.safetensors"]


def test_another_layout_and_back(classifier, tmp_path):
    source, ours = classifier
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    layout = next(name for name in layouts.known() if name.startswith("timm Swin V1"))
    assert run(source, there, "--to", layout) == 0
    theirs = files.read(there).weights
    assert theirs.keys() != ours.keys()
    assert run(there, back) == 0
    assert all(torch.equal(files.read(back).weights[n], t) for n, t in ours.items())


def test_the_backbone_of_a_detector_alone_is_exported(tmp_path):
    target = tmp_path / "w.safetensors"
    layout = next(name for name in layouts.known() if name.startswith("OpenMMLab Swin V1"))
    assert run(NANO, target, "--to", layout) == 0
    names = files.read(target).weights
    assert not any("roi_head" in name for name in names)
    assert any(name.startswith("stages.") for name in names)


def test_classes_and_kinds_of_numbers_stay(tmp_path):
    target = tmp_path / "w.safetensors"
    assert run(NANO, target) == 0
    before, after = files.read(NANO), files.read(target)
    assert after["meta"]["classes"] == before["meta"]["classes"]
    assert {t.dtype for t in after.weights.values()} == {t.dtype for t in before.weights.values()}


@pytest.mark.parametrize("task", CONFIGS)
def test_the_comparison_with_a_model_names_everything(task, tmp_path, capsys):
    target = tmp_path / "w.safetensors"
    assert run(NANO, target, "--config", CONFIGS[task]) == 0
    printed = capsys.readouterr().out
    with safe_open(target, "pt") as file:
        (record,) = json.loads(file.metadata()["swin_dense"])["weights"]
    if task == "detection":
        assert "100 % of the model's numbers" in printed
        assert record["model"]["share"] == 1
    else:
        assert "at random, not in the file" in printed
        assert "decode_head.psp_modules.[0-3].1.conv (4 tensors" in printed
        assert "rpn_head.rpn_cls (2 tensors)" in printed
        assert record["model"]["share"] < 0.7
    assert len(record["model"]["unused"]) == (0 if task == "detection" else 38)


def test_a_backbone_is_compared_with_the_model_s_backbone(classifier, tmp_path, capsys):
    target = tmp_path / "w.safetensors"
    assert run(classifier[0], target, "--config", CONFIGS["segmentation"]) == 0
    assert "of the backbone's numbers" in capsys.readouterr().out


def test_what_is_no_swin_keeps_its_names(tmp_path, capsys):
    torch.save({"conv1.weight": torch.ones(2), "layer1.bias": torch.ones(3)}, tmp_path / "r.pth")
    assert run(tmp_path / "r.pth", tmp_path / "r.safetensors") == 0
    assert set(files.read(tmp_path / "r.safetensors").weights) == {"conv1.weight", "layer1.bias"}
    assert "no layout known, names kept" in capsys.readouterr().out


def test_detectron2_arrays(classifier, tmp_path):
    _, ours = classifier
    layout = next(n for n in layouts.known() if n == "official Swin V1 backbone")
    theirs = layouts.export(ours, layout + " in detectron2")
    arrays = {n: np.asarray(t) for n, t in theirs.items()}
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    assert run(tmp_path / "d2.pkl", tmp_path / "w.safetensors") == 0
    found = files.read(tmp_path / "w.safetensors").weights
    found = {n.removeprefix("backbone."): t for n, t in found.items()}
    assert all(torch.equal(found[n], t) for n, t in ours.items())


def test_trust_warns_before_it_runs_anything(tmp_path, capsys, monkeypatch):
    canary, source = tmp_path / "canary", tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "meta": Hostile(canary)}, source)
    text = refused(capsys, tmp_path / "w.safetensors", source, tmp_path / "w.safetensors")
    assert f"tools/convert.py --trust {source} w.safetensors" in text
    assert not canary.exists()

    warned = []
    unpickle = files._unpickled

    def watched(*arguments):
        warned.append(capsys.readouterr().err)
        assert not canary.exists()
        return unpickle(*arguments)

    monkeypatch.setattr(files, "_unpickled", watched)
    assert run("--trust", source, tmp_path / "w.safetensors") == 0
    assert "warning: --trust unpickles" in warned[0]
    assert canary.exists()
    assert set(files.read(tmp_path / "w.safetensors").weights) == {"a"}


def test_nothing_is_replaced_unasked(classifier, tmp_path, capsys):
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"precious")
    assert run(classifier[0], target) == MISTAKE
    assert "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run(classifier[0], target, "--force") == 0
    assert files.read(target).weights


@pytest.mark.parametrize(
    ("target", "more", "says"),
    [
        ("w.pth", [], "Call it w.safetensors"),
        ("w.safetensors", ["--to", "timmm"], "no layout is called 'timmm'"),
        ("file/w.safetensors", [], "is a file, not a folder"),
    ],
)
def test_what_cannot_be_written(classifier, tmp_path, capsys, target, more, says):
    (tmp_path / "file").write_text("")
    arguments = [classifier[0], tmp_path / target, *more]
    assert says in refused(capsys, tmp_path / target, *arguments)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "checkpoint"), (b"PK\x03\x04 no", "damaged"), (pickle.dumps([1]), "holds no weights")],
)
def test_what_cannot_be_read(tmp_path, capsys, content, says):
    (tmp_path / "w.pth").write_bytes(content)
    target = tmp_path / "o.safetensors"
    assert says in refused(capsys, target, tmp_path / "w.pth", target)
    assert "there is no file" in refused(capsys, target, tmp_path / "none.pth", target)


def test_renamed_without_reordering(tmp_path, capsys):
    """OpenMMLab's values under the authors' names: the numbers tell."""
    state = dict(files.read(NANO).weights)
    layout = next(n for n in layouts.known() if n.startswith("OpenMMLab Swin V1"))
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    theirs = layouts.export(inner, layout)
    for name, tensor in theirs.items():
        if "downsample" in name:
            state["backbone." + name.replace("stages.", "layers.")] = tensor
    torch.save(state, tmp_path / "w.pth")
    target = tmp_path / "w.safetensors"
    assert "order of nn.Unfold" in refused(capsys, target, tmp_path / "w.pth", target)


def test_only_a_swin_has_other_layouts(tmp_path, capsys):
    torch.save({"a": torch.ones(2)}, tmp_path / "r.pth")
    arguments = [tmp_path / "r.pth", tmp_path / "r.safetensors", "--to", layouts.known()[0]]
    assert "Swin" in refused(capsys, tmp_path / "r.safetensors", *arguments)


def test_the_layouts_are_listed(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--layouts")
    assert tuple(capsys.readouterr().out.splitlines()) == layouts.known()
