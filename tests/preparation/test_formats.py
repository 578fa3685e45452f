"""Which format a folder is in."""

import pytest
from exports import cvat, labelme, voc, yolo
from hotcoco import COCO

from swin_dense.errors import InputError
from swin_dense.preparation import formats


@pytest.mark.parametrize("write", [yolo, voc, labelme, cvat])
def test_a_format_is_recognised(tmp_path, write):
    assert formats.recognised(write(tmp_path)) == write.__name__


def test_two_formats_in_one_folder_are_told(tmp_path):
    yolo(tmp_path)
    labelme(tmp_path)
    with pytest.raises(InputError, match=r"could be labelme \(a\.json\), yolo \(data\.yaml\)"):
        formats.recognised(tmp_path)


def test_none_is_told(tmp_path):
    with pytest.raises(InputError, match="none of the known formats"):
        formats.recognised(tmp_path)


def test_hotcoco_leaves_out_what_ours_reads(tmp_path):
    """The reason for readers of our own: if this fails, look whether they may go."""
    with pytest.raises(ValueError, match="expected 5 fields"):
        labels = yolo(tmp_path / "y", ["1 0.1 0.2 0.5 0.2 0.5 0.6"]) / "labels"
        (labels / "data.yaml").write_text("names: [cat, dog]\n")
        COCO.from_yolo(str(labels), str(labels.parent / "images"))
    mask = '<mask label="cat" rle="2, 3, 4" left="10" top="20" width="3" height="3"/>'
    with pytest.warns(UserWarning, match="skipped 6 unsupported"):
        COCO.from_cvat(str(cvat(tmp_path / "c", mask) / "annotations.xml"))
