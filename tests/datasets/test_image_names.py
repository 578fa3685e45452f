"""Names of images and the files they can mean."""

import unicodedata

import pytest

from swin_dense.datasets.image_names import find

ACCENT = "café.jpg"


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def codes(names):
    return [finding.kind.code for finding in names.findings]


CASES = [
    ("a.jpg", "a.jpg", []),
    ("deep/a.jpg", "deep/a.jpg", []),
    ("deep\\a.jpg", "deep/a.jpg", ["file-name-backslash"]),
    ("images\\a.jpg", "a.jpg", ["file-name-backslash"]),
    ("C:\\data\\a.jpg", "a.jpg", ["file-name-backslash"]),
    ("deep\\a.JPG", "deep/a.jpg", ["file-name-backslash", "file-name-suffix-case"]),
    ("a.JPG", "a.jpg", ["file-name-suffix-case"]),
    ("a.jpg", "a.JPG", ["file-name-suffix-case"]),
    (
        unicodedata.normalize("NFD", ACCENT),
        unicodedata.normalize("NFC", ACCENT),
        ["file-name-unicode-form"],
    ),
    (
        unicodedata.normalize("NFC", ACCENT),
        unicodedata.normalize("NFD", ACCENT),
        ["file-name-unicode-form"],
    ),
]


@pytest.mark.parametrize(("name", "file", "expected"), CASES)
def test_the_one_file_that_fits_is_taken_and_said(tmp_path, name, file, expected):
    names = find(made(tmp_path, file, "other.jpg"), [name, "other.jpg"])
    assert names.files == [file, "other.jpg"]
    assert codes(names) == expected
    assert all(finding.ids == (name,) for finding in names.findings)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["A.jpg"], ["a.jpg"]),  # another name
        (["a.png"], ["a.jpg"]),  # another format
        (["a.Jpg"], ["a.jpg", "a.JPG"]),  # two fit
        (["a.jpg", "a.JPG"], ["a.jpg"]),  # it is another entry's
        (["deep/a.jpg"], ["a.jpg"]),  # it may be one of another folder
    ],
)
def test_what_may_mean_another_file_is_absent(tmp_path, names, files):
    found = find(made(tmp_path, *files), names)
    assert found.files == names
    assert codes(found) == ["image-absent"]


def test_a_back_slash_may_be_part_of_a_name(tmp_path):
    found = find(made(tmp_path, "a\\b.jpg", "a/b.jpg"), ["a\\b.jpg", "a/b.jpg"])
    assert (found.files, found.findings) == (["a\\b.jpg", "a/b.jpg"], [])


def test_separators_of_windows_are_named(tmp_path):
    (absent,) = find(made(tmp_path, "b.jpg"), ["x\\a.jpg"]).findings
    assert "separators of Windows" in absent.fix


def test_images_that_are_listed_twice_or_not_at_all(tmp_path):
    made(tmp_path, "a.jpg", "b.png", "c/d.jpg", "c/e.JPG", "notes.txt", "unseen/f.jpg")
    found = find(tmp_path, ["a.jpg", "a.jpg", "c/d.jpg"])
    assert codes(found) == ["image-listed-twice", "image-not-listed"]
    assert [finding.ids for finding in found.findings] == [("a.jpg",), ("b.png", "c/e.JPG")]


def test_a_folder_that_is_not_there(tmp_path):
    assert codes(find(tmp_path / "x", ["a.jpg"])) == ["image-folder-absent"]
    assert codes(find(tmp_path, [])) == ["images-none"]
