"""Images that an annotation file names, and what is in their folder: which file is which.

Names that differ from a file only in what an operating system changes on the way (separators, the
case of a suffix, the Unicode form of a letter) are matched where one file alone fits.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from swin_dense.datasets.coco_json import repeated
from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, kind
from swin_dense.datasets.images import SUFFIXES
from swin_dense.datasets.paths import first_names

NO_IMAGES = kind(
    "images-none", ERROR, "The list of images has entries.", "There is nothing to train on."
)
FOLDER_ABSENT = kind(
    "image-folder-absent",
    ERROR,
    "The images lie in the folder that is named.",
    "None of them can be read.",
)
ABSENT = kind(
    "image-absent",
    ERROR,
    "Every image that is listed is in the folder.",
    "The training stops when it comes to one that is not, maybe after hours.",
)
BACKSLASH = kind(
    "file-name-backslash",
    INFO,
    "The separator in file_name is /.",
    "Windows wrote \\ ; it is read as / here, other tools find no image.",
)
SUFFIX_CASE = kind(
    "file-name-suffix-case",
    INFO,
    "file_name has the suffix of the file, in its case.",
    "Only some file systems tell .jpg from .JPG; the one file that fits is taken.",
)
UNICODE_FORM = kind(
    "file-name-unicode-form",
    INFO,
    "file_name is written with the characters of the file's name.",
    "An accent is one character or two (NFC, NFD); the one file that fits is taken.",
)
LISTED_TWICE = kind(
    "image-listed-twice",
    WARNING,
    "An image is listed once.",
    "Each entry trains without the objects of the other: they are learnt as background.",
)
NOT_LISTED = kind(
    "image-not-listed",
    INFO,
    "The folder holds the images of the file.",
    "Others are not trained on; maybe the file is an old one, or of one split only.",
)


@dataclasses.dataclass
class Names:
    """Hold the name of each image's file, relative to the folder, and what was found."""

    files: list[str]
    findings: list[Finding]


class _Folders:
    """List folders, each once, and find files in them."""

    def __init__(self, top: Path):
        self.top = top
        self.listed: dict[str, set[str]] = {}
        self.alike: dict[str, dict[tuple[str, str], list[str]]] = {}

    def there(self, folder: str) -> set[str]:
        if folder not in self.listed:
            try:
                self.listed[folder] = {entry.name for entry in os.scandir(self.top / folder)}
            except (OSError, ValueError):  # absent, or a name that no folder can have
                self.listed[folder] = set()
        return self.listed[folder]

    def like(self, name: str) -> list[str]:
        """Return the files that have this name but for the case of the suffix and the form."""
        folder, base = os.path.split(name)
        if folder not in self.alike:
            table = self.alike[folder] = {}
            for other in self.there(folder):
                table.setdefault(_form(other), []).append(other)
        return [os.path.join(folder, n) for n in self.alike[folder].get(_form(base), [])]

    def has(self, name: str) -> bool:
        folder, base = os.path.split(name)
        return base in self.there(folder)

    def lacking(self, names: Sequence[str]) -> list[int]:
        """Return the positions of names without a file."""
        top = self.there("")  # most sets have one folder: no name is taken apart then
        return [i for i, name in enumerate(names) if name not in top and not self.has(name)]


