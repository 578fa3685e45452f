"""Two lines of Python: a trained model from whatever names it, and what is said if nothing does."""

import shutil

import pytest
import torch
from conftest import CONFIGS, ROOT
from PIL import Image

import swin_dense
from swin_dense.checkpoints import files
from swin_dense.cli import convert
from swin_dense.errors import InputError

DEMO = ROOT / "demo/weights"


@pytest.fixture
def picture(small_shapes):
    return small_shapes.image_dir("val") / "000002.png"


def scale_of(model):
    return model.config.test_dataloader.dataset.pipeline[1].scale


def strip(path, to, **meta):
    """The same weights without the config that they carry."""
    content = files.read(path)
    kept = {k: v for k, v in content["meta"].items() if k != "config"}
    torch.save({"state_dict": content["state_dict"], "meta": {**kept, **meta}}, to)
    return to


@pytest.mark.parametrize("weights", ["iter_8.pth", "weights_fp16.safetensors", None])
def test_our_checkpoints_and_runs_need_nothing_else(trained, picture, weights, tmp_path):
    """They carry config, classes and scale: here 96x64, which the config does not say."""
    task, config, work = trained
    place = work / weights if weights else work
    found = swin_dense.load(place, device="cpu").predict(picture)
    model = swin_dense.load(weights=str(place), device="cpu")
    assert scale_of(model) == (96, 64)
    assert model.config.filename == config.name
    assert model.weights["file"] == str(work / (weights or "iter_8.pth"))
    assert len(model.classes) == (6 if task == "detection" else 7)
    assert found.to_json() == model.predict(picture).to_json()
    drawn = model.predict(Image.open(picture)).draw()
    assert drawn.shape[0] == 6 * 72


@pytest.mark.parametrize("kind", ["path", "object"])
def test_a_named_config_gets_the_scale_of_the_checkpoint(trained, capsys, kind):
    """Said in one line; unless another one is asked for, by argument or by option."""
    _, config, work = trained
    named = config
    if kind == "object":
        named = swin_dense.load(work, device="cpu", image_scale=(512, 320)).config
        before = named.to_dict()
    model = swin_dense.load(named, work / "iter_8.pth", device="cpu")
    assert scale_of(model) == (96, 64)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "image scale" in line]
    assert line.startswith(f"image scale: 96,64, as {work / 'iter_8.pth'} was trained, not ")
    if kind == "object":
        assert named.to_dict() == before  # the caller's own
    pipeline = "test_dataloader.dataset.pipeline"
    for more in (
        {"image_scale": (128, 64)},
        {"options": {f"{pipeline}.1.scale": (128, 64)}},
    ):
        model = swin_dense.load(named, work / "iter_8.pth", device="cpu", **more)
        assert scale_of(model) == (128, 64)
    assert "image scale" not in capsys.readouterr().out


def test_options_change_the_config_that_is_carried(trained):
    _, _, work = trained
    key = "test_dataloader.dataset.pipeline.1.keep_ratio"
    model = swin_dense.load(work, device="cpu", options={key: False})
    assert model.config.test_dataloader.dataset.pipeline[1].keep_ratio is False
    with pytest.raises(InputError, match=r"has no 'keep_ratoi'\. Did you mean 'keep_ratio'\?"):
        swin_dense.load(work, device="cpu", options={key.replace("ratio", "ratoi"): False})


@pytest.mark.parametrize("name", ["mask_rcnn_swin_nano", "upernet_swin_nano"])
def test_a_config_by_name_from_any_folder(name, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = swin_dense.load(name, DEMO / f"{name}.safetensors", device="cpu")
    assert len(model.predict(picture))


def test_a_run_whose_checkpoints_carry_none_has_a_config_beside_them(trained, tmp_path, picture):
    """As mmengine's own runs have it."""
    _, config, work = trained
    strip(work / "iter_8.pth", tmp_path / "iter_8.pth")
    shutil.copy(work / config.name, tmp_path)
    model = swin_dense.load(tmp_path, device="cpu")
    expected = swin_dense.load(work, device="cpu").predict(picture)
    assert model.predict(picture).to_json() == expected.to_json()


def test_converted_weights_still_carry_it(trained, tmp_path):
    _, config, work = trained
    assert convert.main([str(work / "iter_8.pth"), str(tmp_path / "a.safetensors")]) == 0
    model = swin_dense.load(tmp_path / "a.safetensors", device="cpu")
    assert (model.config.filename, scale_of(model)) == (config.name, (96, 64))


def test_weights_that_carry_no_config(trained, tmp_path):
    _, _, work = trained
    bare = strip(work / "iter_8.pth", tmp_path / "bare.pth")
    with pytest.raises(InputError, match=r"bare\.pth does not carry the config .* Name a config"):
        swin_dense.load(bare, device="cpu")
    demo = DEMO / "mask_rcnn_swin_nano.safetensors"
    with pytest.raises(InputError, match=r"It was trained with mask_rcnn_swin_nano\.py\."):
        swin_dense.load(demo, device="cpu")


def test_a_config_that_wants_more_than_parts_of_models(trained, tmp_path):
    """What a stranger could write into a file; nothing is built, the canary does not sing."""
    _, _, work = trained
    content, canary = files.read(work / "iter_8.pth"), tmp_path / "canary"
    model = {"type": "os.mkdir", "path": str(canary)}
    content["meta"]["config"]["values"]["model"] = model
    torch.save(dict(content), tmp_path / "hostile.pth")
    with pytest.raises(InputError, match=r"wants 'os\.mkdir' to be built"):
        swin_dense.load(tmp_path / "hostile.pth", device="cpu")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mask_rcnn_swin_t",), r"weights: a config alone .* got mask_rcnn_swin_t"),
        ((), r"weights: .* got neither"),
        (("work_dirs/nowhere",), r"there is no file or folder work_dirs/nowhere"),
        (("nowhere.pth",), r"there is no file nowhere\.pth"),
        (("mask_rcnn_swin_nona", "demo"), r"Did you mean 'mask_rcnn_swin_nano"),
        (("upernet_swin_nano", "demo"), r"does not fit this model"),
        (("mask_rcnn_swin_nano", "nowhere.pth"), r"there is no file nowhere\.pth"),
    ],
)
def test_what_does_not_fit_or_is_not_there(arguments, says):
    demo = str(DEMO / "mask_rcnn_swin_nano.safetensors")
    given = [demo if word == "demo" else word for word in arguments]
    with pytest.raises(InputError, match=rf"(?s){says}"):
        swin_dense.load(*given, device="cpu")


def test_a_device_that_is_not_there():
    with pytest.raises(InputError, match=r"device cuda:77 cannot be used here"):
        swin_dense.load("mask_rcnn_swin_nano", "any.pth", device="cuda:77")


def test_only_what_it_names():
    assert CONFIGS
    with pytest.raises(AttributeError, match=r"'swin_dense' has no attribute 'laod'"):
        swin_dense.laod  # noqa: B018
    assert {"load", "Instances", "LabelMap", "Segments"} <= set(dir(swin_dense))
