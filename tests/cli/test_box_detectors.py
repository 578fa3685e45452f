"""Detectors without masks, from pretrained weights to pictures, in small."""

import json

import pytest
import torch
from conftest import ROOT, SMALL
from PIL import Image

from swin_dense.backbones.swin import Swin
from swin_dense.checkpoints import files
from swin_dense.cli import image_demo, test, train
from swin_dense.datasets import shapes
from swin_dense.openmmlab.settings import config as configs

BACKBONE = dict(arch="nano")
SIZES = [f"model.backbone.{key}={str(v).replace(' ', '')}" for key, v in BACKBONE.items()]
SIZES += ["model.test_cfg.max_per_img=12"]  # at most 30 queries times 6 classes; quick to draw
DETR = ["model.num_queries=30"]
DETR += ["model.encoder.num_layers=1", "model.decoder.num_layers=2"]
NECK = ["model.neck.1.num_blocks=1"]
OPTIONS = {
    "deformable_detr_swin_t": [*SIZES, *DETR],
    "dino_swin_t": [*SIZES, *DETR],
    "atss_dyhead_swin_t": [*SIZES, *NECK, "model.test_cfg.score_thr=0.0"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_from_pretrained_weights_to_pictures(name, small_shapes, tmp_path, capsys):
    config, root = str(ROOT / f"configs/{name}.py"), str(small_shapes.root)
    small = [*SMALL, "test_dataloader.num_workers=0", *OPTIONS[name]]
    backbone = Swin(**BACKBONE, out_indices=(1, 2, 3)).state_dict()
    torch.save({"model": backbone}, tmp_path / "imagenet.pth")

    # Trained in bfloat16 from the backbone's weights,
    work, again = tmp_path / "work", tmp_path / "again"
    command = [config, "--data-root", root, "--max-iters", "3", "--amp", "bf16"]
    status = train.main(
        [*command, "--work-dir", str(work), "--pretrained", str(tmp_path / "imagenet.pth"), *small]
        + ["default_hooks.checkpoint.by_epoch=False", "default_hooks.checkpoint.interval=2"]
    )
    assert status == 0
    assert "random weights" not in capsys.readouterr().out
    state = files.read(work / "iter_3.pth")["state_dict"]
    for key, value in backbone.items():
        # three steps of AdamW move a weight by about three learning rates
        torch.testing.assert_close(state[f"backbone.{key}"], value, atol=1e-3, rtol=0)

    # resumed,
    status = train.main(
        [*command, "--work-dir", str(again), "--no-val", "--resume", str(work / "iter_2.pth")]
        + small
    )
    assert status == 0
    whole, resumed = (files.read(folder / "iter_3.pth") for folder in (work, again))
    assert resumed["meta"]["iter"] == 3
    assert [g["lr"] for g in resumed["optimizer"]["param_groups"]] == [
        g["lr"] for g in whole["optimizer"]["param_groups"]
    ]

    # tested by boxes alone,
    weights, out = str(work / "weights_fp16.safetensors"), tmp_path / "numbers.json"
    status = test.main(
        [config, weights, "--data-root", root, "--work-dir", str(tmp_path / "w")]
        + ["--out", str(out), *small]
    )
    assert status == 0
    content = json.loads(out.read_text())
    assert len(content["metrics"]) == 10  # COCO's twelve without those of large objects
    assert all(key.startswith("bbox_A") for key in content["metrics"])
    assert set(content["per_class"]) == set(shapes.CLASSES)
    rows = [row for row in content["per_class"].values() if row]  # of classes that were there
    assert rows
    assert all("bbox_AP" in row for row in rows)
    assert all(key.startswith("bbox_A") for row in rows for key in row)

    # and drawn without masks.
    status = image_demo.main(
        [str(small_shapes.image_dir("val")), config, weights, "--out-dir", str(tmp_path / "drawn")]
        + ["--score-thr", "0.0", *SMALL[:2], "--cfg-options", *OPTIONS[name]]
    )
    assert status == 0
    drawn = sorted((tmp_path / "drawn").glob("*.json"))
    assert len(drawn) == 4
    for path in drawn:
        rows = json.loads(path.read_text())["instances"]
        assert rows
        assert set(rows[0]) == {"class", "score", "box"}
        assert Image.open(path.with_suffix(".png")).size == (6 * 104, 6 * 72)


def test_an_image_with_fewer_places_than_queries(small_shapes, tmp_path, capsys):
    status = train.main(
        [str(ROOT / "configs/dino_swin_t.py"), "--data-root", str(small_shapes.root), "--no-val"]
        + ["--work-dir", str(tmp_path / "w"), "--max-iters", "1", *SMALL, *OPTIONS["dino_swin_t"]]
        + ["model.num_queries=300"]
    )
    assert status == 2
    assert "at least model.num_queries places" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_necks_in_parts_follow_the_backbone():
    said = []
    stated = {"model.neck.0.in_channels": [96, 192, 384]}
    config = configs.load(ROOT / "configs/atss_dyhead_swin_t.py", stated, say=said.append)
    assert config.model.neck[0].in_channels == [192, 384, 768]
    assert said == [
        "model.neck.0.in_channels: [96, 192, 384] -> [192, 384, 768] (follows the backbone)"
    ]