def _form(name: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(name)
    return unicodedata.normalize("NFC", stem), suffix.lower()


def find(image_dir: str | Path, names: Sequence[str]) -> Names:
    """Find the file of each name, with one listing of each folder.

    Returns:
        the names of the files, as they are where none was found, and findings.
    """
    top = Path(image_dir)
    folders, listed = _Folders(top), set(names)
    files, absent = list(names), []
    changed: dict[str, list[str]] = collections.defaultdict(list)  # code -> names
    for i in folders.lacking(names):
        name = names[i]
        found = _only_fit(name, folders, listed)
        if found is None:
            absent.append(name)
            continue
        files[i] = found
        if "\\" in name:
            changed[BACKSLASH.code].append(name)
        plain = name.replace("\\", "/")
        base, other = os.path.basename(plain), os.path.basename(found)
        if unicodedata.normalize("NFC", base) == unicodedata.normalize("NFC", other) != "":
            if base != other:
                changed[UNICODE_FORM.code].append(name)
        else:
            changed[SUFFIX_CASE.code].append(name)
    findings = _absent(top, names, absent, folders)
    total = len(names)
    for of, text in (
        (BACKSLASH, "have a file_name with back-slashes, the separators of Windows; read as /"),
        (SUFFIX_CASE, "have another case of the suffix than their file; the file was taken"),
        (UNICODE_FORM, "are written in another Unicode form than their file; the file was taken"),
    ):
        if some := changed[of.code]:
            what = f"{len(some)} of {total} images {text}: {first_names(some)}."
            findings.append(of.found(what, "Correct file_name.", top, some))
    if twice := repeated(files):
        what = f"{len(twice)} images are listed more than once: {first_names(twice)}."
        findings.append(LISTED_TWICE.found(what, "Merge their entries.", top, twice))
    if not absent:
        findings += _not_listed(top, folders, files)
    return Names(files, findings)


def _only_fit(name: str, folders: _Folders, listed: set[str]) -> str | None:
    """Return the one file that a name can mean, if no other entry has it."""
    tries = [name]
    if "\\" in name:
        plain = name.replace("\\", "/")
        tries += [plain, os.path.basename(plain)]
    for attempt in tries:
        if attempt != name and folders.has(attempt):
            return None if attempt in listed else attempt
        fits = folders.like(attempt)
        if len(fits) == 1 and fits[0] not in listed:
            return fits[0]
    return None


def _not_listed(top: Path, folders: _Folders, files: Iterable[str]) -> list[Finding]:
    known, rest = set(files), list[str]()
    for folder, there in folders.listed.items():
        inside = {os.path.join(folder, name) for name in there} if folder else there
        rest += inside - known
    rest = sorted(name for name in rest if os.path.splitext(name)[1].lower() in SUFFIXES)
    if not rest:
        return []
    what = f"{len(rest)} images are in the folder and not in the file: {first_names(rest)}."
    return [NOT_LISTED.found(what, "Name the file that lists them, if they belong in.", top, rest)]


def absent_files(images: list, image_dir: Path, what: str = "images") -> list[Finding]:
    """Return a finding if files are not there by their exact name, with one listing of each folder.

    Args:
        images: entries with a file_name.
        what: what messages call the files.
    """
    names = [image["file_name"] for image in images]
    folders = _Folders(Path(image_dir))
    absent = [names[i] for i in folders.lacking(names)]
    return _absent(Path(image_dir), names, absent, folders, what)


def _absent(
    top: Path, names: Sequence[str], absent: list[str], folders: _Folders, what: str = "images"
) -> list[Finding]:
    if not names:
        text = f"the list of {what} is empty."
        return [NO_IMAGES.found(text, "Name the file of another split, or export it again.", top)]
    if not top.is_dir():
        text = f"there is no folder {top}, where the {what} should be."
        return [FOLDER_ABSENT.found(text, "Name the folder that file_name starts from.", top)]
    if not absent:
        return []
    try:
        fix = _hint(absent, top, folders)
    except OSError:  # a name that no file can have, or a folder that may not be read
        fix = ""
    return [
        ABSENT.found(
            f"{len(absent)} of {len(names)} {what} are not in {top}: {first_names(absent)}.",
            fix or f"Name the folder that file_name starts from, or copy the {what}.",
            top,
            absent,
        )
    ]


def _hint(absent: list[str], top: Path, folders: _Folders) -> str:
    """Say what to correct: the folder, the case or the suffix; "" if no such file is near."""
    if "\\" in absent[0]:
        return (
            "The back-slashes in file_name are the separators of Windows: write / instead, and "
            "only the part below the folder of the images."
        )
    folder = os.path.dirname(absent[0])
    gone = [os.path.basename(name) for name in absent if os.path.dirname(name) == folder]
    place, there = top / folder, folders.there(folder)
    if not place.is_dir():
        flat = any((top / name).is_file() for name in gone[:50])
        but = f", but {top} has {gone[0]}" if flat else ""
        return f"There is no folder {place}{but}. Correct file_name."
    stems = {os.path.splitext(name)[0]: name for name in there}
    folded = {name.casefold(): name for name in there}
    for name in gone[:50]:
        if name.casefold() in folded:
            return f"The folder has {folded[name.casefold()]}: correct upper and lower case."
        stem, suffix = os.path.splitext(name)
        if stem in stems and suffix != os.path.splitext(stems[stem])[1]:
            return f"The folder has {stems[stem]}: correct the suffix in file_name."
    for inside in [entry.name for entry in os.scandir(place) if entry.is_dir()]:
        if (place / inside / gone[0]).is_file():
            return f"The folder {place / inside} has {gone[0]}: name that folder."
    beside = [Path(".."), *(Path("..") / n.name for n in place.parent.iterdir() if n.is_dir())]
    for relative in beside:
        if (place / relative / gone[0]).is_file():
            other = (place / relative).resolve()
            return f"The folder {other} has {gone[0]}: name that folder."
    return ""
