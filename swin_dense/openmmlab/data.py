"""Settle a config's data before a run: where it is, which classes, how large the heads are.

`settle` is the one door. It finds the files, reads the classes, writes both into the config,
checks the set on disk, and returns what it found as lines to print.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.datasets import coco_layout, coco_panoptic, label_maps, layouts, shapes
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.datasets import location
from swin_dense.registry import DATASETS

SHAPES_ROOT = Path("data/shapes")
CLASSES_FILE = "classes.txt"
LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}


def is_segmentation(config: Mapping[str, Any]) -> bool:
    """The task, read from the config: semantic segmentation, else detection with instances."""
    return config["default_scope"] == "mmseg"


def is_panoptic(config: Config) -> bool:
    """Whether the config's data are segments of things and stuff."""
    types = {dataset.get("type") for dataset in _datasets(config, tuple(LOADERS))}
    return "swin_dense.CocoPanoptic" in types


def settle(
    config: Config,
    splits: tuple[str, ...] = ("train", "val"),
    data: str | None = None,
    data_root: str | None = None,
    classes: str | None = None,
) -> list[str]:
    """Fill in paths, classes and head sizes, and check the data of the asked splits.

    Args:
        data: "shapes" for the built-in set; None for what the config says.
        data_root: another place for the data; its layout is found if the config's is not there.
        classes: a file of names, one per line, that replace the config's. For instances and
            segments they choose among the annotations'; for label maps they name the values,
            those in parentheses to be ignored. Without it, a classes.txt in the data root does so.

    Raises:
        InputError: whatever is wrong with the data, in words.
    """
    lines = []
    asked, splits = splits, tuple(s for s in splits if config.get(LOADERS[s]) is not None)
    if not splits:
        raise InputError(f"config: it has no {LOADERS[asked[0]]}, there is nothing to work on.")
    own = config.pop("data", None) == "shapes" and all(
        Path(dataset.get("data_root") or "") == SHAPES_ROOT
        for dataset in _datasets(config, tuple(LOADERS))
    )
    if data == "shapes" or (data is None and data_root is None and own):
        data_root = str(shapes.write(SHAPES_ROOT).root)
    elif data is not None:
        raise InputError(
            f"--data knows one built-in set, 'shapes', not {data!r}. Others: --data-root."
        )
    moved = False
    if data_root is not None:
        text, moved = _move(config, Path(data_root), splits)
        lines.append(text)
    if not is_segmentation(config):
        names = tuple(label_maps.read_names(classes)) if classes else None
        settle_these = _settle_segments if is_panoptic(config) else _settle_instances
        return lines + settle_these(config, splits, names)
    if classes:
        table: label_maps.LabelTable | None = label_maps.read_classes_file(classes)
    else:
        table = _table_beside(config, splits, moved)
    return lines + _settle_label_maps(config, splits, table)


def set_classes(
    config: Config, names: tuple[str, ...], things: tuple[str, ...] | None = None
) -> None:
    """Give every data set the names, and every head of the model their number.

    Args:
        things: for panoptic data, the names that are things; they come first. None for those the
            data sets have.

    Raises:
        InputError: the data sets know other things, or a loss weighs other classes.
    """
    datasets = _datasets(config, tuple(LOADERS))
    more = {}
    if is_panoptic(config):
        for dataset in datasets:
            things = _agreed_things(things, (dataset.get("metainfo") or {}).get("thing_classes"))
        names = tuple(sorted(names, key=lambda name: name not in (things or ())))  # a stable sort
        more = {"thing_classes": things}
    for dataset in datasets:
        dataset["metainfo"] = dict(dataset.get("metainfo") or {}, classes=tuple(names), **more)
    count = len(more["thing_classes"] or ()) if more else len(names)
    apart = semantic_head(config)
    for node in walk(config["model"]):
        if "num_classes" in node and node is not apart:
            node["num_classes"] = len(names)
        if "num_things_classes" in node:
            node.update(num_things_classes=count, num_stuff_classes=len(names) - count)
        if node is not apart and not node.keys().isdisjoint(("num_classes", "num_things_classes")):
            _weigh_classes(node, len(names), is_segmentation(config))


def semantic_head(config: Config) -> ConfigDict | None:
    """The head that learns label maps beside the instances, if the model has one.

    Its num_classes counts the values of those maps, things and stuff, whichever objects are learnt.
    """
    heads = (node.get("semantic_head") for node in walk(config["model"]))
    return next((head for head in heads if head), None)


