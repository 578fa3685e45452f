"""A large image looked at in tiles: one result, of which the tiles cannot be told.

The model is one whose answer is known: it takes bright pixels for objects, and their connected
parts for one each, so that the whole image says what is right.
"""

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config

from swin_dense.datasets.sources import Picture
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import blending, grid, large, seams
from swin_dense.report.masks import Crop, Masks
from swin_dense.report.results import Instances
from swin_dense.task import Task


class Threshold:
    """Stands for a `Predictor`: finds bright parts, red ones of class 0, others of class 1."""

    classes = ("red", "grey")
    config = Config({"model": {"test_cfg": None}})

    def __init__(self, task=Task.INSTANCES, masks=True):
        self.task, self.masks, self.seen = task, masks, []

    def least(self, score):
        return 0.3

    def samples(self, source, batch):
        for picture in source:
            assert isinstance(picture, Picture)
            rgb = picture.read()
            self.seen.append(rgb.shape)
            yield picture, rgb, (self._sample(rgb),)

    def _sample(self, rgb):
        logits = np.stack([rgb[..., 0], 255.0 - rgb[..., 0]]).astype(np.float32) / 10
        return SimpleNamespace(seg_logits=SimpleNamespace(data=torch.from_numpy(logits)))

    def result(self, samples, rgb, least):
        return parts(rgb, self.classes, self.masks)


def parts(rgb, classes=("red", "grey"), with_masks=True):
    """Connected bright parts of an image as its objects."""
    count, owner = cv2.connectedComponents((rgb[..., 0] > 127).astype(np.uint8))
    masks = Masks.of(np.stack([owner == k for k in range(1, count)]) if count > 1 else EMPTY)
    boxes = [
        (c.left, c.top, c.left + c.pixels.shape[1], c.top + c.pixels.shape[0]) for c in masks.crops
    ]
    labels = [int(rgb[c.place][c.pixels][0, 1] > 127) for c in masks.crops]
    return Instances(
        image=rgb,
        classes=classes,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, count - 1, dtype=np.float32),
        labels=np.array(labels, np.int64),
        masks=masks if with_masks else None,
    )


EMPTY = np.zeros((0, 1, 1), bool)


def canvas():
    """Objects smaller than the overlap, as large as a tile, across four and across all tiles."""
    rgb = np.zeros((331, 407, 3), np.uint8)
    rng = np.random.default_rng(3)
    for y in range(9, 331, 37):
        for x in range(11, 407, 41):
            colour = (255, 255, 255) if rng.random() < 0.5 else (255, 0, 0)
            cv2.circle(rgb, (x, y), int(rng.integers(2, 9)), colour, -1)
    cv2.circle(rgb, (150, 140), 62, (0, 0, 0), -1)
    cv2.circle(rgb, (150, 140), 58, (255, 0, 0), -1)  # across four tiles and more
    cv2.rectangle(rgb, (2, 300), (404, 316), (0, 0, 0), -1)
    cv2.rectangle(rgb, (4, 304), (401, 311), (255, 255, 255), -1)  # through all columns
    return rgb


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, canvas(), photometric="rgb", compression="zlib", rowsperstrip=23)
    return path


def key(result):
    """The objects as a set: class, and the pixels of the mask."""
    return {
        (label, crop.top, crop.left, crop.pixels.shape, crop.pixels.tobytes())
        for label, crop in zip(result.labels.tolist(), result.masks.crops, strict=True)
    }


@pytest.mark.parametrize(("tile", "overlap"), [(96, 24), (96, 40), (128, 70), (67, 30), (500, 20)])
def test_objects_are_those_of_the_whole_image_whatever_the_tiles(image, tile, overlap):
    found = large.predict(Threshold(), image, tile=tile, overlap=overlap)
    assert key(found) == key(parts(canvas()))
    assert len(found) == len(parts(canvas()))  # none twice
    assert (np.diff(found.scores) <= 0).all()
    assert found.size == (331, 407)
    assert np.array_equal(found.image, canvas())


def test_boxes_alone_are_joined_too(image):
    found = large.predict(Threshold(masks=False), image, tile=96, overlap=40)
    assert found.masks is None
    expected = parts(canvas()).boxes
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(map(tuple, expected.tolist()))


def test_a_label_map_is_that_of_the_whole_image_and_grows_on_disk(image, tmp_path):
    whole = (canvas()[..., 0] < 128).astype(np.uint8)
    held = large.predict(Threshold(Task.SEMANTIC), image, tile=96, overlap=30)
    assert np.array_equal(held.labels, whole)
    out = tmp_path / "new" / "labels.tif"
    written = large.predict(Threshold(Task.SEMANTIC), image, tile=70, overlap=50, label_map=out)
    assert np.array_equal(written.labels, whole)
    assert np.array_equal(tifffile.imread(out), whole)
    assert [(row.name, row.area) for row in written] == [
        ("red", int((whole == 0).sum())),
        ("grey", int(whole.sum())),
    ]
    assert not list(out.parent.glob(".*"))


def test_blended_probabilities_are_the_weighted_mean_of_all_tiles():
    """A scalar sum over every tile that sees a pixel says what is right."""
    rng = np.random.default_rng(5)
    for tile, overlap, size in ((40, 13, (97, 71)), (35, 30, (61, 50)), (64, 20, (50, 200))):
        tiles = grid.lay(size, tile, overlap)
        total = np.zeros((3, *size))
        labels = np.full(size, 9, np.uint8)
        blend = blending.Blend(tiles, labels)
        for i, j in tiles:
            left, top, right, bottom = tiles.frame(i, j)
            found = rng.random((3, bottom - top, right - left), np.float32)
            weight = np.outer(
                weights(tiles.rows, bottom - top, i), weights(tiles.columns, right - left, j)
            )
            total[:, top:bottom, left:right] += found * weight
            blend.add(i, j, torch.from_numpy(found))
        first, second = np.sort(total, 0)[::-1][:2]
        sure = first - second > 0.004 * first  # 16 bits are held
        assert sure.mean() > 0.95
        assert np.array_equal(labels[sure], total.argmax(0)[sure])


