"""The zoo's page from rows made by hand."""

import dataclasses

import pytest

from swin_dense.report import zoo
from swin_dense.report.zoo import Authors, Row

AUTHORS = Authors("their paper", {"box AP": 46.0, "mask AP": 41.65}, 48, 267)
ROW = Row(
    "mask_x", "COCO", "Mask X, small", "ImageNet-1K", 47_800_000, 263_000_000_000, "", {}, AUTHORS
)


def changed(row=ROW, authors=None, **fields):
    theirs = dataclasses.replace(row.authors, **authors) if authors else row.authors
    return dataclasses.replace(row, authors=theirs, **fields)


def cells(page, name):
    (line,) = [line for line in page.splitlines() if line.startswith(f"| [{name}]")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_counts_that_agree_are_no_problem():
    assert zoo.problems([ROW]) == []
    assert zoo.problems([changed(parameters=48_480_000, flops=275_000_000_000)]) == []
    assert zoo.problems([dataclasses.replace(ROW, authors=None)]) == []
    nothing = Authors("a blog", {"box AP": 46.0})
    assert zoo.problems([dataclasses.replace(ROW, authors=nothing)]) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(parameters=47_500_000), "mask_x: 47.50 M parameters for 48, and `differs` does"),
        (changed(flops=276_000_000_000), "mask_x: 276.00 G FLOPs for 267, and `differs` does not"),
        (changed(authors=dict(differs="why")), "mask_x: the counts agree, but `differs` speaks"),
        (changed(authors=dict(weights="https://there")), "mask_x: the weights have no licence"),
    ],
)
def test_counts_that_do_not_agree_must_say_why(row, message):
    (found,) = zoo.problems([ROW, row])
    assert found.startswith(message)
    if "differs" not in message or "agree" in message:
        return
    assert zoo.problems([changed(row, authors=dict(differs="another head"))]) == []


def test_a_row_shows_both_sides():
    page = zoo.page([ROW], "# Zoo\n")
    assert cells(page, "mask_x") == [
        "[mask_x](../configs/mask_x.py)",
        "Mask X, small",
        "ImageNet-1K",
        "47.8",
        "48",
        "263",
        "267",
        "46.0 box AP, 41.65 mask AP",
        "-",
        "-",
    ]
    assert page.startswith("# Zoo\n\n## COCO\n\n| config |")
    assert "- their paper: `mask_x`" in page


def test_what_is_ours_and_what_is_linked():
    row = changed(
        authors=dict(weights="https://there/x.pth", licence="MIT"),
        results={"mIoU": 84.7536},
        counted="640x640",
        flops=2_040_000_000,
    )
    found = cells(zoo.page([row], "# Zoo"), "mask_x")
    assert found[5] == "2.0 (640x640)"
    assert found[8:] == ["84.75 mIoU", "[MIT](https://there/x.pth)"]


def test_rows_without_authors_have_dashes():
    found = cells(zoo.page([dataclasses.replace(ROW, authors=None, start="")], "# Zoo"), "mask_x")
    assert [found[i] for i in (2, 4, 6, 7, 8, 9)] == ["-"] * 6


def test_groups_and_remarks():
    other = changed(name="mask_y", group="ADE20K", authors=dict(differs="it counts twice: 2 x 3"))
    third = changed(other, name="mask_z", group="COCO")
    page = zoo.page([ROW, other, third], "# Zoo")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## COCO",
        "## ADE20K",
        "## Remarks",
        "## Where their numbers are from",
    ]
    assert "- `mask_y`, `mask_z`: it counts twice: 2 x 3\n" in page
    assert "- their paper: `mask_x`, `mask_y`, `mask_z`\n" in page
    lines = page.splitlines()
    assert lines.index("## COCO") < lines.index(next(x for x in lines if "mask_z]" in x))
    assert lines.index(next(x for x in lines if "mask_z]" in x)) < lines.index("## ADE20K")