def _agreed_things(
    trained: tuple[str, ...] | None, known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The things in the order of the weights, which the data must know too if they know any."""
    things = known if trained is None else trained
    if things is None:
        raise InputError(
            "classes: a panoptic model must be told which of its classes are things, and the "
            "checkpoint does not say. Use one that was trained with a panoptic config."
        )
    if known is not None and set(known) != set(things):
        raise InputError(
            f"classes: the weights were trained with the things {list(things)}, those of the data "
            f"are {list(known)}. Correct isthing in the categories of the annotation file."
        )
    return tuple(things)


def _weigh_classes(head: Mapping[str, Any], count: int, segmentation: bool) -> None:
    """Lengthen or shorten the weights of a head's losses: one for each class.

    Where scores compete and not every place shows a class, the last one is for no object.
    """
    for key, losses in head.items():
        for loss in walk(losses) if key.startswith("loss_") else ():
            weights = loss.get("class_weight")
            if not isinstance(weights, list | tuple):
                continue
            competing = not (segmentation or loss.get("use_sigmoid", False))
            none = int("num_queries" in head or competing)
            each, rest = weights[: len(weights) - none], weights[len(weights) - none :]
            if len(each) == count:
                continue
            if len(set(each)) > 1:
                raise InputError(
                    f"config: {key}.class_weight has {len(weights)} numbers, but the data has "
                    f"{count} classes: {count + none} are needed"
                    f"{', the last for no object' if none else ''}. State them anew."
                )
            loss["class_weight"] = [*each[:1] * count, *rest]


def _datasets(config: Config, splits: tuple[str, ...]) -> list[ConfigDict]:
    """The innermost data set of each split; wrappers such as RepeatDataset hold another one."""
    found = []
    for split in splits:
        node = config.get(LOADERS[split])
        if node is None:
            continue
        while "dataset" in node:
            node = node["dataset"]
        if "datasets" in node:
            raise InputError(
                f"config: {LOADERS[split]} joins several data sets ({node.get('type')}); the "
                "commands settle the classes of one. Merge them into one set first."
            )
        found.append(node)
    return found


def walk(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)


def _table_beside(
    config: Config, splits: tuple[str, ...], moved: bool
) -> label_maps.LabelTable | None:
    """The table of the classes.txt in the data root; None where the config's names may stand.

    They may not where they are those of the built-in shapes or of a public set and the files lie
    otherwise: other label maps would be read under wrong names without a word.
    """
    dataset = _datasets(config, splits)[0]
    names = Path(dataset.get("data_root") or "") / CLASSES_FILE
    if names.is_file():
        return label_maps.read_classes_file(names)
    stated = tuple((dataset.get("metainfo") or {}).get("classes") or ())
    if stated == shapes.LABELS or (moved and not stated):
        raise InputError(
            f"label maps carry no names, and the config's belong to another data set. Write the "
            f"names of {dataset.get('data_root')}, one per line in the order of their values, "
            f"into {names} or a file given with --classes."
        )
    return None


def _move(config: Config, root: Path, splits: tuple[str, ...]) -> tuple[str, bool]:
    """Point every loader at `root`: at the config's own names in it, else at a known layout.

    Returns:
        a line to print, and whether the files lie otherwise than the config says.
    """
    segmentation = is_segmentation(config)
    keys = ("img_path", "seg_map_path") if segmentation else ("img", "ann_file")
    asked = _datasets(config, splits)
    for dataset in _datasets(config, tuple(LOADERS)):
        dataset["data_root"] = str(root)
    if root.is_dir() and all(location(d, key).exists() for d in asked for key in keys):
        _point_to_semantic_maps(config, root)
        return f"data: {root}", False

    panoptic = is_panoptic(config)
    instances = layouts.PANOPTIC if panoptic else layouts.INSTANCES
    known = layouts.LABEL_MAPS if segmentation else instances
    names = {"test": "val"}
    layout = layouts.find(root, known, tuple(dict.fromkeys(names.get(s, s) for s in splits)))
    for split in LOADERS:
        if (place := layout.get(names.get(split, split))) is None:
            continue
        for dataset in _datasets(config, (split,)):
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
    """Where instances are learnt beside label maps: of these too, the place in the data root."""
    for split in () if is_segmentation(config) or is_panoptic(config) else LOADERS:
        for dataset in _datasets(config, (split,)):
            prefix = dataset.get("data_prefix") or {}
            if "seg" in prefix and not location(dataset, "seg").is_dir():
                prefix["seg"] = layouts.semantic_maps(root, prefix["img"], split)


def _settle_instances(
    config: Config, splits: tuple[str, ...], names: tuple[str, ...] | None
) -> list[str]:
    datasets = _datasets(config, splits)
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
        summary = coco_layout.check(
            location(dataset, "ann_file"),
            location(dataset, "img"),
            classes=names,
            need_masks=any("mask_head" in node for node in walk(config["model"])),
            subset=subset,
            min_side=(dataset.get("filter_cfg") or {}).get("min_size", 0),
        )
        lines.append(f"{split}: {summary.describe(table=split == splits[0])}")
        if "seg" in dataset["data_prefix"]:
            lines.append(f"{split}: {_settle_semantic_maps(config, dataset, summary.files)}")
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
                evaluator["ann_file"] = str(location(_datasets(config, (split,))[0], "ann_file"))
    set_classes(config, names)
    return lines


def _settle_semantic_maps(config: Config, dataset: ConfigDict, files: tuple[str, ...]) -> str:
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
    looked_at = label_maps.check_pairs(pairs, what, table).looked_at
    return f"{folder}: {len(pairs)} label maps, {looked_at} of them looked at"


def _settle_segments(
    config: Config, splits: tuple[str, ...], names: tuple[str, ...] | None
) -> list[str]:
    datasets = _datasets(config, splits)
    for dataset in datasets:
        names = names or (dataset.get("metainfo") or {}).get("classes")
    subset = names is not None
    classes = coco_panoptic.read_classes(location(datasets[0], "ann_file"), names)
    lines = []
    for split, dataset in zip(splits, datasets, strict=True):
        summary = coco_panoptic.check(
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


def _settle_label_maps(
    config: Config, splits: tuple[str, ...], table: label_maps.LabelTable | None
) -> list[str]:
    if table:  # other classes than the config's: its own table no longer holds
        for dataset in _datasets(config, tuple(LOADERS)):
            dataset.update(
                type="swin_dense.LabelMaps",
                first_value=table.first_value,
                ignore=table.ignore,
                metainfo=dict(classes=table.classes),
            )
    lines: list[str] = []
    for split, dataset in zip(splits, _datasets(config, splits), strict=True):
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
        set_classes(config, built.metainfo["classes"])
        summary = label_maps.check(
            location(dataset, "img_path"), location(dataset, "seg_map_path"), built.label_table
        )
        lines.append(f"{split}: {summary.describe(table=split == splits[0])}")
    return lines
