"""Mean and std follow the weights of a backbone of another project; others are left alone."""

from conftest import ROOT
from mmengine.config import Config

from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import statistics

IMAGENET = [123.675, 116.28, 103.53]


def followed(backbone: dict) -> tuple[Config, list[str]]:
    config = Config.fromfile(str(ROOT / "configs/upernet_swin_nano.py"))
    config.model.backbone = backbone
    said: list[str] = []
    statistics.follow(config, said.append)
    return config, said


def test_they_follow_and_it_is_said() -> None:
    config, said = followed(dict(type="swin_dense.HuggingFace", model="beit"))
    assert config.model.data_preprocessor.mean == [127.5] * 3
    assert config.model.data_preprocessor.std == [127.5] * 3
    assert said[0].startswith("model.backbone: transformers' beit: the licence")
    text = (
        f"model.data_preprocessor.mean: {IMAGENET} -> [127.5, 127.5, 127.5] (follows the weights)"
    )
    assert text in said
    assert len(said) == 3


def test_equal_ones_and_those_of_other_backbones_stay() -> None:
    hiera = dict(depths=[1, 1, 1, 1], image_size=[64, 64])
    config, said = followed(dict(type="swin_dense.HuggingFace", model="hiera", config=hiera))
    assert config.model.data_preprocessor.mean == IMAGENET
    assert "takes images of 64x64" in said[1]
    assert len(said) == 2
    config, said = followed(dict(type="swin_dense.Swin", arch="nano"))
    assert config.model.data_preprocessor.mean == IMAGENET
    assert said == []


def test_a_config_that_is_loaded_is_complete(tmp_path) -> None:
    """Channels come first, so that a wrong model is refused before anything is said of it."""
    leaf = tmp_path / "leaf.py"
    kind = "type='swin_dense.HuggingFace', model='beit', config=dict(num_hidden_layers=4)"
    leaf.write_text(
        f"_base_ = {str(ROOT / 'configs/_base_/upernet.py')!r}\n"
        f"model = dict(backbone=dict({kind}, img_size=64))\n"
    )
    said: list[str] = []
    config = configs.load(leaf, say=said.append)
    assert config.model.decode_head.in_channels == [768] * 4
    assert config.model.data_preprocessor.std == [127.5] * 3
    assert len(said) == 3
