"""Settle a config's data before a run: where it is, which classes, how large the heads are.

`complete_data` is the one door. It finds the files, reads the classes, writes both into the config,
checks the set on disk, and returns what it found as lines to print.
"""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from swin_dense.datasets import (
    coco_layout,
    coco_panoptic,
    label_map_sets,
    label_maps,
    layouts,
    panoptic_sets,
    shapes,
)
from swin_dense.datasets.findings import Finding, refuse
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.data.datasets import location
from swin_dense.openmmlab.settings import whole_sets
from swin_dense.openmmlab.settings.classes import semantic_head, set_classes
from swin_dense.openmmlab.settings.sections import LOADERS, datasets_of
from swin_dense.registry import DATASETS
from swin_dense.task import Task

SHAPES_ROOT = Path("data/shapes")
CLASSES_FILE = "classes.txt"


def complete_data(
    config: Config,
    splits: tuple[str, ...] = ("train", "val"),
    data: str | None = None,
    data_root: str | None = None,
    classes: str | None = None,
    share: whole_sets.Share | None = None,
) -> list[str]:
    """Fill in paths, classes and head sizes, and check the data of the asked splits.

    Args:
        data: "shapes" for the built-in set; None for what the config says.
        data_root: another place for the data; its layout is found if the config's is not there.
        classes: a file of names, one per line, that replace the config's. For instances and
            segments they choose among the annotations'; for label maps they name the values,
            those in parentheses to be ignored. Without it, a classes.txt in the data root does so.
        share: how to divide a set whose labels are in one file or folder for all images.

    Raises:
        InputError: whatever is wrong with the data, in words.
    """
    lines = []
    asked, splits = splits, tuple(s for s in splits if config.get(LOADERS[s]) is not None)
    if not splits:
        raise InputError(f"config: it has no {LOADERS[asked[0]]}, there is nothing to work on.")
    own = _names_shapes(config)
    if data == "shapes" or (data is None and data_root is None and own):
        data_root = str(shapes.write(SHAPES_ROOT).root)
    elif data is not None:
        raise InputError(
            f"`data` knows one built-in set, 'shapes', not {data!r}. Others: `data_root`."
        )
    moved = False
    if share and share.asked is not None:
        if data == "shapes" or (own and data_root is None):
            raise InputError("`val_share` divides a set in two; the built-in one is divided.")
        data_root = data_root or datasets_of(config, splits)[0].get("data_root")
        if data_root is None:
            raise InputError("`val_share` divides the set in a folder: name it as `data_root`.")
    if data_root is not None:
        text, moved = _move(config, Path(data_root), splits, share)
        lines.append(text)
    task = Task.of(config)
    if task is not Task.SEMANTIC:
        names = tuple(label_maps.read_names(classes)) if classes else None
        complete = _complete_segments if task is Task.PANOPTIC else _complete_instances
        return lines + complete(config, splits, names)
    if classes:
        table: label_maps.LabelTable | None = label_maps.read_classes_file(classes)
    else:
        table = _table_beside(config, splits, moved)
    return lines + _complete_label_maps(config, splits, table)


def root_of(config: Config, data: str | None, data_root: str | None) -> str | None:
    """Return the folder of the data: the built-in set's, written now, or the one that is named."""
    if data == "shapes" or (data is None and data_root is None and _names_shapes(config)):
        return str(shapes.write(SHAPES_ROOT).root)
    return data_root


def _names_shapes(config: Config) -> bool:
    """Tell whether a config's data is the built-in set; the mark that says so is taken out."""
    return config.pop("data", None) == "shapes" and all(
        Path(dataset.get("data_root") or "") == SHAPES_ROOT
        for dataset in datasets_of(config, tuple(LOADERS))
    )


def find_data(
    config: Config, splits: tuple[str, ...], data_root: str | None, classes: str | None
) -> tuple[str, ...] | None:
    """Point the loaders at the files and settle the classes, without looking into the files.

    Returns:
        the names of the classes to train on; None for those of the annotations.
    """
    moved = bool(data_root) and _move(config, Path(data_root or ""), splits)[1]
    if Task.of(config) is Task.SEMANTIC:
        if classes:
            _state_table(config, label_maps.read_classes_file(classes))
        else:
            _state_table(config, _table_beside(config, splits, moved))
        return None
    stated = [(d.get("metainfo") or {}).get("classes") for d in datasets_of(config, splits)]
    if classes:
        stated.insert(0, tuple(label_maps.read_names(classes)))
    return next((tuple(names) for names in stated if names), None)


def files_of(config: Config, splits: tuple[str, ...]) -> dict[str, tuple[Path, Path]]:
    """Return the annotation file and image folder of each split; none of what has no boxes."""
    if Task.of(config) in (Task.SEMANTIC, Task.PANOPTIC):
        return {}
    return {
        split: (location(dataset, "ann_file"), location(dataset, "img"))
        for split, dataset in zip(splits, datasets_of(config, splits), strict=True)
    }


