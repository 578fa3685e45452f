"""Files become arrays: colour order, orientation, and label values through the table."""

import copy

import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS as ROOT
from mmengine.registry import init_default_scope
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets.label_maps import IGNORE, LabelTable
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.data import transforms
from swin_dense.openmmlab.data.transforms import InstaBoost, LoadImage, LoadLabelMap, LoadSegments
from swin_dense.registry import DATASETS

RED, GREEN, BLUE = (250, 20, 10), (30, 240, 5), (15, 25, 230)


@pytest.fixture
def picture(tmp_path):
    """3 x 2 pixels: red, green, blue above black, white, red."""
    rows = [[RED, GREEN, BLUE], [(0, 0, 0), (255, 255, 255), RED]]
    path = tmp_path / "six.png"
    Image.fromarray(np.array(rows, np.uint8)).save(path)
    return path


def test_an_image_comes_blue_first(picture):
    results = LoadImage()({"img_path": str(picture)})
    image = results["img"]
    assert (image.shape, image.dtype) == ((2, 3, 3), np.uint8)
    assert image[0].tolist() == [list(colour[::-1]) for colour in (RED, GREEN, BLUE)]
    assert results["img_shape"] == results["ori_shape"] == (2, 3)
    assert image.flags["C_CONTIGUOUS"]


