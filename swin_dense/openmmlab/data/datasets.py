"""mmdet's and mmseg's data sets with classes matched by name and labels read by one table."""

import contextlib
import io
from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets import BaseDetDataset, CocoDataset
from mmseg.datasets import ADE20KDataset, BaseSegDataset, LoadAnnotations

from swin_dense.datasets import coco_layout, coco_panoptic, label_maps
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.metrics import NamedCOCO
from swin_dense.registry import DATASETS


@DATASETS.register_module()
class CocoInstances(CocoDataset):
    """A COCO-format instance set. Without metainfo.classes, the classes are the file's.

    `data_prefix.seg`, where there is one, is a folder of label maps of things and stuff: the class
    is the value. LoadLabelMap reads them, or mmdet's LoadAnnotations(with_seg=True).

    Args:
        semantic_classes: how many values these maps have, from 0; 255 is never judged.
    """

    METAINFO: ClassVar[dict] = {}
    COCOAPI = NamedCOCO

    def __init__(
        self, *args: Any, semantic_classes: int = label_maps.MOST_CLASSES, **kwargs: Any
    ) -> None:
        names = tuple(f"value {value}" for value in range(semantic_classes))
        self.label_table = label_maps.LabelTable(names)
        super().__init__(*args, **kwargs)

    def get_data_info(self, idx: int) -> dict:
        found = super().get_data_info(idx)
        return {**found, "label_table": self.label_table} if "seg" in self.data_prefix else found

    def load_data_list(self) -> list[dict]:
        if "classes" not in self._metainfo:
            self._metainfo["classes"] = coco_layout.class_names(self.ann_file)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of its every step
            return super().load_data_list()


@DATASETS.register_module()
class CocoPanoptic(BaseDetDataset):
    """A COCO panoptic set; `data_prefix.seg` is the folder of its PNGs.

    Without metainfo.classes, the classes are the file's. Labels count things first: "classes" is
    put in that order, and "thing_classes" is the part of it that are things.
    """

    METAINFO: ClassVar[dict] = {}

    def load_data_list(self) -> list[dict]:
        stated = self._metainfo.get("classes")
        classes = coco_panoptic.read_classes(self.ann_file, stated)
        self._metainfo.update(classes=classes.names, thing_classes=classes.things)
        return coco_panoptic.read_samples(
            self.ann_file, self.data_prefix["img"], self.data_prefix["seg"], classes
        )

    def filter_data(self) -> list[dict]:
        """Keep, in training, images of at least filter_cfg.min_size with a segment to learn."""
        if self.test_mode or not self.filter_cfg:
            return self.data_list
        least = self.filter_cfg.get("min_size", 0)
        return [
            sample
            for sample in self.data_list
            if min(sample["height"], sample["width"]) >= least
            and (coco_panoptic.labels_to_learn(sample) or not self.filter_cfg["filter_empty_gt"])
        ]


@DATASETS.register_module()
class LabelMaps(BaseSegDataset):
    """Images beside label maps of the same name; value `first_value` is the first class.

    LoadLabelMap reads every table. mmseg's own LoadAnnotations is told it as `reduce_zero_label` or
    `label_map`, and knows 8 bits.

    Args:
        metainfo: holds "classes", the names in the order of their values.
        first_value: raw value of the first class (0, or 1 where 0 means "other").
        ignore: raw values that are never judged.
    """

    METAINFO: ClassVar[dict] = {}

    def __init__(
        self,
        metainfo: dict | None = None,
        first_value: int = 0,
        ignore: tuple[int, ...] = (255,),
        **kwargs: Any,
    ):
        names = (metainfo or {}).get("classes") or self.METAINFO.get("classes")
        if not names or isinstance(names, str):
            raise InputError(
                "label maps carry no names: state them, in the order of their values, in a file "
                f"given as `classes` or as a tuple in metainfo.classes, not {names!r}."
            )
        self.label_table = label_maps.LabelTable(
            tuple(names), first_value=first_value, ignore=tuple(ignore)
        )
        # mmseg's words for the table of ADE20K: 0 is no class, the others count from 1.
        reduced = (
            first_value == 1
            and {0} <= set(ignore) <= {0, label_maps.IGNORE}
            and label_maps.IGNORE not in self.label_table.raw_to_index
        )
        super().__init__(metainfo=metainfo, reduce_zero_label=reduced, **kwargs)
        self._require_8_bits()

    def _require_8_bits(self) -> None:
        largest = max([*self.label_table.raw_to_index, *self.label_table.ignore])
        by_mmseg = any(isinstance(step, LoadAnnotations) for step in self.pipeline.transforms)
        if by_mmseg and largest > label_maps.IGNORE:
            raise InputError(
                f"label maps: value {largest} needs more than 8 bits, and mmseg's LoadAnnotations "
                "reads 8. Put dict(type='swin_dense.LoadLabelMap') in its place."
            )

    def _moved_values(self) -> dict[int, int]:
        """Return raw value -> index where they differ, as mmseg's LoadAnnotations applies it.

        A value that the table lacks must not become a class: it gets an index that none has.
        """
        index_of, count = self.label_table.raw_to_index, len(self.label_table.classes)
        known = index_of | dict.fromkeys(self.label_table.ignore, label_maps.IGNORE)
        known |= {raw: label_maps.MOST_CLASSES - 1 for raw in range(count) if raw not in known}
        return {raw: index for raw, index in known.items() if raw != index}

    def load_data_list(self) -> list[dict]:
        """Pair files by name, with any image suffix; mmseg's own listing knows one suffix only."""
        pairs = label_maps.pair_files(
            self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        )
        moved = None if self.reduce_zero_label else self._moved_values() or None
        return [
            {
                "img_path": str(image),
                "seg_map_path": str(labels),
                "label_map": moved,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, labels in pairs
        ]

    def get_data_info(self, idx: int) -> dict:
        return {**super().get_data_info(idx), "label_table": self.label_table}


@DATASETS.register_module()
class ADE20K(LabelMaps):
    """The 150 classes of ADE20K scene parsing; raw value 0 is "other" and is not judged."""

    METAINFO: ClassVar[dict] = ADE20KDataset.METAINFO

    def __init__(self, first_value: int = 1, ignore: tuple[int, ...] = (0,), **kwargs: Any):
        super().__init__(first_value=first_value, ignore=ignore, **kwargs)


def location(dataset: dict[str, Any], key: str) -> Path:
    """Return the place of `ann_file`, or of an entry of `data_prefix`, of a dataset config."""
    relative = dataset[key] if key in dataset else dataset["data_prefix"][key]
    return Path(dataset.get("data_root") or "") / relative
