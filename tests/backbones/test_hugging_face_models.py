"""Backbones of transformers: the contract, weights, mistakes."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from adapter_contract import AdapterContract
from networks import randomised

from swin_dense.backbones.hugging_face_models import HuggingFace, architectures
from swin_dense.openmmlab.engine import weights

# Those of the installed transformers whose configurations know enough of these values to be small.
SMALL = {
    "depths": [1, 2, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "embed_dim": 12,
    "num_heads": [1, 2, 4, 8],
    "embedding_size": 8,
    "intermediate_size": 48,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "image_size": 64,
}
FIRST = ("dinov2", "dinov3_vit", "hiera", "pvt_v2", "convnext", "swin", "vitdet", "beit", "resnet")


def small(name: str) -> dict:
    """Give the values of a small model that this architecture's configuration knows."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = CONFIG_MAPPING[name]().to_dict()
    values = {key: value for key, value in SMALL.items() if known.get(key) is not None}
    for key, value in values.items():
        if isinstance(known[key], list | tuple) and isinstance(value, int):
            values[key] = [value] * len(known[key])
    return values


def chosen() -> list[str]:
    """Keep of what is installed those that the issue names, and one of convolutions."""
    return [name for name in architectures() if name in FIRST]


class TestHuggingFace(AdapterContract):
    kind = HuggingFace

    @pytest.fixture(params=chosen(), scope="class")
    def stated(self, request) -> dict:
        return {"model": request.param, "config": small(request.param)}


def test_eight_models() -> None:
    assert len(chosen()) >= 8


@pytest.mark.parametrize("name", ["dinov2", "convnext"])
def test_a_folder_of_a_whole_model_loads(name: str, tmp_path: Path) -> None:
    """Weights of the model without a backbone's wrapper, as the hub has them."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[name](**small(name))
    theirs = randomised(transformers.AutoModel.from_config(config)).eval()
    theirs.save_pretrained(tmp_path)
    ours = HuggingFace(str(tmp_path), pretrained=True)
    ours.init_weights()
    (account,) = weights.loaded_into(ours)
    assert set(account["unused"]) <= {"layernorm.weight", "layernorm.bias"}
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        inside = theirs(image, output_hidden_states=True).hidden_states
        states = ours.net(image, output_hidden_states=True).hidden_states
    assert len(states) == len(inside) > 3
    for mine, yours in zip(states, inside, strict=True):
        torch.testing.assert_close(mine.flatten(), yours.flatten(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (
            {"model": "dinov22", "config": {}},
            r"no backbone of .* 'dinov22'.*'dinov2'",
        ),
        ({"model": "convnextt"}, r"no architecture, no folder .* Did you mean 'convnext'"),
        ({"model": "swin", "config": {"embed_dims": 8}}, r"no 'embed_dims'.*mean 'embed_dim'"),
        ({"model": "./nowhere/at/all"}, r"cannot be read .*a folder that holds its config\.json"),
        ({"model": "vitpose_backbone"}, r"takes no image that was tried"),
        ({"model": "convnext", "pretrained": True}, r"an architecture and has no weights"),
    ],
)
def test_mistakes_say_the_rule(stated: dict, text: str, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"^HuggingFace: .*{text}"):
            HuggingFace(**stated)


def test_a_missing_package_is_named_with_what_helps(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[transformers\]'"):
        HuggingFace("swin")


def test_statistics_are_those_of_the_folder(tmp_path: Path) -> None:
    from transformers import ResNetConfig

    ResNetConfig().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    about = HuggingFace.about(str(tmp_path))
    assert about.mean == [25.5, 51.0, 76.5]
    assert about.std == [102.0, 127.5, 153.0]
    assert HuggingFace.about("beit").mean == [127.5] * 3
    assert "swin_dense.Swin" in HuggingFace.about("swin").lines[1]
