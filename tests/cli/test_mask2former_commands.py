"""Mask2Former for instances, segments and label maps: train, resume, test and draw."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL
from PIL import Image

from swin_dense.checkpoints import files
from swin_dense.cli import image_demo, test, train
from swin_dense.cli.command import MISTAKE
from swin_dense.datasets import shapes

TASKS = {"instances": "", "panoptic": "_panoptic", "label maps": "_ade20k"}
SCALE = SMALL[:2]


def config_of(task):
    return str(ROOT / f"configs/mask2former_swin_t{TASKS[task]}.py")


def smaller(task):
    """Options that leave one of everything and an untrained model's segments visible."""
    part = "decode_head" if task == "label maps" else "panoptic_head"
    points = f"model.{part}.train_cfg" if task == "label maps" else "model.train_cfg"
    return [
        "model.backbone.arch=nano",
        "model.backbone.depths=1,2,1,1",
        f"model.{part}.num_queries=17",
        f"model.{part}.transformer_decoder.num_layers=3",
        f"model.{part}.pixel_decoder.encoder.num_layers=1",
        f"{points}.num_points=99",
        *(["model.test_cfg.object_mask_thr=0.0"] if task == "panoptic" else []),
    ]


def arguments(task, root, work, *more):
    """In few iterations of small batches the whole rate teaches more than a share of it."""
    command = [config_of(task), "--data-root", str(root), "--work-dir", str(work), "--no-scale-lr"]
    command += [*more, *SMALL]
    return [*command, *smaller(task)]


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory, small_shapes):
    """(task, folder of a finished run with iter_2.pth and iter_4.pth)."""
    work = tmp_path_factory.mktemp("work")
    more = ["--max-iters", "4", "--amp", "bf16"]
    command = arguments(request.param, small_shapes.root, work, *more)
    assert train.main([*command, "default_hooks.checkpoint.interval=2"]) == 0
    return request.param, work


def test_what_a_run_leaves(finished):
    task, work = finished
    state = files.read(work / "iter_4.pth")["state_dict"]
    assert all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    meta = files.read(work / "weights_fp16.safetensors")["meta"]
    ground = {"instances": (), "panoptic": ("background",), "label maps": ()}[task]
    names = shapes.LABELS if task == "label maps" else (*shapes.CLASSES, *ground)
    assert tuple(meta["classes"]) == names
    assert tuple(meta.get("thing_classes", ())) == (shapes.CLASSES if ground else ())
    scores = next(t for n, t in state.items() if n.endswith("cls_embed.weight"))
    assert len(scores) == len(names) + 1


def test_a_resumed_run_goes_on(finished, small_shapes, tmp_path):
    task, work = finished
    more = ["--max-iters", "4", "--no-val", "--resume", str(work / "iter_2.pth")]
    assert train.main(arguments(task, small_shapes.root, tmp_path, *more)) == 0
    assert files.read(tmp_path / "iter_4.pth")["meta"]["iter"] == 4


def test_numbers(finished, small_shapes, tmp_path, capsys):
    task, work = finished
    weights = str(work / "weights_fp16.safetensors")
    words = [config_of(task), weights, "--data-root", str(small_shapes.root)]
    words += ["--work-dir", str(tmp_path), *SCALE, "--cfg-options", *smaller(task)]
    assert test.main(words) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    printed = capsys.readouterr().out
    if task == "panoptic":
        names = [f"{n}{group}" for group in ("", "_th", "_st") for n in ("PQ", "SQ", "RQ")]
        assert list(content["metrics"]) == names
        assert "all  things  stuff" in " ".join(printed.split("\n")).replace("   ", "  ")
        assert set(content["per_class"]) == {*shapes.CLASSES, "background"}
        assert set(content["per_class"]["star"]) == {"PQ", "SQ", "RQ"}
    else:
        assert {"instances": "segm_AP", "label maps": "mIoU"}[task] in content["metrics"]
    assert all(f"\n{name} " in printed for name in content["per_class"])
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_pictures(finished, small_shapes, tmp_path):
    task, work = finished
    image = str(small_shapes.image_dir("val") / "000002.png")
    content = files.read(work / "iter_4.pth")
    for name, tensor in content["state_dict"].items():
        if "mask_embed" in name:  # so few iterations make masks of little contrast
            tensor.mul_(-3)
    torch.save(content, tmp_path / "iter_4.pth")
    words = [image, config_of(task), str(tmp_path / "iter_4.pth"), *SCALE]
    words += ["--out-dir", str(tmp_path / "drawn")]
    words += [] if task == "label maps" else ["--score-thr", "0.01"]
    assert image_demo.main([*words, "--cfg-options", *smaller(task)]) == 0
    content = json.loads((tmp_path / "drawn/000002.json").read_text())
    assert (content["height"], content["width"]) == (72, 104)
    assert Image.open(tmp_path / "drawn/000002.png").height >= 6 * 72
    if task == "panoptic":
        runs = content["segment_map"]
        segments = np.repeat(runs["values"], runs["lengths"])
        assert len(segments) == 72 * 104
        assert content["segments"]
        for row in content["segments"]:
            assert (segments == row["id"]).sum() == row["area"] > 0
            assert row["isthing"] == (row["class"] != "background")
            assert 0 < row["score"] <= 1
        assert set(segments) - {0} == {row["id"] for row in content["segments"]}
    if task == "instances":
        assert all(row["mask"]["size"] == [72, 104] for row in content["instances"])


