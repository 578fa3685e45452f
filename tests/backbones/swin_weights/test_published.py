"""The table of the authors' weights agrees with itself: names tell size, window and data."""

import re

import pytest

from swin_dense.backbones.swin_weights import published
from swin_dense.checkpoints import architecture, downloads

ALL = [file for files in published.FILES.values() for file in files]
BY_NAME = {file.name: file for file in ALL}


@pytest.mark.parametrize("weights", ALL, ids=lambda w: w.name)
def test_a_row_says_what_its_name_says(weights):
    # swin_base_patch4_window12_384_22k, swinv2_base_patch4_window12to16_192to256_22kto1k_ft
    sizes = re.fullmatch(
        r"swin(?:v2)?_(?:tiny|small|base|large)_patch4_window(?:\d+to)?(\d+)_(?:\d+to)?(\d+)"
        r"(_22k|_22kto1k(?:_finetune|_ft)?)?",
        weights.name,
    )
    assert sizes is not None
    assert (weights.window, weights.image_size) == (int(sizes[1]), int(sizes[2]))
    data = {"": published.ONE, "_22k": published.MORE}.get(sizes[3] or "", published.BOTH)
    assert weights.trained_on == data
    assert (weights.top1 is None) == (data == published.MORE)
    assert weights.top1 is None or 80 < weights.top1 < 90
    releases = r"https://github.com/SwinTransformer/storage/releases/download/v[12]\.0\.[08]/"
    assert re.fullmatch(releases + weights.name + r"\.pth", weights.url)
    assert weights.file == f"{weights.name}.pth"
    assert ("/v2.0.0/" in weights.url) == weights.name.startswith("swinv2")
    assert weights.sha256 is None or re.fullmatch("[0-9a-f]{64}", weights.sha256)
    assert weights.licence == "MIT"


def test_all_are_found_by_their_names():
    known = architecture.published()
    assert all(known[name] is file for name, file in BY_NAME.items())


def test_no_row_comes_twice():
    assert len(BY_NAME) == len(ALL)
    hashes = [w.sha256 for w in ALL if w.sha256]
    assert len(set(hashes)) == len(hashes)


def test_each_size_of_each_version_is_there():
    for version in ("swin", "swinv2"):
        sizes = ("tiny", "small", "base") + ("large",)
        for size in sizes:
            assert any(name.startswith(f"{version}_{size}_") for name in BY_NAME)


def test_a_misspelt_name_gets_a_hint():
    assert "'swin_tiny_patch4_window7_224'" in downloads.hint("swin_tiny_patch4_window_224")
    assert downloads.hint("epoch_12.pth") == ""
