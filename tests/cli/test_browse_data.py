"""Samples after the pipeline, for each task: the labels lie where the image's content is."""

import numpy as np
import pytest
from conftest import CONFIGS, ROOT, SMALL
from PIL import Image

from swin_dense.cli import browse_data
from swin_dense.datasets import label_maps
from swin_dense.openmmlab.engine import samples
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import places

NAMES = {**CONFIGS, "panoptic": ROOT / "configs/mask2former_swin_t_panoptic.py"}


def complete(name, root, split, **steps):
    """The config of a task with the small shapes set, and steps in its training pipeline."""
    config = configs.load(NAMES[name])
    places.complete_data(config, (split,), data_root=str(root))
    pipeline = config[f"{split}_dataloader"].dataset.pipeline
    for step in pipeline:
        step.update(steps.get(step["type"].rpartition(".")[2], {}))
    return config


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", NAMES)
def test_the_command_writes_pictures_and_a_page(name, split, small_shapes, tmp_path, capsys):
    out = tmp_path / "out"
    assert browse_data.main(
        [str(NAMES[name]), "--data-root", str(small_shapes.root), "--split", split, *SMALL[:2],
         "--count", "2", "--out-dir", str(out)]
    ) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "LoadImage: image of 104x72" in said
    assert f"2 pictures: {out}/index.html" in said
    assert sorted(p.name for p in out.glob("*.png")) == [f"{split}_000.png", f"{split}_001.png"]
    assert np.asarray(Image.open(out / f"{split}_000.png")).std() > 10


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_samples(name, small_shapes):
    first, again, other = (
        list(samples.draw_samples(complete(name, small_shapes.root, "train"), "train", 3, seed))
        for seed in (4, 4, 5)
    )
    assert [s.source for s in first] == [s.source for s in again] != [s.source for s in other]
    assert len({s.source for s in first}) == 3
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.rgb, two.rgb)
        assert one.steps == two.steps


@pytest.mark.parametrize("name", NAMES)
def test_unchanged_images_have_the_labels_of_their_files(name, small_shapes):
    """In validation nothing is flipped or cropped: against the label map of the set itself."""
    config = complete(name, small_shapes.root, "val", Resize=dict(scale=(104, 72)))
    for sample in samples.draw_samples(config, "val", 3, 0):
        file = sample.source
        np.testing.assert_array_equal(sample.rgb, np.asarray(Image.open(file).convert("RGB")))
        truth = label_maps.read_label_map(file.replace("/images/", "/label_maps/"))
        values = ("background", "circle", "square", "triangle", "star", "ring", "cross")
        if sample.masks is not None:
            found = np.zeros(truth.shape, int)
            for mask, label in zip(sample.masks, sample.labels, strict=True):
                found[mask] = values.index(sample.classes[label])
            np.testing.assert_array_equal(found, truth)
            for box, mask in zip(sample.boxes, sample.masks, strict=True):
                rows, columns = np.nonzero(mask)
                extents = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(box, extents, atol=1)
        if sample.label_map is not None:
            names = np.array([values.index(c) for c in sample.classes])
            np.testing.assert_array_equal(names[sample.label_map], truth)


@pytest.mark.parametrize("name", NAMES)
def test_a_flip_is_told_and_turns_image_and_labels(name, small_shapes):
    flipped = complete(name, small_shapes.root, "train", RandomFlip=dict(prob=1.0))
    for sample in samples.draw_samples(flipped, "train", 2, 0):
        assert any(step.startswith("RandomFlip: ") and "flipped" in step for step in sample.steps)


def test_repeated_and_mixed_sets(small_shapes):
    config = complete("detection", small_shapes.root, "train")
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(
        type="ClassBalancedDataset", oversample_thr=0.9, dataset=inner
    )
    assert len(list(samples.draw_samples(config, "train", 3, 0))) == 3