def _table_beside(
    config: Config, splits: tuple[str, ...], moved: bool
) -> label_maps.LabelTable | None:
    """Return the table of classes.txt in the data root; None where the config's names may stand.

    They may not where they are those of the built-in shapes or of a public set and the files lie
    otherwise: other label maps would be read under wrong names without a word.
    """
    dataset = datasets_of(config, splits)[0]
    names = Path(dataset.get("data_root") or "") / CLASSES_FILE
    if names.is_file():
        return label_maps.read_classes_file(names)
    stated = tuple((dataset.get("metainfo") or {}).get("classes") or ())
    if stated == shapes.LABELS or (moved and not stated):
        raise InputError(
            f"label maps carry no names, and the config's belong to another data set. Write the "
            f"names of {dataset.get('data_root')}, one per line in the order of their values, "
            f"into {names} or a file given as `classes`."
        )
    return None


def _move(
    config: Config, root: Path, splits: tuple[str, ...], share: whole_sets.Share | None = None
) -> tuple[str, bool]:
    """Point every loader at `root`: at the config's own names in it, else at a known layout.

    Or at the two parts of a set that `share` divides.

    Returns:
        a line to print, and whether the files lie otherwise than the config says.
    """
    segmentation = Task.of(config) is Task.SEMANTIC
    keys = ("img_path", "seg_map_path") if segmentation else ("img", "ann_file")
    asked = datasets_of(config, splits)
    for dataset in datasets_of(config, tuple(LOADERS)):
        dataset["data_root"] = str(root)
    if share and (text := whole_sets.settle(config, root, share)):
        _point_to_semantic_maps(config, root)
        return text, True
    if root.is_dir() and all(location(d, key).exists() for d in asked for key in keys):
        _point_to_semantic_maps(config, root)
        return f"data: {root}", False

    panoptic = Task.of(config) is Task.PANOPTIC
    instances = layouts.PANOPTIC if panoptic else layouts.INSTANCES
    known = layouts.LABEL_MAPS if segmentation else instances
    names = {"test": "val"}
    layout = layouts.find(root, known, tuple(dict.fromkeys(names.get(s, s) for s in splits)))
    for split in LOADERS:
        if (place := layout.get(names.get(split, split))) is None:
            continue
        for dataset in datasets_of(config, (split,)):
            if segmentation:
                dataset["data_prefix"] = dict(img_path=place.images, seg_map_path=place.labels)
            else:
                dataset["data_prefix"]["img"] = place.images
                dataset["ann_file"] = place.labels
            if panoptic:
                dataset["data_prefix"]["seg"] = place.segments
    _point_to_semantic_maps(config, root)
    found = "; ".join(f"{split}: {p.labels} + {p.images}/" for split, p in layout.items())
    return f"data: {root} ({found})", True


def _point_to_semantic_maps(config: Config, root: Path) -> None:
    """Point to the label maps in the data root, where they are learnt beside instances."""
    for split in () if Task.of(config) in (Task.PANOPTIC, Task.SEMANTIC) else LOADERS:
        for dataset in datasets_of(config, (split,)):
            prefix = dataset.get("data_prefix") or {}
            if "seg" in prefix and not location(dataset, "seg").is_dir():
                prefix["seg"] = layouts.semantic_maps(root, prefix["img"], split)


def _complete_instances(
    config: Config, splits: tuple[str, ...], names: tuple[str, ...] | None
) -> list[str]:
    datasets = datasets_of(config, splits)
    for dataset in datasets:
        names = names or (dataset.get("metainfo") or {}).get("classes")
    if isinstance(names, str):
        raise InputError(
            f"classes: a tuple of names is needed, got the text {names!r}. A tuple of one name "
            f"has a comma: ({names!r},)."
        )
    subset = names is not None
    names = tuple(names or coco_layout.class_names(location(datasets[0], "ann_file")))
    lines = []
    for split, dataset in zip(splits, datasets, strict=True):
        file = location(dataset, "ann_file")
        here, lacking = names, list[Finding]()
        if dataset is not datasets[0]:
            first = location(datasets[0], "ann_file")
            here, lacking = coco_layout.classes_of_split(file, names, first, subset)
        summary = coco_layout.check(
            file,
            location(dataset, "img"),
            classes=here,
            need_masks=Task.of(config) is Task.INSTANCES,
            subset=subset or bool(lacking),
            min_side=(dataset.get("filter_cfg") or {}).get("min_size", 0),
            need_objects=not _written_alone(config, split),
        )
        summary.warnings += [finding.text for finding in lacking]
        lines.append(f"{split}: {summary.describe(table=split == splits[0])}")
        if "seg" in dataset["data_prefix"]:
            lines.append(f"{split}: {_complete_semantic_maps(config, dataset, summary.files)}")
        elif split == "train" and semantic_head(config):
            raise InputError(
                "config: the model's semantic_head learns label maps of things and stuff, and the "
                "training data has none. Use configs/_base_/coco_htc.py, or state where they are "
                "in train_dataloader.dataset.data_prefix.seg and read them with LoadLabelMap."
            )
    for split in ("val", "test"):
        found = config.get(f"{split}_evaluator") or []
        evaluators: list[ConfigDict] = found if isinstance(found, list) else [found]
        for evaluator in evaluators:
            if evaluator.get("type") == "swin_dense.CocoMetric":
                evaluator["ann_file"] = str(location(datasets_of(config, (split,))[0], "ann_file"))
    set_classes(config, names)
    return lines


