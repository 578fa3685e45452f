"""The demo on every kind of image, and on one that cannot be read."""

import json

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image

from swin_dense.cli import image_demo

SCALE = SMALL[:2]


@pytest.fixture
def images(tmp_path, small_shapes):
    """The same picture as colour, grey, transparent, 16-bit and turned by EXIF."""
    folder = tmp_path / "images"
    folder.mkdir()
    picture = Image.open(next(small_shapes.image_dir("val").iterdir())).convert("RGB")
    picture.save(folder / "colour.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("RGBA").save(folder / "clear.png")
    wide = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(folder / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    return folder


def test_each_kind_gives_an_overlay_and_a_json(trained, images, tmp_path):
    task, config, work = trained
    out = tmp_path / "drawn"
    arguments = [str(images), str(config), str(work / "iter_8.pth"), "--out-dir", str(out)]
    least = ["--score-thr", "0.0"] if task == "detection" else []
    assert image_demo.main([*arguments, *least, *SCALE]) == 0
    for name in ("colour", "grey", "clear", "wide", "turned"):
        content = json.loads((out / f"{name}.json").read_text())
        assert (content["height"], content["width"]) == (72, 104), name
        drawn = Image.open(out / f"{name}.png")
        if task == "detection":
            assert drawn.size == (6 * 104, 6 * 72)
            for row in content["instances"]:
                assert row["mask"]["size"] == [72, 104]
                assert 0 <= row["score"] <= 1
                assert len(row["box"]) == 4
        else:
            assert drawn.width > 6 * 104
            assert sum(content["label_map"]["lengths"]) == 72 * 104
            assert sum(content["classes"].values()) == 72 * 104
    same = [json.loads((out / f"{n}.json").read_text()) for n in ("colour", "clear")]
    assert same[0] | {"image": ""} == same[1] | {"image": ""}


def test_an_unreadable_image_is_named_and_skipped(trained, images, tmp_path, capsys):
    _, config, work = trained
    data = (images / "turned.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(data[: len(data) // 2])
    (images / "empty.png").write_bytes(b"")
    out = tmp_path / "drawn"
    arguments = [str(images), str(config), str(work / "iter_8.pth"), "--out-dir", str(out), *SCALE]
    assert image_demo.main(arguments) == 1
    printed = capsys.readouterr()
    assert "cut.jpg" in printed.err
    assert "empty.png" in printed.err
    assert "2 of 7 images were skipped" in printed.err
    assert len(list(out.glob("*.png"))) == 5
    assert not list(out.glob(".*"))


def test_equal_stems_do_not_overwrite_one_another(trained, images, tmp_path):
    _, config, work = trained
    for path in images.iterdir():
        if path.name != "colour.png":
            path.unlink()
    Image.open(images / "colour.png").save(images / "colour.jpg")
    out = tmp_path / "drawn"
    arguments = [str(images), str(config), str(work / "iter_8.pth"), "--out-dir", str(out), *SCALE]
    assert image_demo.main(arguments) == 0
    assert {p.name for p in out.glob("*.png")} == {"colour_png.png", "colour_jpg.png"}


def test_a_run_needs_no_config_and_no_scale(trained, small_shapes, tmp_path):
    """Its checkpoint carries both: what is found is what the whole command line finds."""
    task, config, work = trained
    image = str(small_shapes.image_dir("val") / "000002.png")
    place, file = str(work), str(work / "iter_8.pth")
    least = ["--score-thr", "0.0"] if task == "detection" else []
    for folder, words in (
        ("short", [image, "--out-dir", str(tmp_path / "short"), place]),
        ("long", [image, str(config), "--out-dir", str(tmp_path / "long"), file, *SCALE]),
    ):
        assert image_demo.main([*words, *least, "--device", "cpu"]) == 0
        assert (tmp_path / folder / "000002.png").is_file()
    short, long = (
        json.loads((tmp_path / f / "000002.json").read_text()) for f in ("short", "long")
    )
    assert short == long
    assert short["weights"]["file"] == file


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--score-thr", "30"], "a number from 0 to 1, not '30'"),
        (["--score-thr", "0.5"], "--score-thr: this model gives a class to every pixel"),
        (["--device", "cuda:77"], "device cuda:77 cannot be used here"),
    ],
)
def test_what_cannot_be_asked_for(trained, small_shapes, tmp_path, capsys, more, says):
    task, _, work = trained
    if task == "detection" and "0.5" in more:
        pytest.skip("a detector has scores")
    words = [str(small_shapes.image_dir("val")), str(work), "--out-dir", str(tmp_path / "o"), *more]
    try:
        status = image_demo.main(words)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
