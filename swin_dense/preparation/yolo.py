"""Read a YOLO set: a text file of numbers for each image, the names of the classes in data.yaml.

hotcoco reads such files too, but neither polygons nor images without a label file, so this is our
own; the tests compare with it.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

from swin_dense.datasets.images import SUFFIXES
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation.gathered import (
    Gathered,
    Picture,
    Thing,
    from_polygons,
    images_below,
    measured,
)

NAMES = ("classes.txt", "obj.names", "labels.txt")
NO_FILE = "without a label file"
SLACK = 0.01  # how far outside of 0..1 a number may be by rounding; it is brought to the border
MOST_ALIASES = 20  # of YAML: each may double what the others stand for
PARTS = {"train": "train", "val": "val", "valid": "val"}


def read(root: Path) -> Gathered:
    """Read all images of the set with their boxes or polygons.

    Raises:
        InputError: no class names, or a line that is not in the format.
    """
    settings = _settings(root)
    names = _names(root, settings)
    points = bool(settings.get("kpt_shape"))
    gathered = Gathered(classes=tuple(names.values()))
    seen: dict[Path, str] = {}
    for part, images in _images(root, settings):
        for name, path in images.items():
            if seen.setdefault(path.resolve(), part) != part:
                raise InputError(f"{path}: the image is both in {seen[path.resolve()]} and {part}.")
            height, width = measured(path)
            labels = _labels_of(path)
            picture = Picture(path, name, part, height, width)
            if labels.is_file():
                picture.things = _things(labels, names, height, width, points)
            else:
                gathered.left_out[NO_FILE] += 1
            gathered.pictures.append(picture)
    _require_images(root, gathered)
    if points:
        gathered.left_out["lists of key points"] += sum(len(p.things) for p in gathered.pictures)
    return gathered


def _settings(root: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    found = [p for p in (root / "data.yaml", root / "dataset.yaml") if p.is_file()]
    found = found or sorted(p for p in root.glob("*.y*ml") if p.suffix in (".yaml", ".yml"))
    if not found:
        return {}
    try:
        text = found[0].read_text(encoding="utf-8-sig")
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        if aliases > MOST_ALIASES:
            raise InputError(
                f"{found[0]}: it repeats parts at {aliases} places (*name), at most {MOST_ALIASES} "
                "are read. Write them out."
            )
        content = yaml.safe_load(text)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{found[0]}: no YAML ({error}). Export it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{found[0]}: it needs names: and train:, got {content!r:.80}.")
    return {**content, "file": found[0]}


def _names(root: Path, settings: dict[str, Any]) -> dict[int, str]:
    names = settings.get("names")
    if isinstance(names, dict) and all(str(k).isdecimal() for k in names):
        return {int(k): str(v) for k, v in sorted(names.items(), key=lambda kv: int(kv[0]))}
    if isinstance(names, list) and names:
        return dict(enumerate(map(str, names)))
    for name in NAMES:
        for path in (root / name, root / "labels" / name, root / "data" / name):
            if path.is_file():
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                return dict(enumerate(line.strip() for line in lines if line.strip()))
    raise MissingInputError(
        f"{root}: the label files have numbers of classes, and no file names them. Put data.yaml "
        "with names: [cat, dog], or classes.txt with one name per line, there."
    )


def _images(root: Path, settings: dict[str, Any]) -> list[tuple[str, dict[str, Path]]]:
    """Return the images of each part by their names; the part is "" where it is not said."""
    base = root
    if (stated := settings.get("path")) and (root / str(stated)).is_dir():
        base = root / str(stated)
    places: list[tuple[str, Path]] = []
    for key in ("train", "val", "valid"):
        entries = settings.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            text = str(entry).replace("\\", "/")
            # Roboflow writes ../train/images, from a folder that is not there.
            tried = [root / text.removeprefix("../"), base / text, root / text]
            place = next((p for p in tried if p.exists()), None)
            if place is None:
                raise InputError(
                    f"{settings['file']}: {key}: {entry} is no folder in {base}. Correct it to the "
                    "folder of its images, or the file that lists them."
                )
            places.append((PARTS[key], place))
    if len({place.resolve() for _, place in places}) == 1:  # train and val are the same
        places = [("", places[0][1])]
    for layout in ("images/{}", "{}/images", "{}"):
        split = [(part, root / layout.format(name)) for name, part in PARTS.items()]
        places = places or [(part, folder) for part, folder in split if folder.is_dir()]
    places = places or [("", root / "images" if (root / "images").is_dir() else root)]
    return [(p, images_below(d) if d.is_dir() else _listed(d, base)) for p, d in places]


def _listed(path: Path, base: Path) -> dict[str, Path]:
    """Read a file of image paths, relative to itself or to the folder of the set."""
    found = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        text = line.strip().replace("\\", "/")
        if not text:
            continue
        place = next((p for p in (path.parent / text, base / text) if p.is_file()), None)
        if place is None:
            raise InputError(f"{path}: its image {text} is not in {base}. Correct the list.")
        found[text.removeprefix("./").removeprefix("images/").lstrip("/")] = place
    return found


def _labels_of(image: Path) -> Path:
    """Return the label file of an image: in "labels" for the last "images" of its path."""
    parts = list(image.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            there = Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
            if there.is_file() or not image.with_suffix(".txt").is_file():
                return there
            break
    beside = image.with_suffix(".txt")
    return beside if beside.is_file() else image.parent / "labels" / beside.name


def _things(
    path: Path, names: dict[int, str], height: int, width: int, points: bool
) -> list[Thing]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [
        _thing(f"{path}, line {i}", line.split(), names, height, width, points)
        for i, line in enumerate(lines, 1)
        if line.strip()
    ]


def _thing(
    where: str, words: list[str], names: dict[int, str], height: int, width: int, points: bool
) -> Thing:
    rule = "a line is a class number, then x, y, width, height, or an outline of 3 points or more"
    try:
        number, *values = map(float, words)
    except ValueError as error:
        raise InputError(f"{where}: {rule}; got {' '.join(words)[:60]!r}.") from error
    if not number.is_integer() or int(number) not in names:
        raise InputError(
            f"{where}: class {words[0]} has no name; names are for {min(names)} to {max(names)}. "
            "Correct the file of names."
        )
    if points and len(values) > 4:
        values = values[:4]
    if not all(-SLACK <= v <= 1 + SLACK for v in values):
        raise InputError(
            f"{where}: positions are shares of the image's width and height, from 0 to 1; got "
            f"{' '.join(words)[:60]!r}. Divide pixels by width and height."
        )
    label = names[int(number)]
    if len(values) == 4:
        x, y, w, h = values
        left, right = ((x + side * w / 2) * width for side in (-1, 1))
        top, bottom = ((y + side * h / 2) * height for side in (-1, 1))
        left, top = max(0.0, left), max(0.0, top)
        right, bottom = min(float(width), right), min(float(height), bottom)
        return Thing(label, (left, top, right - left, bottom - top))
    if len(values) < 6 or len(values) % 2:
        raise InputError(f"{where}: {rule}; got {len(words)} numbers.")
    inside = [min(max(v, 0.0), 1.0) for v in values]
    sides = (width, height)
    return from_polygons(label, [[v * sides[i % 2] for i, v in enumerate(inside)]])


def _require_images(root: Path, gathered: Gathered) -> None:
    if not gathered.pictures:
        raise InputError(f"{root}: no image ({' '.join(SUFFIXES)}) in the folders of the set.")
    without = gathered.left_out.pop(NO_FILE, 0)
    if without == len(gathered.pictures):
        example = gathered.pictures[0].path
        raise InputError(
            f"{root}: none of the {without} images has a label file; for {example} it would be "
            f"{_labels_of(Path(example or ''))}. Put the folder labels/ beside images/."
        )
    if without:
        gathered.notes.append(f"{without} images have no label file: they show no object")
    twice = collections.Counter((p.part, p.name) for p in gathered.pictures).most_common(1)[0]
    if twice[1] > 1:
        raise InputError(f"{root}: two images are called {twice[0][1]}. Rename one of them.")
