"""A random set of objects and detections, judged by hotcoco, and its matches."""

import contextlib
import io
from pathlib import Path

import hotcoco
import numpy as np
from PIL import Image

from swin_dense.report import detections, matches

NAMES = ("cat & <b>dog</b>", '"kite"', "自行车")


def a_set(seed: int, images: int = 7, noise: float = 2.0) -> tuple[dict, list[dict]]:
    """Return a dataset and detections: crowds, ties, empty images, a class without objects."""
    truth, chance = np.random.default_rng(7), np.random.default_rng(seed)
    shown = [
        {"id": i, "width": 130, "height": 110, "file_name": f"a <{i}> & b.png"}
        for i in range(1, images + 1)
    ]
    rows: list[dict] = []
    found: list[dict] = []
    for one in shown:
        for _ in range(truth.integers(0, 7)):
            x, y, w, h = (float(v) for v in (*truth.uniform(0, 60, 2), *truth.uniform(5, 50, 2)))
            row = {"id": len(rows) + 1, "image_id": one["id"], "bbox": [x, y, w, h], "area": w * h}
            row["category_id"] = int(truth.choice([3, 8]))
            row["iscrowd"] = int(truth.random() < 0.15)
            rows.append(row)
            for _ in range(chance.integers(0, 4)):
                dx, dy = chance.normal(0, noise, 2).tolist()
                score = round(float(chance.random()), 1)  # with ties
                label = row["category_id"] if chance.random() < 0.8 else 3
                box = [x + dx, y + dy, w, h]
                found.append(
                    {"image_id": one["id"], "category_id": label, "bbox": box, "score": score}
                )
    categories = [{"id": i, "name": n} for i, n in zip((3, 8, 9), NAMES, strict=True)]
    return {"images": shown, "annotations": rows, "categories": categories}, found


def judge(dataset: dict, found: list[dict]) -> hotcoco.COCOeval:
    truth = hotcoco.COCO(dataset)
    judged = hotcoco.COCOeval(truth, truth.load_res(found), "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        judged.run()
    return judged


def matched(dataset: dict, found: list[dict]):
    names = {one["id"]: one["file_name"] for one in dataset["images"]}
    return matches.of_objects(judge(dataset, found), "bbox", names)


def with_pictures(folder: Path, dataset: dict, found: list[dict]) -> detections.Found:
    """Return what a page is made of, with a picture of each image."""
    paths = {}
    for one in dataset["images"]:
        paths[one["id"]] = folder / f"{one['id']}.png"
        noise = np.random.default_rng(one["id"]).integers(0, 255, (110, 130, 3), np.uint8)
        Image.fromarray(noise).save(paths[one["id"]])
    names = {one["id"]: one["file_name"] for one in dataset["images"]}
    return detections.Found({"bbox": judge(dataset, found)}, paths, names)
