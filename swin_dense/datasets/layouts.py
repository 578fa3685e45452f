"""Where a data set's files usually lie, so that a data root is all a user has to name."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swin_dense.datasets.images import SUFFIXES
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError, MissingInputError


@dataclass(frozen=True)
class Split:
    """One split of a data set, paths relative to its root."""

    images: str
    labels: str  # COCO annotation file, or folder of label maps

    @property
    def segments(self) -> str:
        """Return the folder of panoptic PNGs: named like the annotation file, as COCO has it."""
        return self.labels.removesuffix(".json")


Layout = dict[str, Split]  # "train" and "val"

# First match wins. COCO's own names come first, then what people and labelling tools write.
INSTANCES: list[Layout] = [
    {
        "train": Split("train2017", "annotations/instances_train2017.json"),
        "val": Split("val2017", "annotations/instances_val2017.json"),
    },
    *(
        {split: Split(images.format(split), labels.format(split)) for split in ("train", "val")}
        for labels in (
            "annotations/instances_{}.json",
            "instances_{}.json",
            "annotations/{}.json",
            "{}.json",
        )
        for images in ("images/{}", "{}", "images")
    ),
    {
        "train": Split("train", "train/_annotations.coco.json"),
        "val": Split("valid", "valid/_annotations.coco.json"),
    },
]
PANOPTIC: list[Layout] = [
    {
        "train": Split("train2017", "annotations/panoptic_train2017.json"),
        "val": Split("val2017", "annotations/panoptic_val2017.json"),
    },
    *(
        {split: Split(images.format(split), labels.format(split)) for split in ("train", "val")}
        for labels in ("annotations/panoptic_{}.json", "panoptic_{}.json")
        for images in ("images/{}", "{}", "images")
    ),
]
# Folders of label maps of things and stuff beside instances, one folder in them for each split.
SEMANTIC = ("stuffthingmaps", "label_maps")
LABEL_MAPS: list[Layout] = [
    {
        "train": Split("images/training", "annotations/training"),
        "val": Split("images/validation", "annotations/validation"),
    },
    *(
        {split: Split(f"images/{split}", f"{labels}/{split}") for split in ("train", "val")}
        for labels in ("annotations", "label_maps", "labels", "masks")
    ),
    {
        "train": Split("train/images", "train/masks"),
        "val": Split("val/images", "val/masks"),
    },
]

# One file or folder of labels for all images, as labelling tools export a set. By name, best first;
# a single annotation file of another name is taken too.
WHOLE_FILES = (
    "annotations.json",  # CVAT's and many others'
    "annotations/instances_default.json",  # CVAT
    "_annotations.coco.json",  # Roboflow
    "result.json",  # Label Studio
    "labels.json",  # FiftyOne
    # A training part alone.
    *dict.fromkeys(layout["train"].labels for layout in INSTANCES),
)
IMAGE_FOLDERS = ("images", ".", "data", "images/default", "JPEGImages", "train", "images/train")
WHOLE_MAPS = ("annotations", "label_maps", "labels", "masks", "SegmentationClass")


def semantic_maps(root: str | Path, images: str, split: str) -> str:
    """Find the folder of maps of things and stuff for these images; else give COCO's place for it.

    Args:
        images: their folder, relative to the root, as the answer is; or else maps are named for
            `split`.
    """
    places = [f"{folder}/{name}" for folder in SEMANTIC for name in (Path(images).name, split)]
    return next((place for place in places if (Path(root) / place).is_dir()), places[0])


def find(
    root: str | Path, known: list[Layout], splits: tuple[str, ...] = ("train", "val")
) -> Layout:
    """Find the first known layout of which every asked split is there.

    Raises:
        MissingInputError: there is no folder `root`.
        InputError: it holds none of the layouts; the message lists them.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingInputError(
            f"data root: there is no folder {root} (from {Path.cwd()}). Name the folder that "
            "holds the data set as `data_root`, or try `data` shapes, which needs none."
        )
    for layout in known:
        if all(
            (root / layout[split].labels).exists() and (root / layout[split].images).is_dir()
            for split in splits
        ):
            return {split: layout[split] for split in splits}
    listing = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    hint, whole = "", None
    with contextlib.suppress(InputError):  # several may be it: then none of them is
        whole = find_whole(root, known)
    if whole and splits == ("train",):
        return {"train": whole}
    if whole:
        hint = (
            f"{whole.labels} + {whole.images}/ hold labels for all images, undivided: say which "
            "share of the images is for validation, as `val_share` 0.2, when you train; the run's "
            "own config knows that division afterwards. "
        )
    elif other := _other_format(root):
        hint = f"It looks like {other}: tools/prepare_data.py makes a data root of it. "
    wanted = "\n".join(
        "  " + " and ".join(f"{layout[s].labels} + {layout[s].images}/" for s in splits)
        for layout in known
    )
    raise InputError(
        f"data root: {root} has none of the layouts known for this task. It holds: "
        f"{', '.join(listing[:12]) or 'nothing'}{' ...' if len(listing) > 12 else ''}. {hint}"
        f"Known layouts, labels + images:\n{wanted}\n"
        "Rename to one of them, or state ann_file and data_prefix in a config of yours."
    )