def _written_alone(config: Config, split: str) -> bool:
    """Say whether what is found in a split is written to files, not judged."""
    found = config.get(f"{split}_evaluator") or []
    evaluators = found if isinstance(found, list) else [found]
    return bool(evaluators) and all(evaluator.get("format_only") for evaluator in evaluators)


def _complete_semantic_maps(config: Config, dataset: ConfigDict, files: tuple[str, ...]) -> str:
    """Check some of the label maps beside the instances; the model says how many values they have.

    Args:
        files: the images, relative to their folder.
    """
    folder = location(dataset, "seg")
    if not folder.is_dir():
        raise MissingInputError(
            f"data: there is no folder {folder}. This model also learns label maps of things and "
            "stuff, one PNG for each image. Put COCO's there (stuffthingmaps_trainval2017.zip of "
            "github.com/nightrome/cocostuff), or use a config that needs none, such as "
            "configs/cascade_mask_rcnn_swin_b.py."
        )
    pairs = [
        (location(dataset, "img") / name, (folder / name).with_suffix(".png")) for name in files
    ]
    absent = [str(path.relative_to(folder)) for _, path in pairs if not path.is_file()]
    if absent:
        raise InputError(
            f"{folder}: {len(absent)} of {len(files)} images have no label map: "
            f"{first_names(absent)}. Each needs one of its own name, with the suffix .png."
        )
    what = str(folder)
    if head := semantic_head(config):
        dataset["semantic_classes"] = head["num_classes"]
        what += f" for a semantic_head of num_classes={head['num_classes']} (a value each)"
    table = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True)).label_table
    looked_at = label_map_sets.check_pairs(pairs, what, table).looked_at
    return f"{folder}: {len(pairs)} label maps, {looked_at} of them looked at"


def _complete_segments(
    config: Config, splits: tuple[str, ...], names: tuple[str, ...] | None
) -> list[str]:
    datasets = datasets_of(config, splits)
    for dataset in datasets:
        names = names or (dataset.get("metainfo") or {}).get("classes")
    subset = names is not None
    classes = coco_panoptic.read_classes(location(datasets[0], "ann_file"), names)
    lines = []
    for split, dataset in zip(splits, datasets, strict=True):
        summary = panoptic_sets.check(
            location(dataset, "ann_file"),
            location(dataset, "img"),
            location(dataset, "seg"),
            classes=classes.names,
            subset=subset,
            min_side=(dataset.get("filter_cfg") or {}).get("min_size", 0),
        )
        if set(summary.classes.things) != set(classes.things):
            raise InputError(
                f"{summary.annotation_file}: its things are {list(summary.classes.things)}, those "
                f"of {splits[0]} are {list(classes.things)}. Make isthing agree in both files."
            )
        lines.append(f"{split}: {summary.describe(table=split == splits[0])}")
    set_classes(config, classes.names, classes.things)
    return lines


def _state_table(config: Config, table: label_maps.LabelTable | None) -> None:
    """Write a table of other classes than the config's, whose own no longer holds."""
    if table is None:
        return
    for dataset in datasets_of(config, tuple(LOADERS)):
        dataset.update(
            type="swin_dense.LabelMaps",
            first_value=table.first_value,
            ignore=table.ignore,
            metainfo=dict(classes=table.classes),
        )


def _complete_label_maps(
    config: Config, splits: tuple[str, ...], table: label_maps.LabelTable | None
) -> list[str]:
    _state_table(config, table)
    lines: list[str] = []
    for split, dataset in zip(splits, datasets_of(config, splits), strict=True):
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
        set_classes(config, built.metainfo["classes"])
        folder, pairs = location(dataset, "seg_map_path"), built.pairs()
        refuse(folder, label_map_sets.one_class(built.label_table, folder))
        summary = label_map_sets.check_pairs(pairs, folder, built.label_table)
        lines.append(f"{split}: {summary.describe(table=split == splits[0])}")
        loader = config[LOADERS[split]]
        if split != "train" and loader.get("batch_size", 1) > 1 and len(summary.sizes) > 1:
            lines.append(
                f"{split}: batch_size {loader.batch_size} -> 1 (the images are of several sizes)"
            )
            loader.batch_size = 1
    return lines