def weights(begins, length, k):
    """Rise from the border with the tile before, and fall to that with the next."""
    found = []
    for at in range(length):
        rise = fall = 1.0
        if k:
            rise = min(1, (at + 0.5) / (begins[k - 1] + length - begins[k]))
        if k + 1 < len(begins):
            fall = min(1, (length - at - 0.5) / (begins[k] + length - begins[k + 1]))
        found.append(min(rise, fall))
    return found


def put(rows, tile=100, overlap=40):
    """Join boxes filled with pixels: (tile, label, score, left, top, right, bottom)."""
    joiner = seams.Seams(grid.Grid((100, 220), (tile, tile), (0,), (0, 60, 120)))
    for column, label, score, left, top, right, bottom in rows:
        mask = Crop(top, left, np.ones((bottom - top, right - left), bool))
        joiner.add((0, column), [seams.Found(label, score, (left, top, right, bottom), mask)])
    return [(one.label, round(one.score, 3), tuple(one.sides)) for one in joiner.joined()]


def test_the_tile_that_sees_an_object_best_decides():
    # Tiles see columns 0-100, 60-160, 120-220; cells meet at 80 and at 140.
    assert put([(0, 1, 0.5, 20, 9, 40, 30), (1, 1, 0.9, 60, 9, 70, 30)]) == [
        (1, 0.5, (20, 9, 40, 30))  # the second is cut, and the first tile sees nothing there
    ]
    assert put([(0, 1, 0.5, 70, 9, 90, 30), (1, 1, 0.9, 71, 9, 91, 30)]) == [
        (1, 0.9, (71, 9, 91, 30))  # both see it whole: the surer
    ]
    twice = [(0, 1, 0.8, 70, 9, 90, 30), (1, 0, 0.7, 71, 9, 91, 30)]
    assert len(put(twice)) == 2  # of two classes
    parts = [(0, 1, 0.6, 20, 9, 100, 30), (1, 1, 0.9, 60, 9, 120, 30)]
    assert put(parts) == [(1, round((0.6 * 80 + 0.9 * 60) / 140, 3), (20, 9, 120, 30))]
    apart = [(0, 1, 0.6, 20, 9, 100, 30), (1, 1, 0.9, 60, 31, 120, 52)]
    assert len(put(apart)) == 2  # neighbours that touch nowhere


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"tile": 31}, "`tile`: a whole number of pixels from 32, got 31"),
        ({"tile": 64.0}, "`tile`: a whole number"),
        ({"tile": 64, "overlap": 64}, "`overlap`: 64 pixels are not less than a tile's 64"),
        ({"tile": 64, "overlap": -1}, "`overlap`: a whole number of pixels from 0, got -1"),
        ({"tile": 64, "most_pixels": 9}, "407x331 pixels are 134,717, at most 9 are looked at"),
        ({"tile": 64, "level": 1}, "`level` 1: "),
        ({"tile": 64, "label_map": "labels.tif"}, "`label_map`: this model finds objects"),
    ],
)
def test_what_means_nothing_is_one_message(image, how, text):
    with pytest.raises(InputError, match=re.escape(text)):
        large.predict(Threshold(), image, **how)


def test_segments_are_refused_and_the_image_is_not_replaced(image):
    with pytest.raises(InputError, match="those of tiles cannot be joined"):
        large.predict(Threshold(Task.PANOPTIC), image)
    with pytest.raises(InputError, match="this is the image itself"):
        large.predict(Threshold(Task.SEMANTIC), image, tile=64, label_map=image)


def test_one_pixel_and_nothing_found(tmp_path):
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, np.full((1, 1, 3), 255, np.uint8), photometric="rgb")
    assert len(large.predict(Threshold(), path, tile=64)) == 1
    tifffile.imwrite(path, np.zeros((90, 70, 3), np.uint8), photometric="rgb")
    found = large.predict(Threshold(), path, tile=64)
    assert len(found) == 0
    assert found.masks.shape == (0, 90, 70)
    assert found.to_geojson()["features"] == []


def test_a_large_image_is_shown_small(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "OVERVIEW", 100)
    path = tmp_path / "image.tif"
    rgb = canvas()
    tifffile.imwrite(path, rgb, photometric="rgb")
    done = []
    found = large.predict(Threshold(), path, tile=96, tell=lambda *of: done.append(of))
    assert found.whole == found.size == (331, 407)
    assert (found.factor, found.image.shape) == (5, (67, 82, 3))
    blocks = np.pad(rgb, ((0, 4), (0, 3), (0, 0)), mode="edge").reshape(67, 5, 82, 5, 3)
    assert np.abs(found.image - blocks.mean((1, 3))).max() <= 0.51
    assert found.draw().shape[0] >= 67
    assert done[-1] == (len(done), len(done))
    segments = large.predict(Threshold(Task.SEMANTIC), path, tile=96)
    assert segments.draw().shape[1] > 82


def test_tiles_that_are_full_are_told(image):
    model = Threshold()
    model.config = Config({"model": {"test_cfg": {"rcnn": {"max_per_img": 3}}}})
    told = []
    large.predict(model, image, tile=96, note=told.append)
    assert "tiles have 3 objects, the most that the config lets a tile have" in told[0]