def test_weights_of_a_run_with_other_classes_are_a_start(small_shapes, tmp_path, finished, capsys):
    task, work = finished
    if task != "panoptic":
        pytest.skip("the same code for all")
    names = tmp_path / "names.txt"
    names.write_text("background\nring\nstar\n")
    more = ["--max-iters", "1", "--no-val", "--classes", str(names)]
    more += ["--load-from", str(work / "iter_4.pth")]
    assert train.main(arguments(task, small_shapes.root, tmp_path / "w", *more)) == 0
    assert (
        "at random, of other classes in the file: panoptic_head.cls_embed"
        in capsys.readouterr().out
    )
    meta = files.read(tmp_path / "w/weights_fp16.safetensors")["meta"]
    assert meta["classes"] == ["ring", "star", "background"]
    assert meta["thing_classes"] == ["ring", "star"]


# Mistakes.


@pytest.fixture
def broken(tmp_path, small_shapes):
    return Path(shutil.copytree(small_shapes.root, tmp_path / "set"))


def refused(capsys, task, root, work, *more):
    status = train.main(arguments(task, root, work, "--max-iters", "2", *more))
    printed = capsys.readouterr()
    assert status == MISTAKE, printed.out
    assert sum(line.startswith("error: ") for line in printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err + printed.out
    assert not work.exists()
    return printed.err


def edit(root, change, split="train"):
    path = root / f"annotations/panoptic_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_folder_of_pngs_is_not_there(capsys, tmp_path, broken):
    shutil.rmtree(broken / "annotations/panoptic_val")
    text = refused(capsys, "panoptic", broken, tmp_path / "work")
    assert "panoptic_val: the folder of panoptic PNGs does not exist" in text


def test_a_set_without_segments(capsys, tmp_path, broken):
    for split in ("train", "val"):
        (broken / f"annotations/panoptic_{split}.json").unlink()
    text = refused(capsys, "panoptic", broken, tmp_path / "work")
    assert "none of the layouts known for this task" in text
    assert "annotations/panoptic_train2017.json + train2017/" in text


def test_splits_that_disagree_about_things(capsys, tmp_path, broken):
    edit(broken, lambda content: content["categories"][1].update(isthing=0), "val")
    text = refused(capsys, "panoptic", broken, tmp_path / "work")
    assert "Make isthing agree in both files" in text


def test_categories_without_isthing(capsys, tmp_path, broken):
    edit(broken, lambda content: [c.pop("isthing") for c in content["categories"]])
    text = refused(capsys, "panoptic", broken, tmp_path / "work")
    assert "7 of 7 do not: background, circle, square and 4 more" in text


def test_a_png_that_changes_after_the_check(capsys, tmp_path, broken, monkeypatch):
    """The check looks at some; the loader finds the rest."""
    from swin_dense.datasets import panoptic_sets

    monkeypatch.setattr(panoptic_sets, "_png_findings", lambda samples, folder: [])
    for path in (broken / "annotations/panoptic_train").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(1)).save(path)
    text = refused(capsys, "panoptic", broken, tmp_path / "work", "--no-val")
    assert "ids are not listed" in text


def test_weights_without_things_cannot_be_drawn(capsys, tmp_path, finished, small_shapes):
    task, work = finished
    if task != "panoptic":
        pytest.skip("about panoptic weights")
    content = files.read(work / "iter_4.pth")
    meta = {"classes": content["meta"]["dataset_meta"]["classes"]}
    files.write_weights(tmp_path / "w.safetensors", content["state_dict"], meta, torch.float16)
    image = next(small_shapes.image_dir("val").iterdir())
    words = [str(image), config_of(task), str(tmp_path / "w.safetensors"), *SCALE]
    words += ["--out-dir", str(tmp_path / "d"), "--cfg-options", *smaller(task)]
    assert image_demo.main(words) == MISTAKE
    assert "which of its classes are things" in capsys.readouterr().err
