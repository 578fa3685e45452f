"""Cityscapes: label maps and objects, of its PNGs and of its polygons, by hand."""

import json

import numpy as np
import pytest
from exports import read
from PIL import Image


def cityscapes(root, pngs=True):
    """One image of 12x20 for each part: road, a car over it, a group of cars, sky."""
    for part in ("train", "val"):
        stem = f"{part}/ulm/ulm_000000_000019"
        image = root / f"leftImg8bit/{stem}_leftImg8bit.png"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (20, 12)).save(image)
        base = root / f"gtFine/{stem}_gtFine"
        base.parent.mkdir(parents=True)
        ids = np.zeros((12, 20), np.uint16)  # instanceIds
        ids[5:11, 1:19] = 7
        ids[6:9, 2:5] = 26000
        ids[7:10, 10:16] = 26
        ids[0:3, :] = 23
        if pngs:
            Image.fromarray(ids).save(f"{base}_instanceIds.png")
            kinds = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
            Image.fromarray(kinds).save(f"{base}_labelIds.png")
        boxes = (("road", 1, 5, 18, 10), ("car", 2, 6, 4, 8), ("cargroup", 10, 7, 15, 9))
        boxes += (("sky", 0, 0, 19, 2),)
        objects = [
            {"label": name, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]}
            for name, left, top, right, bottom in boxes
        ]
        content = {"imgHeight": 12, "imgWidth": 20, "objects": objects}
        (base.parent / f"{base.name}_polygons.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("pngs", [True, False])
def test_label_maps_of_cityscapes(tmp_path, pngs):
    """The 19 classes in the authors' order: road 0, sky 10, car 13; all else is not judged."""
    gathered = read("cityscapes", cityscapes(tmp_path, pngs))
    assert [(p.name, p.part) for p in gathered.pictures] == [
        ("ulm/ulm_000000_000019.png", "train"), ("ulm/ulm_000000_000019.png", "val"),
    ]  # fmt: skip
    labels = gathered.pictures[0].labels()
    expected = np.full((12, 20), 255)
    expected[5:11, 1:19] = 0
    expected[6:9, 2:5] = expected[7:10, 10:16] = 13
    expected[0:3, :] = 10
    np.testing.assert_array_equal(labels, expected)
    assert (gathered.table[0], gathered.table[10], gathered.table[13]) == ("road", "sky", "car")


@pytest.mark.parametrize("pngs", [True, False])
def test_objects_of_cityscapes(tmp_path, pngs):
    gathered = read("cityscapes", cityscapes(tmp_path, pngs), task="instances")
    things = sorted(gathered.pictures[1].things, key=lambda t: t.box)
    assert [(t.label, t.box, t.crowd) for t in things] == [
        ("car", (2, 6, 3, 3), False), ("car", (10, 7, 6, 3), True),
    ]  # fmt: skip
