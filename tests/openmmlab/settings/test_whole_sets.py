"""One file, or one folder, of labels for all images: divided once, and the same ever after."""

import json
import shutil
from types import SimpleNamespace

import pytest
from conftest import CONFIGS

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import location
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import places
from swin_dense.openmmlab.settings.sections import LOADERS, datasets_of
from swin_dense.openmmlab.settings.whole_sets import Share
from swin_dense.registry import DATASETS


@pytest.fixture(params=["detection", "segmentation"])
def whole(request, small_shapes, tmp_path):
    """The thirteen images of the small shapes set with undivided labels, and the nano config."""
    root = tmp_path / "set"
    source = small_shapes.root
    (root / "images").mkdir(parents=True)
    maps = request.param == "segmentation"
    content = None
    for number, split in enumerate(("train", "val")):
        for path in (source / "images" / split).iterdir():
            shutil.copy(path, root / "images" / f"{split}_{path.name}")
        if maps:
            (root / "masks").mkdir(exist_ok=True)
            for path in (source / "label_maps" / split).iterdir():
                shutil.copy(path, root / "masks" / f"{split}_{path.name}")
            continue
        part = json.loads(small_shapes.annotation_file(split).read_text())
        for image in part["images"]:
            image.update(id=image["id"] + 1000 * number, file_name=f"{split}_{image['file_name']}")
        for entry in part["annotations"]:
            entry["image_id"] += 1000 * number
            entry["id"] += 10**6 * number
        content = content or {**part, "images": [], "annotations": []}
        content["images"] += part["images"]
        content["annotations"] += part["annotations"]
    if maps:
        shutil.copy(source / "classes.txt", root)
    else:
        (root / "annotations.json").write_text(json.dumps(content))
    return SimpleNamespace(root=root, name=request.param, work=tmp_path / "work", content=content)


def settle(whole, share=0.3, seed=0, resumed=None, work=None):
    """Complete the nano config with the set; its config and the first line that was said."""
    config = configs.load(CONFIGS[whole.name])
    lines = places.complete_data(
        config,
        data_root=str(whole.root),
        share=Share(share, seed, work or whole.work, resumed),
    )
    return config, lines[0]


def images(config, split):
    """The images that a split's data set holds, as it is built."""
    (dataset,) = datasets_of(config, (split,))
    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=False, test_mode=True))
    return sorted(built.get_data_info(i)["img_path"] for i in range(len(built)))


def test_each_image_is_trained_on_or_judged_by(whole):
    config, line = settle(whole)
    train, val = images(config, "train"), images(config, "val")
    everything = sorted(map(str, (whole.root / "images").iterdir()))
    assert sorted(train + val) == everything
    assert val == images(config, "test")
    assert len(val) == pytest.approx(0.3 * 13, abs=1.5)
    assert f"divided: {len(train)} images to train, {len(val)} to validate" in line
    assert str(whole.work / "split") in line


@pytest.mark.parametrize("whole", ["detection"], indirect=True)
def test_annotations_go_with_their_images(whole):
    config, _ = settle(whole)
    found = []
    for dataset in datasets_of(config, ("train", "val")):
        part = json.loads(location(dataset, "ann_file").read_text())
        assert part["categories"] == whole.content["categories"]
        ids = {image["id"] for image in part["images"]}
        assert {e["image_id"] for e in part["annotations"]} <= ids
        found += part["annotations"]
    assert sorted(e["id"] for e in found) == sorted(e["id"] for e in whole.content["annotations"])
    (judged,) = datasets_of(config, ("val",))
    assert config.val_evaluator.ann_file == str(location(judged, "ann_file"))


def test_the_same_seed_divides_the_same_and_another_does_not(whole, tmp_path):
    first = images(settle(whole)[0], "val")
    assert images(settle(whole, work=tmp_path / "other")[0], "val") == first
    others = [images(settle(whole, seed=s, work=tmp_path / "other")[0], "val") for s in (1, 2, 3)]
    assert any(other != first for other in others)


def test_a_resumed_run_keeps_its_division(whole):
    first = images(settle(whole, seed=4)[0], "val")
    config, line = settle(whole, share=None, seed=0, resumed=whole.work)
    assert images(config, "val") == first
    assert "seed 4" in line
    with pytest.raises(InputError, match=r"was divided with val_share 0.3, now it is 0.5"):
        settle(whole, share=0.5, resumed=whole.work)


def test_what_runs_from_the_config_later_has_the_same(whole):
    """As test does with the config of the checkpoint, with and without the data root."""
    config, _ = settle(whole)
    first = images(config, "test")
    places.complete_data(config, ("test",))
    assert images(config, "test") == first
    places.complete_data(config, ("test",), data_root=str(whole.root))
    assert images(config, "test") == first


def test_without_a_share_the_error_says_what_to_do(whole):
    with pytest.raises(InputError, match=r"all images, undivided: .*`val_share` 0\.2"):
        settle(whole, share=None)


def test_trained_on_whole_without_validation(whole):
    config = configs.load(CONFIGS[whole.name])
    places.complete_data(config, ("train",), data_root=str(whole.root))
    assert len(images(config, "train")) == 13


def test_a_divided_set_is_not_divided_again(whole, small_shapes):
    whole.root = small_shapes.root
    with pytest.raises(InputError, match=r"is divided already, into .*train"):
        settle(whole)


def test_a_folder_without_labels_says_what_is_looked_for(whole, tmp_path):
    whole.root = tmp_path / "empty"
    whole.root.mkdir()
    with pytest.raises(InputError, match="no labels for all images that `val_share` could divide"):
        settle(whole)


def test_the_built_in_set_is_not_divided(whole):
    config = configs.load(CONFIGS[whole.name])
    with pytest.raises(InputError, match="the built-in one is divided"):
        places.complete_data(config, data="shapes", share=Share(0.2, 0, whole.work))


def test_every_loader_is_told(whole):
    config, _ = settle(whole)
    for split in LOADERS:
        (dataset,) = datasets_of(config, (split,))
        assert location(dataset, "ann_file").is_absolute()
