"""Tables of numbers, compared character by character."""

from swin_dense.report import tables


def test_grid_aligns_to_the_widest_cell():
    assert tables.grid(["", "bbox"], [["AP", "0.5"], ["AP_small", "-"]]) == (
        "          bbox\n--------------\nAP         0.5\nAP_small     -"
    )


def test_box_and_mask_stand_side_by_side():
    text = tables.overall({"bbox_AP": 0.5, "bbox_AP50": -1.0, "segm_AP": 0.25})
    assert text.splitlines()[0].split() == ["bbox", "segm"]
    assert text.splitlines()[2].split() == ["AP", "0.500", "0.250"]
    assert text.splitlines()[3].split() == ["AP50", "-", "-"]


def test_percent_is_not_shown_as_a_fraction():
    assert "81.25" in tables.overall({"mIoU": 81.25})
    assert "nan" not in tables.by_class({"sky": {"IoU": float("nan")}})


def test_by_class_takes_classes_without_a_number():
    text = tables.by_class({"cat": {"bbox_AP": 0.1}, "dog": {}})
    assert text.splitlines()[-1].split() == ["dog", "-"]


def test_panoptic_quality_has_a_column_for_things_and_one_for_stuff():
    numbers = {"PQ": 40.0, "PQ_th": 50.0, "PQ_st": float("nan"), "SQ": 80.125, "RQ": 50.0}
    assert tables.overall(numbers) == (
        "      all  things  stuff\n"
        "------------------------\n"
        "PQ  40.00   50.00      -\n"
        "SQ  80.12       -      -\n"
        "RQ  50.00       -      -"
    )
    assert "100.00" in tables.by_class({"cat": {"PQ": 100.0}})