def find_whole(root: str | Path, known: list[Layout]) -> Split | None:
    """Find labels for all images of a set, not divided into train and val; None if there are none.

    Args:
        known: the layouts of the task, which say what labels are.

    Raises:
        InputError: several files could be it, or the images of the file are in no folder.
    """
    root = Path(root)
    if known is LABEL_MAPS:
        return _whole_maps(root)
    panoptic = known is PANOPTIC
    named = [] if panoptic else [name for name in WHOLE_FILES if (root / name).is_file()]
    if not named:
        pattern = "panoptic*.json" if panoptic else "*.json"
        files = [
            path.relative_to(root).as_posix()
            for folder in (root, root / "annotations", root / "labels")
            for path in sorted(folder.glob(pattern))
            if not path.name.startswith(".") and path.name != "prepared.json"
        ]
        if len(files) > 1:
            raise InputError(
                f"data root: {root} has {len(files)} annotation files, {first_names(files)}, in "
                "none of the known layouts. Leave the one that holds the labels of all images, or "
                "name them instances_train.json and instances_val.json."
            )
        named = files
    if not named:
        return None
    labels = named[0]
    return Split(_folder_of_images(root, labels), labels)


def _other_format(root: Path) -> str | None:
    """Name the format of other projects that the folder has the signs of."""
    if (root / "data.yaml").is_file() or any((root / "labels").glob("*.txt")):
        return "YOLO's format (data.yaml or labels/*.txt)"
    if (root / "leftImg8bit").is_dir():
        return "Cityscapes (leftImg8bit/)"
    xml = next(root.glob("*.xml"), None) or next(root.glob("[aA]nnotations/*.xml"), None)
    if (root / "VOCdevkit").is_dir() or xml:
        return f"the XML of Pascal VOC or CVAT ({xml.name if xml else 'VOCdevkit/'})"
    for path in [p for folder in ("", "*/") for p in sorted(root.glob(f"{folder}*.json"))[:1]]:
        if b'"shapes"' in path.read_bytes()[: 10**6]:
            return f"LabelMe's files ({path.name})"
    packed = [p.name for p in sorted(root.iterdir()) if p.name.endswith((".zip", ".tar", ".tgz"))]
    return f"archives ({packed[0]})" if packed else None


def _whole_maps(root: Path) -> Split | None:
    """Find a folder of label maps beside one of images, with files right in both."""
    for images in ("images", "JPEGImages", "imgs"):
        for labels in WHOLE_MAPS:
            if _has_file(root / images, SUFFIXES) and _has_file(root / labels, (".png",)):
                return Split(images, labels)
    return None


def _has_file(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(
        path.suffix.lower() in suffixes and path.is_file() for path in folder.iterdir()
    )


def _folder_of_images(root: Path, labels: str) -> str:
    """Return the folder, relative to the root, that has the first images of an annotation file."""
    names = _image_names(root / labels)
    beside = Path(labels).parent.as_posix()
    stem = Path(labels).stem.removeprefix("instances_").removeprefix("panoptic_")
    folders = dict.fromkeys((*IMAGE_FOLDERS, beside, f"{beside}/images", stem, f"images/{stem}"))
    for folder in folders:
        place = root / folder
        if place.is_dir() and all((place / name).is_file() for name in names):
            return Path(folder).as_posix()
    tried = ", ".join(f"{folder}/" for folder in folders)
    raise InputError(
        f"{root / labels}: its images, {first_names(names)}, are in none of the folders {tried} of "
        f"{root}. Put them into {root / 'images'}, or state ann_file and data_prefix in a config."
    )


def _image_names(path: Path) -> list[str]:
    """Read the first file names; of a file that is no set, none: the check of it says why."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        entries: Iterable = content["images"][:5]
        return [str(entry["file_name"]).replace("\\", "/") for entry in entries]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
