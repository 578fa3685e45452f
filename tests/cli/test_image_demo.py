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
    assert image_demo.main([*arguments, "--score-thr", "0.0", *SCALE]) == 0
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


def test_run_lengths_restore_the_map():
    labels = np.array([[2, 2, 0], [0, 0, 1]])
    runs = image_demo.run_lengths(labels)
    assert np.repeat(runs["values"], runs["lengths"]).tolist() == labels.ravel().tolist()
    assert runs["lengths"] == [2, 3, 1]


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
