"""Every mistake of a user ends in one message, a non-zero status, and nothing half-written."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS, SMALL
from PIL import Image

from swin_dense.checkpoints import files
from swin_dense.cli import image_demo, replay, test, train
from swin_dense.cli.command import MISTAKE

DETECTION, SEGMENTATION = (str(CONFIGS[task]) for task in ("detection", "segmentation"))


@pytest.fixture
def broken(tmp_path, small_shapes):
    """A copy of the small set to break."""
    return Path(shutil.copytree(small_shapes.root, tmp_path / "set"))


def refused(capsys, work, main, *arguments, ran=False):
    """Run a command that must fail; the message it prints, after checking what it leaves.

    A run that made iterations keeps its log.
    """
    status = main([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert status == MISTAKE, printed.out
    assert sum(line.startswith("error: ") for line in printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err + printed.out
    assert any(work.glob("*/*.log")) if ran else not work.exists()
    return printed.err


def train_on(capsys, tmp_path, config, root, *more):
    work = tmp_path / "work"
    arguments = (
        config,
        "--data-root",
        root,
        "--work-dir",
        work,
        "--max-iters",
        3,
        *more,
    )
    return refused(capsys, work, train.main, *arguments, *SMALL)


def edit_json(root, change, split="train"):
    path = root / f"annotations/instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("config", [DETECTION, SEGMENTATION])
def test_missing_data_root(capsys, tmp_path, config):
    text = train_on(capsys, tmp_path, config, tmp_path / "nowhere")
    assert "there is no folder" in text
    assert "--data shapes" in text


def test_missing_annotation_file(capsys, tmp_path, broken):
    (broken / "annotations/instances_val.json").unlink()
    text = train_on(capsys, tmp_path, DETECTION, broken)
    assert "annotations/instances_val.json" in text


def test_image_named_but_absent(capsys, tmp_path, broken):
    gone = sorted((broken / "images/train").iterdir())[4]
    gone.unlink()
    text = train_on(capsys, tmp_path, DETECTION, broken)
    assert gone.name in text


def test_label_map_without_its_image(capsys, tmp_path, broken):
    gone = sorted((broken / "images/train").iterdir())[4]
    gone.unlink()
    text = train_on(capsys, tmp_path, SEGMENTATION, broken)
    assert gone.stem in text


def test_class_names_that_match_nothing(capsys, tmp_path, broken):
    names = tmp_path / "classes.txt"
    names.write_text("Circle\nsquares\n")
    text = train_on(capsys, tmp_path, DETECTION, broken, "--classes", names)
    assert "'Circle'" in text
    assert "Did you mean 'circle'" in text
    assert "'cross'" in text  # both lists are shown


def test_splits_that_disagree_about_classes(capsys, tmp_path, broken):
    def rename(content):
        content["categories"][0]["name"] = "disc"

    edit_json(broken, rename, "val")
    text = train_on(capsys, tmp_path, DETECTION, broken)
    assert "'circle'" in text
    assert "'disc'" in text


def test_no_object_of_any_class(capsys, tmp_path, broken):
    edit_json(broken, lambda content: content.update(annotations=[]))
    assert "0 of 9" in train_on(capsys, tmp_path, DETECTION, broken)


def test_label_value_beyond_the_classes(capsys, tmp_path, broken):
    path = sorted((broken / "label_maps/train").iterdir())[2]
    labels = np.array(Image.open(path))
    labels[3:5, 7:10] = 9
    Image.fromarray(labels).save(path)
    text = train_on(capsys, tmp_path, SEGMENTATION, broken)
    assert path.name in text
    assert "9 (6 pixels)" in text


@pytest.mark.parametrize(("config", "workers"), [(DETECTION, 0), (DETECTION, 1), (SEGMENTATION, 1)])
def test_truncated_image(capsys, tmp_path, broken, config, workers):
    for path in (broken / "images/train").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    options = [f"train_dataloader.num_workers={workers}"]
    options += [f"train_dataloader.persistent_workers={bool(workers)}"]
    work = tmp_path / "work"
    arguments = [config, "--data-root", broken, "--work-dir", work, "--max-iters", 3, "--no-val"]
    text = refused(capsys, work, train.main, *arguments, *SMALL, *options)
    assert ".png" in text
    assert len(text.splitlines()) < 4


@pytest.mark.parametrize("command", [test.main, image_demo.main])
def test_checkpoint_of_another_architecture(capsys, tmp_path, trained, small_shapes, command):
    task, _, work = trained
    other = DETECTION if task == "segmentation" else SEGMENTATION
    state = files.read(work / "iter_8.pth")
    names = state["meta"]["dataset_meta"]
    names["classes"] = ("circle", "square", "triangle", "star", "ring", "cross")
    if task == "detection":
        names["classes"] = ("background", *names["classes"])
    torch.save(state, tmp_path / "other.pth")
    if command is test.main:
        arguments = [other, tmp_path / "other.pth", "--data-root", small_shapes.root]
        arguments += ["--work-dir", tmp_path / "out", *SMALL[:2]]
    else:
        image = next(small_shapes.image_dir("val").iterdir())
        arguments = [image, other, tmp_path / "other.pth", "--out-dir", tmp_path / "out"]
    text = refused(capsys, tmp_path / "out", command, *arguments)
    assert "does not fit this model" in text
    assert "not in the file" in text


def test_checkpoint_of_other_classes(capsys, tmp_path, trained, broken):
    task, config, work = trained
    if task == "segmentation":
        pytest.skip("label maps carry no names to disagree with")

    def rename(content):
        content["categories"][2]["name"] = "pyramid"

    edit_json(broken, rename, "val")
    arguments = [config, work / "iter_8.pth", "--data-root", broken, "--work-dir", tmp_path / "out"]
    text = refused(capsys, tmp_path / "out", test.main, *arguments)
    assert "triangle" in text
    assert "pyramid" in text


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("way", ["test", "demo", "resume", "load-from", "pretrained"])
def test_checkpoint_that_would_run_code(capsys, tmp_path, small_shapes, way):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Hostile(canary)}, path)
    root, out = small_shapes.root, tmp_path / "out"
    if way == "test":
        text = refused(
            capsys, out, test.main, DETECTION, path, "--data-root", root, "--work-dir", out
        )
    elif way == "demo":
        image = next(small_shapes.image_dir("val").iterdir())
        text = refused(capsys, out, image_demo.main, image, DETECTION, path, "--out-dir", out)
    else:
        text = train_on(capsys, tmp_path, SEGMENTATION, root, f"--{way}", path)
    assert "would run code" in text
    assert not canary.exists()


@pytest.mark.parametrize("way", ["pretrained", "load-from"])
def test_weights_of_another_size(capsys, tmp_path, trained, small_shapes, way):
    _, config, work = trained
    path = work / "iter_8.pth"
    setting = ["--cfg-options", "model.backbone.depths=(2,2,6,2)"]
    setting += ["model.backbone.drop_path_rate=0.1"]
    arguments = [config, "--data-root", small_shapes.root, "--work-dir", tmp_path / "work"]
    arguments += ["--max-iters", 2, "--no-val", f"--{way}", path, *SMALL[:2], *setting]
    text = refused(capsys, tmp_path / "work", train.main, *arguments)
    assert "does not fit this" in text
    assert "layers.2.blocks.[2-5].mlp.fc[12] (16 tensors" in text
    assert "--allow-missing" in text


def test_a_backbone_given_as_a_whole_model(capsys, tmp_path, trained, small_shapes):
    _, config, work = trained
    state = files.read(work / "iter_8.pth")["state_dict"]
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    torch.save(inner, tmp_path / "inner.pth")
    text = train_on(
        capsys, tmp_path, config, small_shapes.root, "--load-from", tmp_path / "inner.pth"
    )
    assert "does not fit this model: 95% of its tensors and numbers are needed" in text
    assert "head" in text
    assert "The file holds a backbone alone, which --pretrained starts from." in text


def test_a_name_to_allow_that_means_nothing(capsys, tmp_path, trained, small_shapes):
    _, config, work = trained
    more = ["--load-from", work / "iter_8.pth", "--allow-missing", "bckbone"]
    text = train_on(capsys, tmp_path, config, small_shapes.root, *more)
    assert "--allow-missing bckbone: no weight of the model is called so" in text
    assert "Did you mean 'backbone'?" in text


@pytest.mark.parametrize("way", ["pretrained", "load-from"])
def test_official_weights_without_a_network(capsys, tmp_path, small_shapes, monkeypatch, way):
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    name = "swin_tiny_patch4_window7_224"
    text = train_on(capsys, tmp_path, SEGMENTATION, small_shapes.root, f"--{way}", name)
    assert f"put it at {tmp_path / 'torch/hub/checkpoints' / name}.pth" in text
    text = train_on(capsys, tmp_path, SEGMENTATION, small_shapes.root, f"--{way}", name[:-1])
    assert f"Did you mean '{name}'" in text


def test_weights_that_are_no_numbers(capsys, tmp_path, trained, small_shapes):
    _, config, work = trained
    state = files.read(work / "iter_8.pth")
    state["state_dict"]["backbone.norm3.bias"][5] = float("nan")
    torch.save(dict(state), tmp_path / "nan.pth")
    arguments = [config, tmp_path / "nan.pth", "--data-root", small_shapes.root, *SMALL[:2]]
    arguments += ["--work-dir", tmp_path / "out"]
    text = refused(capsys, tmp_path / "out", test.main, *arguments)
    assert "NaN or infinite) in 1 of" in text


def test_checkpoint_that_is_not_there(capsys, tmp_path, trained, small_shapes):
    _, config, work = trained
    out = tmp_path / "out"
    arguments = [config, work / "iter_9.pth", "--data-root", small_shapes.root, "--work-dir", out]
    text = refused(capsys, out, test.main, *arguments)
    assert "Did you mean 'iter_" in text


def test_config_with_a_misspelt_key(capsys, tmp_path, small_shapes):
    config = tmp_path / "mine.py"
    config.write_text(f'_base_ = ["{SEGMENTATION}"]\nmodel = dict(backbone=dict(embed_dims=24))\n')
    text = train_on(capsys, tmp_path, config, small_shapes.root)
    assert "model.backbone: Swin takes no argument 'embed_dims'. Did you mean 'embed_dim'?" in text


def test_a_config_without_a_backbone(capsys, tmp_path, small_shapes):
    config = tmp_path / "mine.py"
    config.write_text(f'_base_ = ["{SEGMENTATION}"]\nmodel = dict(backbone=None)\n')
    text = train_on(capsys, tmp_path, config, small_shapes.root)
    assert "error: config: model: EncoderDecoder lacks 'backbone'." in text


def test_size_smaller_than_one_patch(capsys, tmp_path, trained):
    task, config, work = trained
    Image.new("RGB", (3, 2)).save(tmp_path / "dot.png")
    options = ["--cfg-options", "test_dataloader.dataset.pipeline.1.scale=(3,2)"]
    arguments = [tmp_path / "dot.png", config, work / "iter_8.pth", "--out-dir", tmp_path / "out"]
    status = image_demo.main([str(a) for a in [*arguments, *options]])
    printed = capsys.readouterr()
    if task == "detection":  # padded to a multiple of 32 before it reaches the backbone
        assert status == 0
        return
    assert status == 1
    assert "skipped dot.png: " in printed.err
    assert "is too small. The smallest allowed is 4x4" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_stops_the_run(capsys, tmp_path, small_shapes):
    work = tmp_path / "work"
    arguments = [SEGMENTATION, "--data-root", small_shapes.root, "--work-dir", work, "--no-val"]
    arguments += ["--max-iters", 20, *SMALL, "optim_wrapper.optimizer.lr=1e30"]
    arguments += ["optim_wrapper.clip_grad=None"]
    text = refused(capsys, work, train.main, *arguments, ran=True)
    assert "optim_wrapper.optimizer.lr" in text
    (kept,) = work.glob("not_finite_*.pth")
    assert replay.main([str(kept)]) == 0
    there, here = capsys.readouterr().out.splitlines()[1:]
    found = there.removeprefix("in the training: ")
    assert f"{found} (images " in text
    assert here == f"here: {found}"
    assert replay.main([str(work / "upernet_swin_nano.py")]) == MISTAKE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--resume", "weights_fp16.safetensors"], "holds weights only"),
        (["--resume", "iter_4.pth"], "is of a run of 8 iterations, this one has 3"),
    ],
)
def test_only_a_run_s_own_checkpoint_is_resumed(
    capsys, tmp_path, trained, small_shapes, options, says
):
    _, config, folder = trained
    text = train_on(capsys, tmp_path, config, small_shapes.root, options[0], folder / options[1])
    assert says in text


def test_a_hook_without_a_class(capsys, tmp_path, small_shapes):
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = {str(SEGMENTATION)!r}\ncustom_hooks = ['EMAHook']\n")
    text = train_on(capsys, tmp_path, config, small_shapes.root)
    assert "custom_hooks: each names its class, as in [{'type': 'EMAHook'}]; got 'EMAHook'" in text


def test_resuming_with_other_classes(capsys, tmp_path, trained, broken):
    task, config, folder = trained
    if task == "detection":
        for split in ("train", "val"):
            edit_json(broken, lambda c: c["categories"][1].update(name="box"), split)
    else:
        names = (broken / "classes.txt").read_text().split()
        (broken / "classes.txt").write_text("\n".join(reversed(names)))
    text = train_on(capsys, tmp_path, config, broken, "--resume", folder / "iter_4.pth")
    assert "checkpoint: " in text
    assert ("box" if task == "detection" else "another order") in text


def test_an_image_of_another_size_than_its_annotations_say(capsys, tmp_path, broken):
    def swap(content):
        for row in content["images"]:
            row["width"], row["height"] = row["height"], row["width"]
        for row in content["annotations"]:
            row["segmentation"] = [[4, 4, 40, 4, 40, 40]]
            row["bbox"] = [4, 4, 36, 36]

    edit_json(broken, swap)
    text = train_on(capsys, tmp_path, DETECTION, broken)
    assert "the annotations say 72x104 pixels, the image has 104x72" in text


def test_a_label_map_of_another_size(capsys, tmp_path, broken):
    path = sorted((broken / "label_maps/val").iterdir())[1]
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    text = train_on(capsys, tmp_path, SEGMENTATION, broken)
    assert path.name in text or "val" in text


def test_the_demo_does_not_overwrite_what_it_looks_at(capsys, tmp_path, trained):
    _, config, work = trained
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    status = image_demo.main(
        [str(tmp_path), str(config), str(work / "iter_8.pth"), "--out-dir", str(tmp_path)]
    )
    assert status == MISTAKE
    assert "would replace it" in capsys.readouterr().err
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("option", ["--work-dir", "--cfg-options"])
def test_places_and_settings_that_cannot_be(capsys, tmp_path, small_shapes, option):
    (tmp_path / "file").write_text("")
    command = [SEGMENTATION, "--data-root", str(small_shapes.root), "--max-iters", "2"]
    if option == "--work-dir":
        assert train.main([*command, option, str(tmp_path / "file/work")]) == MISTAKE
        assert "is a file, not a folder" in capsys.readouterr().err
        return
    for setting in ("a", "x=[1,"):
        with pytest.raises(SystemExit) as stop:
            train.main([*command, option, setting])
        assert stop.value.code == MISTAKE
        assert "write KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train_dataloader.batch_size=0", "is a whole number from 1, not 0"),
        ("train_dataloader.batch_size=two", "not 'two'"),
        ("model.auxiliary_head.in_index=4", "in_index=4 counts maps from 0, there are 4"),
        ("model.backbone.type=SwinV2", "there is no type 'SwinV2'. Write type='swin_dense.SwinV2'"),
        ("model.decode_head.type=UperHead", "Did you mean 'UPerHead'?"),
        ("optim_wrapper.optimizer.type=Adamm", "Adamm"),
    ],
)
def test_settings_that_do_not_fit(capsys, tmp_path, small_shapes, setting, says):
    work = tmp_path / "work"
    arguments = [SEGMENTATION, "--data-root", small_shapes.root, "--work-dir", work]
    arguments += ["--max-iters", 2, "--no-val", *SMALL, setting]
    assert says in refused(capsys, work, train.main, *arguments)


def test_nothing_to_resume(capsys, tmp_path, small_shapes):
    text = train_on(capsys, tmp_path, SEGMENTATION, small_shapes.root, "--resume")
    assert "holds no checkpoint" in text


@pytest.mark.parametrize("scale", ["12", "8,9", "a,b"])
def test_an_image_scale_that_is_none(capsys, scale):
    with pytest.raises(SystemExit) as stop:
        train.main([SEGMENTATION, "--image-scale", scale])
    assert stop.value.code == MISTAKE


def test_pickled_garbage(capsys, tmp_path, small_shapes):
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps([1, 2, 3]))
    text = train_on(capsys, tmp_path, SEGMENTATION, small_shapes.root, "--load-from", path)
    assert str(path) in text
