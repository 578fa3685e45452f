"""Files become arrays: colour order, orientation, and label values through the table."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS as ROOT
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets.label_maps import IGNORE, LabelTable
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.transforms import LoadImage, LoadLabelMap, LoadSegments

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
    for kind in (LoadImage, LoadLabelMap):
        assert isinstance(ROOT.build(dict(type=f"swin_dense.{kind.__name__}")), kind)


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
