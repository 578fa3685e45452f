"""mmdet's and mmseg's data sets with classes matched by name and labels read by one table."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmdet.datasets import BaseDetDataset, CocoDataset
from mmengine.dataset import force_full_init
from mmengine.fileio import get_local_path, load
from mmseg.datasets import ADE20KDataset, BaseSegDataset, LoadAnnotations

from swin_dense.datasets import (
    coco_file,
    coco_layout,
    coco_panoptic,
    coco_problems,
    findings,
    image_names,
    label_maps,
)
from swin_dense.datasets.images import SUFFIXES
from swin_dense.errors import InputError
from swin_dense.registry import DATASETS


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Say which annotations image i has: order[starts[i] : starts[i + 1]], as in the file."""

    order: np.ndarray
    starts: np.ndarray
    kept: np.ndarray  # (m,) bool, which of them are samples' instances

    def of(self, image: int) -> np.ndarray:
        return self.order[self.starts[image] : self.starts[image + 1]]

    def __deepcopy__(self, memo: dict) -> "_Rows":
        return self  # it never changes


@DATASETS.register_module()
class CocoInstances(CocoDataset):
    """A COCO-format instance set. Without metainfo.classes, the classes are the file's.

    A sample is made when it is asked for, by mmdet's own `parse_data_info`, from columns that all
    processes of a machine share (`datasets.coco_file`); there is no `data_list`. What an entry has
    beside COCO's own fields is not read.

    `data_prefix.seg`, where there is one, is a folder of label maps of things and stuff: the class
    is the value. LoadLabelMap reads them, or mmdet's LoadAnnotations(with_seg=True).

    Args:
        semantic_classes: how many values these maps have, from 0; 255 is never judged.
    """

    METAINFO: ClassVar[dict] = {}

    def __init__(
        self, *args: Any, semantic_classes: int = label_maps.MOST_CLASSES, **kwargs: Any
    ) -> None:
        names = tuple(f"value {value}" for value in range(semantic_classes))
        self.label_table = label_maps.LabelTable(names)
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        if getattr(self, "_fully_initialized", False):
            return
        self._open()
        self._proposals = self._read_proposals() if self.proposal_file is not None else None
        self._shown = self._kept_images()  # positions in the file, in the order of samples
        if self._indices is not None:
            self._shown = self._chosen(self._indices)
        self._fully_initialized = True

    def _open(self) -> None:
        """Read the columns, and find which annotations each image has."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            self.file = coco = coco_file.open_coco(path)
        findings.refuse(self.ann_file, coco.findings)
        if "classes" not in self._metainfo:
            self._metainfo["classes"] = tuple(coco.categories.values())
        names = self._metainfo["classes"]
        if self.test_mode:  # its file may list only the categories that it shows
            found = coco_layout.present_classes(names, coco.categories)
        else:
            found = coco_layout.match_classes(names, coco.categories, subset=True)
        self.cat_ids = list(found.values())
        self.cat2label = {found[name]: i for i, name in enumerate(names) if name in found}
        label = np.array([self.cat2label.get(n, -1) for n in coco.category_ids], np.int64)
        self._label = np.append(label, -1)[coco.category]  # of annotations
        order = np.argsort(coco.image, kind="stable")
        starts = np.searchsorted(coco.image[order], np.arange(len(coco) + 1))
        kept = (self._label >= 0) & (coco_problems.drop_reasons(coco) < 0)
        self._rows = _Rows(order, starts, kept)
        prefix = self.data_prefix["img"]
        files = image_names.find(prefix, coco.file_names).files if os.path.isdir(prefix) else []
        # Only those that differ: this goes to every worker.
        pairs = zip(coco.file_names, files, strict=False)
        self._renamed = {i: file for i, (name, file) in enumerate(pairs) if name != file}

    def _kept_images(self) -> np.ndarray:
        """Return the images of samples: in training, those that filter_cfg lets through."""
        every = np.arange(len(self.file))
        if self.test_mode or self.filter_cfg is None:
            return every
        sides = np.minimum(self.file.heights, self.file.widths)
        kept = sides >= self.filter_cfg.get("min_size", 0)
        if self.filter_cfg.get("filter_empty_gt", False):
            image = self.file.image[self._label >= 0]
            kept &= np.bincount(image[image >= 0], minlength=len(kept)) > 0
        return every[kept]

    def _read_proposals(self) -> list:
        """Read the proposals of each image, which mmdet finds by the last two parts of a path."""
        path = str(self.proposal_file)
        path = path if os.path.isabs(path) else os.path.join(self.data_root or "", path)
        stored = load(path, backend_args=self.backend_args)
        names = [self._image_info(image)["file_name"] for image in range(len(self.file))]
        paths = [os.path.join(self.data_prefix["img"], name) for name in names]
        return [stored["/".join(path.split("/")[-2:])] for path in paths]

    def _chosen(self, indices: int | Sequence[int]) -> np.ndarray:
        if isinstance(indices, int):
            return self._shown[:indices] if indices >= 0 else self._shown[indices:]
        if not isinstance(indices, Sequence | np.ndarray):
            raise TypeError(f"indices are a number or a sequence of them, not {type(indices)}")
        return self._shown[np.asarray(indices, np.int64)]

    def _image_info(self, image: int) -> dict[str, Any]:
        coco = self.file
        return {
            "img_id": coco.image_ids[image],
            "file_name": self._renamed.get(image, coco.file_names[image]),
            "height": coco.heights[image].item(),
            "width": coco.widths[image].item(),
        }

    def _sample(self, image: int) -> dict[str, Any]:
        """Make the sample of an image, given by its position in the file."""
        coco = self.file
        rows = self._rows.of(image)
        rows = rows[self._rows.kept[rows]]
        fields = zip(
            rows.tolist(),
            coco.box[rows].tolist(),
            coco.area[rows].tolist(),
            coco.crowd[rows].tolist(),
            coco.category[rows].tolist(),
            strict=True,
        )
        annotations = [
            {
                "id": coco.id_of(row),
                "image_id": coco.image_ids[image],
                "category_id": coco.category_ids[category],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                "segmentation": coco.segmentation(row),
            }
            for row, box, area, crowd, category in fields
        ]
        raw = {"raw_ann_info": annotations, "raw_img_info": self._image_info(image)}
        found: dict[str, Any] = self.parse_data_info(raw)  # type: ignore[assignment]
        if self._proposals is not None:
            found["proposals"] = self._proposals[image]
        return found

    def load_data_list(self) -> list[dict]:
        """Return the samples of all images, filtered or not; a run has no use for it."""
        if not hasattr(self, "file"):
            self._proposals = None
            self._open()
        return [self._sample(image) for image in range(len(self.file))]

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        found = self._sample(int(self._shown[idx]))
        found["sample_idx"] = idx if idx >= 0 else len(self) + idx
        return {**found, "label_table": self.label_table} if "seg" in self.data_prefix else found

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of each object of a sample, without making the sample."""
        rows = self._rows.of(int(self._shown[idx]))
        return self._label[rows[self._rows.kept[rows]]].tolist()

    @property
    def cat_img_map(self) -> dict[Any, list]:  # type: ignore[override]
        """Return category id -> ids of images, one for each annotation."""
        coco = self.file
        found: dict[Any, list] = {number: [] for number in coco.category_ids}
        for image, category in zip(coco.image.tolist(), coco.category.tolist(), strict=True):
            if min(image, category) >= 0:
                found[coco.category_ids[category]].append(coco.image_ids[image])
        return found

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        self._shown = self._chosen(indices)

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> "CocoInstances":
        subset = self._copy_without_annotation()
        subset.data_list = []
        subset._shown = self._chosen(indices)
        return subset

    @force_full_init
    def __len__(self) -> int:
        return len(self._shown)


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

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of an image's segments; crowds are not among them."""
        segments = self.get_data_info(idx)["segments"]
        return [s["label"] for s in segments if s["label"] is not None and not s["iscrowd"]]


