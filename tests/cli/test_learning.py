"""Learning is real: a small detector fitted on two photographs finds what is in them again."""

import json
import os
from pathlib import Path

import pytest
from conftest import CONFIGS, ROOT

from swin_dense.cli import test, train

COCO = Path(os.environ.get("SWIN_DENSE_SHARED", ROOT.parent / "shared")) / "data/coco_mini"
CHOSEN = 2  # images, those with the fewest but at least three objects


def two_images(root):
    """A data set whose two splits are the same two images of COCO, crowds left out."""
    content = json.loads((COCO / "annotations/instances_train2017.json").read_text())
    objects = {image["id"]: [] for image in content["images"]}
    for row in content["annotations"]:
        objects[row["image_id"]].append(row)
    usable = [
        i for i, rows in objects.items() if len(rows) >= 3 and not any(r["iscrowd"] for r in rows)
    ]
    chosen = sorted(usable, key=lambda i: (len(objects[i]), i))[:CHOSEN]
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [row for i in chosen for row in objects[i]]
    used = {row["category_id"] for row in content["annotations"]}
    content["categories"] = [c for c in content["categories"] if c["id"] in used]
    for split in ("train", "val"):
        folder = root / f"images/{split}"
        folder.mkdir(parents=True)
        for image in content["images"]:
            data = (COCO / "train2017" / image["file_name"]).read_bytes()
            (folder / image["file_name"]).write_bytes(data)
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return content


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not COCO.is_dir(), reason=f"no COCO sample at {COCO}")
def test_two_photographs_are_learnt(tmp_path):
    two_images(tmp_path / "set")
    config = tmp_path / "two.py"
    config.write_text(
        f'_base_ = ["{CONFIGS["detection"]}"]\n'
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n"
    )
    common = ["--data-root", str(tmp_path / "set"), "--image-scale", "416,320"]
    work = tmp_path / "work"
    arguments = [str(config), *common, "--work-dir", str(work), "--max-iters", "700", "--no-val"]
    flip = "train_dataloader.dataset.pipeline.3.prob=0.0"
    assert train.main([*arguments, "--cfg-options", flip]) == 0
    weights = str(work / "iter_700.pth")
    assert test.main([str(config), weights, *common, "--work-dir", str(tmp_path / "test")]) == 0
    numbers = json.loads((tmp_path / "test/metrics.json").read_text())["metrics"]
    print({name: numbers[name] for name in ("bbox_AP", "segm_AP")})
    assert numbers["bbox_AP"] > 0.9, numbers
    assert numbers["segm_AP"] > 0.9, numbers
