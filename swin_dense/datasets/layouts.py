"""Where a data set's files usually lie, so that a data root is all a user has to name."""

from dataclasses import dataclass
from pathlib import Path

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
    wanted = "\n".join(
        "  " + " and ".join(f"{layout[s].labels} + {layout[s].images}/" for s in splits)
        for layout in known
    )
    raise InputError(
        f"data root: {root} has none of the layouts known for this task. It holds: "
        f"{', '.join(listing[:12]) or 'nothing'}{' ...' if len(listing) > 12 else ''}. "
        f"Known layouts, labels + images:\n{wanted}\n"
        "Rename to one of them, or state ann_file and data_prefix in a config of yours."
    )