@DATASETS.register_module()
class LabelMaps(BaseSegDataset):
    """Images beside label maps of the same name; value `first_value` is the first class.

    LoadLabelMap reads every table. mmseg's own LoadAnnotations is told it as `reduce_zero_label` or
    `label_map`, and knows 8 bits.

    Args:
        metainfo: holds "classes", the names in the order of their values.
        first_value: raw value of the first class (0, or 1 where 0 means "other").
        ignore: raw values that are never judged.
        img_suffix, seg_map_suffix: what the names of images and label maps end with, all before it
            being equal, as in "_leftImg8bit.png"; None for any image, and for .png.

    `ann_file`, where there is one, lists the label maps to take: see `label_maps.choose_pairs`.
    """

    METAINFO: ClassVar[dict] = {}

    def __init__(
        self,
        metainfo: dict | None = None,
        first_value: int = 0,
        ignore: tuple[int, ...] = (255,),
        img_suffix: str | None = None,
        seg_map_suffix: str | None = None,
        **kwargs: Any,
    ):
        stated = {"img_suffix": img_suffix, "seg_map_suffix": seg_map_suffix}
        kwargs |= {key: value for key, value in stated.items() if value}
        self.suffixes = (img_suffix or SUFFIXES, seg_map_suffix or ".png")
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
        """List the pairs with what mmseg's LoadAnnotations needs of the table."""
        moved = None if self.reduce_zero_label else self._moved_values() or None
        return [
            {
                "img_path": str(image),
                "seg_map_path": str(labels),
                "label_map": moved,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, labels in self.pairs()
        ]

    def pairs(self) -> list[tuple[Path, Path]]:
        """Pair images and label maps by name; mmseg's own listing knows one image suffix only."""
        images, labels = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        pairs = label_maps.pair_files(images, labels, *self.suffixes)
        return label_maps.choose_pairs(pairs, labels, self.ann_file) if self.ann_file else pairs

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
