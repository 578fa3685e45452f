"""The twelve COCO numbers against pycocotools itself, and classes matched by name."""

import copy
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.metrics import CocoMetric, IoUMetric, NamedCOCO, table_name

NAMES = ("cat", "dog", "emu")
IDS = (9, 4, 7)  # neither sorted nor dense
IN_COCO_S_ORDER = {  # mmdet's names in the order of pycocotools' stats -> those of our tables
    "mAP": "AP",
    "mAP_50": "AP50",
    "mAP_75": "AP75",
    "mAP_s": "AP_small",
    "mAP_m": "AP_medium",
    "mAP_l": "AP_large",
    "AR@1": "AR_1",
    "AR@10": "AR_10",
    "AR@100": "AR_100",
    "AR_s@100": "AR_small",
    "AR_m@100": "AR_medium",
    "AR_l@100": "AR_large",
}


@pytest.fixture
def annotations(tmp_path):
    """Three images of 200x180 with boxes of all three COCO sizes, masks a corner smaller."""
    rng = np.random.default_rng(3)
    images, objects = [], []
    for image in (11, 5, 8):
        images.append(dict(id=image, file_name=f"{image}.jpg", height=180, width=200))
        for _ in range(6):
            side = rng.choice([12, 50, 110])
            x, y = (int(v) for v in rng.integers(0, 60, 2))
            mask = np.zeros((180, 200), np.uint8, order="F")
            mask[y : y + side, x : x + side] = 1
            mask[y : y + 3, x : x + 3] = 0
            code = rle.encode(mask)
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image,
                    category_id=int(rng.choice(IDS)),
                    bbox=[x, y, int(side), int(side)],
                    area=float(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(size=code["size"], counts=code["counts"].decode()),
                )
            )
    categories = [dict(id=i, name=n) for i, n in zip(IDS, NAMES, strict=True)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))
    return path


def predictions(path, names):
    """Each object found, moved by a few pixels, some with the wrong class, plus false ones."""
    rng = np.random.default_rng(4)
    content = json.loads(path.read_text())
    label_of = {i: names.index(n) for i, n in zip(IDS, NAMES, strict=True)}
    samples, rows = [], []
    for image in content["images"]:
        boxes, scores, labels, masks = [], [], [], []
        for row in content["annotations"]:
            if row["image_id"] != image["id"]:
                continue
            x, y, w, h = row["bbox"]
            x, y = x + int(rng.integers(0, 4)), y + int(rng.integers(0, 4))
            category = row["category_id"] if rng.random() < 0.8 else int(rng.choice(IDS))
            score = float(np.float32(rng.random()))
            mask = np.zeros((180, 200), np.uint8, order="F")
            mask[y : y + h, x : x + w] = 1
            boxes.append([x, y, x + w, y + h])
            scores.append(score)
            labels.append(label_of[category])
            masks.append(mask)
            rows.append((image["id"], category, [x, y, w, h], score, mask))
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(180, 200),
                pred_instances=dict(
                    bboxes=torch.tensor(boxes, dtype=torch.float32),
                    scores=torch.tensor(scores),
                    labels=torch.tensor(labels),
                    masks=torch.tensor(np.stack(masks)).bool(),
                ),
            )
        )
    return samples, rows


def by_pycocotools(path, rows, kind):
    truth = COCO(str(path))
    truth.dataset.setdefault("info", {})  # some of its versions ask for it
    found = []
    for image, category, box, score, mask in rows:
        row = dict(image_id=image, category_id=category, score=score)
        if kind == "bbox":
            row["bbox"] = box
        else:
            row["segmentation"] = rle.encode(mask)
        found.append(row)
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(found)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ("dog", "cat", "emu")])
def test_twelve_numbers_equal_pycocotools_whatever_the_order_of_classes(annotations, names):
    metric = CocoMetric(str(annotations))
    metric.dataset_meta = {"classes": names}
    samples, rows = predictions(annotations, names)
    metric.process({}, samples)
    numbers = metric.evaluate(len(samples))
    for kind in ("bbox", "segm"):
        names = [k.removeprefix(f"coco/{kind}_") for k in numbers if k.startswith(f"coco/{kind}_")]
        assert names == list(IN_COCO_S_ORDER)
        ours = [numbers[f"coco/{kind}_{name}"] for name in names]
        np.testing.assert_allclose(ours, by_pycocotools(annotations, rows, kind), atol=6e-4)
    assert numbers["coco/bbox_mAP"] > 0.2
    assert set(metric.per_class) == set(NAMES)
    mean = np.mean([row["segm_AP"] for row in metric.per_class.values()])
    assert abs(mean - numbers["coco/segm_mAP"]) < 2e-3


def test_tables_have_names_of_their_own():
    for name, ours in IN_COCO_S_ORDER.items():
        assert table_name(f"coco/segm_{name}") == f"segm_{ours}"
    assert [table_name(name) for name in ("mIoU", "panoptic/PQ_th")] == ["mIoU", "PQ_th"]


@pytest.mark.parametrize("metric", ["proposal", ["bbox", "boxes"], []])
def test_a_kind_that_is_not_measured_is_refused(metric):
    with pytest.raises(InputError, match=r"metric is 'bbox', 'segm' or both .* mmdet's CocoMetric"):
        CocoMetric(metric=metric)


def test_nothing_found_is_zero_not_a_missing_number(annotations):
    metric = CocoMetric(str(annotations))
    metric.dataset_meta = {"classes": NAMES}
    samples, _ = predictions(annotations, NAMES)
    for sample in samples:
        found = sample["pred_instances"]
        sample["pred_instances"] = {name: value[:0] for name, value in found.items()}
    metric.process({}, samples)
    assert metric.evaluate(len(samples))["coco/bbox_mAP"] == 0.0


def test_ids_come_in_the_order_of_the_names(annotations):
    coco = NamedCOCO(str(annotations))
    assert coco.get_cat_ids(cat_names=("emu", "cat")) == [7, 9]
    assert coco.get_cat_ids() == list(IDS)
    with pytest.raises(InputError, match=r"'Cat' .* Did you mean 'cat'"):
        coco.get_cat_ids(cat_names=("Cat", "dog"))


def test_mean_iou_by_hand():
    metric = IoUMetric()
    metric.dataset_meta = {"classes": ("sky", "road", "car")}
    truth = torch.tensor([[0, 0, 1, 1], [0, 255, 1, 2]])
    found = torch.tensor([[0, 1, 1, 1], [0, 2, 1, 1]])
    sample = dict(pred_sem_seg=dict(data=found[None]), gt_sem_seg=dict(data=truth[None]))
    metric.process({}, [sample])
    numbers = metric.evaluate(1)
    # sky 2 of 3; road 3 of 5 (one sky, one car taken for road); car 0 of 1; 5 of 7 judged right
    assert numbers["mIoU"] == pytest.approx(100 * (2 / 3 + 3 / 5 + 0) / 3, abs=0.01)
    assert numbers["aAcc"] == pytest.approx(100 * 5 / 7, abs=0.01)
    assert numbers["mAcc"] == pytest.approx(100 * (2 / 3 + 1 + 0) / 3, abs=0.01)
    assert metric.per_class["road"]["IoU"] == 60.0