def test_an_array_in_rgb_is_taken_instead_of_the_file():
    array = np.array([[RED, BLUE]], np.uint8)
    results = LoadImage()({"img": array, "img_path": "nowhere.png"})
    assert results["img"].tolist() == [[list(RED[::-1]), list(BLUE[::-1])]]
    assert array.tolist() == [[list(RED), list(BLUE)]]  # the caller's array stays


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),  # a quarter turn clockwise makes it upright
        (8, lambda a: np.rot90(a)),
    ],
)
def test_orientation_tags_are_obeyed(tmp_path, picture, orientation, turn):
    stored = Image.open(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    results = LoadImage()({"img_path": str(tmp_path / "turned.png")})
    upright = turn(np.asarray(stored))
    assert np.array_equal(results["img"], upright[..., ::-1])
    assert results["img_shape"] == results["ori_shape"] == upright.shape[:2]


def test_a_damaged_image_is_named(tmp_path, picture):
    path = tmp_path / "half.png"
    path.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(InputError, match=r"half\.png"):
        LoadImage()({"img_path": str(path)})
    with pytest.raises(MissingInputError, match=r"gone\.png"):
        LoadImage()({"img_path": str(tmp_path / "gone.png")})


def load_map(path, table):
    return LoadLabelMap()({"seg_map_path": str(path), "label_table": table, "seg_fields": []})


def test_label_values_go_through_the_table(tmp_path):
    Image.fromarray(np.array([[0, 1, 2], [40, 9, 1]], np.uint8)).save(tmp_path / "map.png")
    table = LabelTable(("road", "sky"), {1: 0, 40: 0, 2: 1}, ignore=(0, 9))
    results = load_map(tmp_path / "map.png", table)
    assert results["gt_seg_map"].tolist() == [[IGNORE, 0, 1], [0, IGNORE, 0]]
    assert results["gt_seg_map"].dtype == np.uint8
    assert results["seg_fields"] == ["gt_seg_map"]


def test_a_palette_is_for_the_eye_only(tmp_path):
    image = Image.fromarray(np.array([[2, 0, 1]], np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([2, 0, 1])
    image.save(tmp_path / "map.png")
    results = load_map(tmp_path / "map.png", LabelTable(("a", "b", "c")))
    assert results["gt_seg_map"].tolist() == [[2, 0, 1]]


def test_a_value_outside_the_table_names_the_file(tmp_path):
    Image.fromarray(np.array([[0, 1, 7], [7, 1, 0]], np.uint8)).save(tmp_path / "odd.png")
    with pytest.raises(InputError, match=r"odd\.png: .* 7 \(2 pixels\)"):
        load_map(tmp_path / "odd.png", LabelTable(("road", "sky")))


def test_configs_find_them_by_name():
    for kind in (LoadImage, LoadLabelMap, LoadSegments, InstaBoost):
        assert isinstance(ROOT.build(dict(type=f"swin_dense.{kind.__name__}")), kind)


def test_label_maps_beside_instances_need_no_list_of_fields(tmp_path):
    Image.fromarray(np.array([[0, 182, 255]], np.uint8)).save(tmp_path / "map.png")
    table = LabelTable(tuple(f"value {i}" for i in range(183)))
    results = LoadLabelMap()({"seg_map_path": str(tmp_path / "map.png"), "label_table": table})
    assert results["gt_seg_map"].tolist() == [[0, 182, IGNORE]]


# Segments. Ids whose parts all count: 2, 3 * 256 and 4 * 65536.
PNG = np.array([[2, 2, 768, 0], [262144, 2, 768, 9], [262144, 5, 5, 9]])


def segments_of(tmp_path, **changes):
    """Things 2 and 768 of label 1, crowd 262144 of label 1, stuff 9 of label 3, 5 not chosen."""
    colours = np.stack([PNG % 256, PNG // 256 % 256, PNG // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "a.png")
    rows = [(2, 1, 0), (768, 1, 0), (262144, 1, 1), (9, 3, 0), (5, None, 0)]
    segments = [dict(id=i, label=n, isthing=n == 1, iscrowd=bool(c)) for i, n, c in rows]
    path = str(tmp_path / "a.png")
    results = dict(seg_map_path=path, img_path="a.jpg", ori_shape=(3, 4), segments=segments)
    return results | changes


def test_segments_become_masks_of_things_and_a_label_at_each_pixel(tmp_path):
    results = LoadSegments()(segments_of(tmp_path))
    assert results["gt_seg_map"].tolist() == [[1, 1, 1, IGNORE], [IGNORE, 1, 1, 3]] + [
        [IGNORE, IGNORE, IGNORE, 3]
    ]
    assert results["gt_seg_map"].dtype == np.uint8
    masks = results["gt_masks"].masks
    assert masks.tolist() == [(PNG == 2).tolist(), (PNG == 768).tolist()]
    assert results["gt_bboxes_labels"].tolist() == [1, 1]
    assert results["gt_bboxes"].tensor.tolist() == [[0, 0, 2, 2], [2, 0, 3, 2]]
    assert results["gt_ignore_flags"].tolist() == [False, False]


def test_an_image_of_stuff_alone(tmp_path):
    results = segments_of(tmp_path)
    for segment in results["segments"]:
        segment["isthing"] = False
    results = LoadSegments()(results)
    assert results["gt_masks"].masks.shape == (0, 3, 4)
    assert results["gt_bboxes"].tensor.shape == (0, 4)


def test_a_png_that_does_not_fit_its_image(tmp_path):
    with pytest.raises(InputError, match=r"it is 4x3, a\.jpg is 3x4"):
        LoadSegments()(segments_of(tmp_path, ori_shape=(4, 3)))
    results = segments_of(tmp_path)
    results["segments"].pop()
    with pytest.raises(InputError, match="1 ids are not listed: 5"):
        LoadSegments()(results)


# InstaBoost.

HEIGHT, WIDTH = 90, 131


def objects(ignored=()):
    """Three squares that no border cuts, and boxes that are not their extents."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    for i, x in enumerate((15, 55, 95)):
        masks[i, 40:60, x : x + 20] = 1
        image[masks[i] > 0] = 120 + 40 * i
    boxes = [[14.5, 39.5, 35.5, 60.5], [54.5, 39.5, 75.5, 60.5], [94.5, 39.5, 115.5, 60.5]]
    return dict(
        img=image,
        gt_masks=BitmapMasks(masks, HEIGHT, WIDTH),
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.array([5, 3, 4]),
        gt_ignore_flags=np.isin(np.arange(3), ignored),
    )


def boosted(results, seed=0, **changes):
    np.random.seed(seed)
    return InstaBoost(**{"prob": 1.0, **changes})(copy.deepcopy(results))


def extents(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boosted_boxes_are_the_extents_of_their_masks():
    before = objects()
    after = boosted(before)
    assert after["img"].shape == before["img"].shape
    assert after["gt_bboxes_labels"].tolist() == [5, 3, 4]
    masks = after["gt_masks"].masks
    assert after["gt_bboxes"].tensor.tolist() == [extents(mask) for mask in masks]
    for i, (mask, old) in enumerate(zip(masks, before["gt_masks"].masks, strict=True)):
        assert not np.array_equal(mask, old)
        assert 0.6 * old.sum() < mask.sum() < 1.5 * old.sum()
        inside = after["img"][mask > 0, 0]
        assert np.median(inside) == 120 + 40 * i
    assert not (after["img"][masks.any(0) == 0] > 119).any()


def test_ignored_objects_stay():
    before = objects(ignored=[1])
    after = boosted(before)
    assert np.array_equal(after["gt_masks"].masks[1], before["gt_masks"].masks[1])
    assert after["gt_bboxes"].tensor[1].tolist() == [54.5, 39.5, 75.5, 60.5]
    assert np.array_equal(after["img"][40:60, 55:75], before["img"][40:60, 55:75])
    assert not np.array_equal(after["gt_masks"].masks[0], before["gt_masks"].masks[0])
    assert after["gt_ignore_flags"].tolist() == [False, True, False]


def test_objects_without_a_pixel_stay():
    before = objects()
    before["gt_masks"].masks[0] = 0
    after = boosted(before)
    assert len(after["gt_masks"]) == 3
    assert after["gt_bboxes"].tensor[0].tolist() == [14.5, 39.5, 35.5, 60.5]


def test_an_object_that_is_covered_is_left_out(monkeypatch):
    def covering(image, masks, *_):
        return image, masks * np.array([1, 0, 1], np.uint8)[:, None, None], None

    monkeypatch.setattr(transforms.instaboost, "boosted", covering)
    after = boosted(objects())
    assert after["gt_bboxes_labels"].tolist() == [5, 4]
    assert after["gt_ignore_flags"].tolist() == [False, False]
    assert after["gt_bboxes"].tensor.tolist() == [[15, 40, 35, 60], [95, 40, 115, 60]]
    assert len(after["gt_masks"]) == 2


def test_half_of_the_images_are_boosted():
    before = objects()
    changed = [
        not np.array_equal(boosted(before, seed, prob=0.5)["img"], before["img"])
        for seed in range(60)
    ]
    assert 15 < sum(changed) < 45
    assert np.array_equal(boosted(before, prob=0.0)["img"], before["img"])


def test_a_seed_decides():
    before = objects()
    one, two, other = boosted(before, 1), boosted(before, 1), boosted(before, 2)
    assert np.array_equal(one["img"], two["img"])
    assert one["gt_bboxes"].tensor.equal(two["gt_bboxes"].tensor)
    assert not np.array_equal(one["img"], other["img"])


def test_label_maps_move_along():
    before = objects()
    before["gt_seg_map"] = np.full((HEIGHT, WIDTH), 9, np.uint8)
    for i, mask in enumerate(before["gt_masks"].masks):
        before["gt_seg_map"][mask > 0] = i
    after = boosted(before)
    left = before["gt_masks"].masks.any(0) & ~after["gt_masks"].masks.any(0)
    assert left.any()
    assert set(after["gt_seg_map"][left].tolist()) == {IGNORE}
    for i, mask in enumerate(after["gt_masks"].masks):
        values = after["gt_seg_map"][mask > 0]
        assert (values == i).mean() > 0.9
        assert set(values.tolist()) <= {i, IGNORE}


def test_polygons_become_bitmaps():
    before = objects()
    square = np.array([15.0, 40, 35, 40, 35, 60, 15, 60])
    polygons = [[square + [40 * i, 0] * 4] for i in range(3)]
    after = boosted(dict(before, gt_masks=PolygonMasks(polygons, HEIGHT, WIDTH)))
    assert isinstance(after["gt_masks"], BitmapMasks)
    expected = boosted(before)
    assert np.array_equal(after["gt_masks"].masks, expected["gt_masks"].masks)


def test_an_image_without_objects():
    before = objects()
    none = dict(
        img=before["img"],
        gt_masks=BitmapMasks(np.zeros((0, HEIGHT, WIDTH), np.uint8), HEIGHT, WIDTH),
        gt_bboxes=HorizontalBoxes(np.zeros((0, 4), np.float32)),
        gt_bboxes_labels=np.zeros(0, np.int64),
        gt_ignore_flags=np.zeros(0, bool),
    )
    after = boosted(none)
    assert np.array_equal(after["img"], before["img"])
    assert len(after["gt_bboxes"]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        dict(prob=1.5),
        dict(prob=None),
        dict(zoom=(1.2, 0.8)),
        dict(zoom=(0, 1)),
        dict(zoom=1.0),
        dict(zoom=(1,)),
        dict(turn=-1),
        dict(turn="x"),
    ],
)
def test_wrong_arguments_of_instaboost(changes):
    key = next(iter(changes))
    with pytest.raises(InputError, match=rf"{key}=.* defaults") as raised:
        InstaBoost(**changes)
    assert f"{key}={changes[key]!r}" in str(raised.value)


@pytest.mark.parametrize("without", ["colours", "masks", "bytes"])
def test_instaboost_says_what_it_needs(without):
    given = objects()
    if without == "masks":
        del given["gt_masks"]
    elif without == "colours":
        given["img"] = given["img"][..., 0]
    else:
        given["img"] = given["img"].astype(np.float32)
    with pytest.raises(InputError, match=r"Put it behind LoadImage and LoadAnnotations"):
        InstaBoost(prob=1.0)(given)


def test_real_images_are_boosted(real_data):
    """Crowds stay, masks and boxes agree, nothing changes its size, and the pipeline goes on."""
    init_default_scope("mmdet")
    loading = [
        dict(type="swin_dense.LoadImage"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    ]
    rest = [
        dict(type="swin_dense.InstaBoost", prob=1.0),
        dict(type="RandomResize", scale=[(1600, 400), (1600, 1400)], keep_ratio=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackDetInputs"),
    ]
    found = DATASETS.build(
        dict(
            type="swin_dense.CocoInstances",
            data_root=str(real_data("coco_mini")),
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017"),
            pipeline=loading,
        )
    )
    crowds = moved = 0
    for i in range(0, len(found), 4):
        before = found[i]
        after = boosted(before, seed=i)
        assert after["img"].shape == before["img"].shape
        masks, boxes = after["gt_masks"].masks, after["gt_bboxes"].tensor
        assert masks.shape[1:] == before["img"].shape[:2]
        assert len(masks) == len(boxes) == len(after["gt_bboxes_labels"])
        for mask, box, crowd in zip(masks, boxes, after["gt_ignore_flags"], strict=True):
            if crowd:
                crowds += 1
                assert any(np.array_equal(mask, old) for old in before["gt_masks"].masks)
            elif mask.any():
                moved += 1
                assert box.tolist() == extents(mask)
        Compose(rest)(copy.deepcopy(before))
    assert moved > 50
    assert crowds > 0
