"""The twelve COCO numbers against pycocotools itself, and classes matched by name."""

import copy
import json

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric as MMSegIoUMetric
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.coco_metric import CocoMetric, RepairedCocoMetric
from swin_dense.openmmlab.data.metrics import IoUMetric, NamedCOCO, table_name

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
        np.testing.assert_allclose(ours, by_pycocotools(annotations, rows, kind), atol=1e-12)
    assert numbers["coco/bbox_mAP"] > 0.2
    assert set(metric.per_class) == set(NAMES)
    mean = np.mean([row["segm_AP"] for row in metric.per_class.values()])
    assert abs(mean - numbers["coco/segm_mAP"]) < 1e-12


def test_tables_have_names_of_their_own():
    for name, ours in IN_COCO_S_ORDER.items():
        assert table_name(f"coco/segm_{name}") == f"segm_{ours}"
    assert [table_name(name) for name in ("mIoU", "panoptic/PQ_th")] == ["mIoU", "PQ_th"]


@pytest.mark.parametrize("metric", ["proposal_fast", ["bbox", "boxes"], []])
def test_a_kind_that_is_not_measured_is_refused(metric):
    with pytest.raises(InputError, match=r"one or several of bbox, segm, .* mmdet's CocoMetric"):
        CocoMetric(metric=metric)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (dict(back_end="cocoapi"), "back_end is one of hotcoco, pycocotools, ultra"),
        (dict(max_dets=(100, 10)), "rising whole numbers"),
        (dict(iou_thrs=[50]), "between 0 and 1"),
        (dict(format_only=True), "outfile_prefix says where"),
        (dict(lvis=True, metric="proposal"), "by back_end='hotcoco'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(wrong, text):
    with pytest.raises(InputError, match=text):
        CocoMetric(**wrong)


@pytest.mark.parametrize("kind", ["bbox", "segm", "boundary", "proposal"])
def test_the_names_are_told_before(annotations, kind):
    metric = CocoMetric(str(annotations), kind)
    metric.dataset_meta = {"classes": NAMES}
    samples, _ = predictions(annotations, NAMES)
    metric.process({}, samples)
    numbers = metric.evaluate(len(samples))
    assert [f"coco/{name}" for name in CocoMetric.names(dict(metric=kind))] == list(numbers)
    assert list(metric.judged) == [kind]
    assert len(metric.detections) == len(samples)


def test_an_image_that_two_processes_saw_counts_once(annotations):
    metric = CocoMetric(str(annotations))
    metric.dataset_meta = {"classes": NAMES}
    samples, _ = predictions(annotations, NAMES)
    metric.process({}, samples)
    once = metric.compute_metrics(metric.results)
    assert metric.compute_metrics([*metric.results, *metric.results[:2]]) == once


def test_result_files_have_the_ids_of_the_annotations_and_no_number_is_given(annotations, tmp_path):
    metric = CocoMetric(str(annotations), format_only=True, outfile_prefix=str(tmp_path / "a/out"))
    metric.dataset_meta = {"classes": NAMES[::-1]}
    samples, rows = predictions(annotations, NAMES[::-1])
    metric.process({}, samples)
    assert metric.evaluate(len(samples)) == {}
    assert metric.per_class == {}
    for kind in ("bbox", "segm"):
        written = json.loads((tmp_path / f"a/out.{kind}.json").read_text())
        assert [(r["image_id"], r["category_id"], r["score"]) for r in written] == [
            (image, category, score) for image, category, _, score, _ in rows
        ]
        assert [r["bbox"] for r in written] == [row[2] for row in rows]
    masks = [rle.decode(row["segmentation"]) for row in written]
    assert all((mask == row[4]).all() for mask, row in zip(masks, rows, strict=True))


def test_annotations_of_another_split_are_refused(annotations):
    metric = CocoMetric(str(annotations))
    metric.dataset_meta = {"classes": NAMES}
    samples, _ = predictions(annotations, NAMES)
    samples[0]["img_id"] = 77
    with pytest.raises(InputError, match=r"no image of id 77, .* different splits"):
        metric.process({}, samples)


def test_mmdet_s_own_metric_reads_a_file_without_info(annotations):
    metric = RepairedCocoMetric(ann_file=str(annotations), metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": NAMES}
    samples, rows = predictions(annotations, NAMES)
    metric.process({}, samples)
    numbers = metric.evaluate(len(samples))
    assert numbers["coco/bbox_mAP"] == pytest.approx(
        by_pycocotools(annotations, rows, "bbox")[0], abs=6e-4
    )


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
    assert numbers["mIoU"] == pytest.approx(100 * (2 / 3 + 3 / 5 + 0) / 3)
    assert numbers["aAcc"] == pytest.approx(100 * 5 / 7)
    assert numbers["mAcc"] == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert metric.per_class["road"] == {"IoU": pytest.approx(60), "Acc": pytest.approx(100)}
    assert metric.confusion.tolist() == [[2, 1, 0], [0, 3, 0], [0, 1, 0]]


def test_every_number_of_label_maps_is_mmseg_s(tmp_path):
    """Theirs is computed in float32 and rounded to a hundredth of a percent."""
    rng = np.random.default_rng(5)
    samples = []
    for i, shape in enumerate([(31, 47), (1, 1), (22, 35)]):
        true, found = (torch.tensor(rng.integers(0, 4, (1, *shape))) for _ in range(2))
        true[rng.random((1, *shape)) < 0.2] = 255
        found = torch.where(torch.tensor(rng.random((1, *shape)) < 0.5), true.clamp(max=3), found)
        samples.append(
            dict(pred_sem_seg=dict(data=found), gt_sem_seg=dict(data=true), img_path=f"{i}.png")
        )
    found = {}
    for kind in (IoUMetric, MMSegIoUMetric):
        metric = kind(iou_metrics=["mIoU", "mDice", "mFscore"], beta=2)
        metric.dataset_meta = {"classes": ("a", "b", "c", "d", "never")}
        metric.process({}, copy.deepcopy(samples))
        found[kind] = metric.evaluate(len(samples))
    assert found[IoUMetric].keys() == found[MMSegIoUMetric].keys()
    for name, value in found[IoUMetric].items():
        assert value == pytest.approx(found[MMSegIoUMetric][name], abs=0.006)


def test_written_label_maps_are_not_judged(tmp_path):
    metric = IoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = {"classes": ("sky", "road", "car")}
    found = torch.tensor([[[0, 2, 1]]])
    metric.process({}, [dict(pred_sem_seg=dict(data=found), img_path="x/a.jpg")])
    assert metric.evaluate(1) == {}
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 2, 1]]
