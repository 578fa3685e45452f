"""The command's table adds up, its file holds the same, and mistakes end in a message."""

import json

import pytest
from conftest import CONFIGS, ROOT

from swin_dense.cli import model_info

NANO = str(CONFIGS["detection"])


def rows(printed):
    """Part -> its three columns as printed."""
    lines = [line.split() for line in printed.splitlines()]
    return {line[0]: [float(x) for x in line[1:]] for line in lines if len(line) == 4}


def test_the_table_adds_up(capsys):
    assert model_info.main([NANO, "--shape", "128,96", "--batch-size", "3"]) == 0
    printed = capsys.readouterr().out
    assert "FLOPs of one image of 128x96; activations of a training step of 3 x 128x96" in printed
    found = rows(printed)
    total = found.pop("total")
    assert {"backbone.layers.0", "neck", "rpn_head", "roi_head.mask_head"} <= found.keys()
    for column, rounding in enumerate((0.01, 0.01, 1)):
        parts = sum(row[column] for row in found.values())
        assert parts == pytest.approx(total[column], abs=rounding * len(found))
    assert total[0] == pytest.approx(2.12, abs=0.01)


def test_the_file_holds_the_numbers_of_the_table(tmp_path, capsys):
    path = tmp_path / "info.json"
    config = str(ROOT / "configs/upernet_swin_t.py")
    assert model_info.main([config, "--amp", "bf16", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "one image of 2048x512; activations of a training step of 2 x 512x512, bf16" in printed
    written = json.loads(path.read_text())
    assert (written["shape"], written["training_shape"]) == ([512, 2048], [512, 512])
    for name, (parameters, flops, kept) in rows(printed).items():
        part = written["parts"].get(name, written["total"])
        assert part["parameters"] / 1e6 == pytest.approx(parameters, abs=0.01)
        assert part["flops"] / 1e9 == pytest.approx(flops, abs=0.01)
        assert part["activations"] / 2**20 == pytest.approx(kept, abs=1)
    assert written["amp"] == "bf16"
    total, uses = written["total"], written["training_memory_by_use"]
    assert uses.pop("activations") == total["activations"]
    numbers = {"weights": 4, "gradients": 4, "optimizer_state": 8}
    assert uses == {use: size * total["parameters"] for use, size in numbers.items()}
    assert written["training_memory"] == 16 * total["parameters"] + total["activations"]
    assert f"= {written['training_memory'] / 2**20:.0f} MiB" in printed


def test_training_is_counted_at_the_largest_size_of_the_pipeline(tmp_path, capsys):
    """FLOPs stay at the papers' size; a size that is asked for is that of both."""
    path = tmp_path / "info.json"
    assert model_info.main([NANO, "--batch-size", "1", "--json", str(path)]) == 0
    assert "one image of 1280x800; activations of a training step of 1 x 224x160\n" in (
        capsys.readouterr().out
    )
    written = json.loads(path.read_text())
    assert (written["shape"], written["training_shape"]) == ([800, 1280], [160, 224])
    assert written["amp"] is None
    assert model_info.main([NANO, "--batch-size", "1", "--shape", "300,100"]) == 0
    assert "one image of 300x100; activations of a training step of 1 x 320x128\n" in (
        capsys.readouterr().out
    )


def test_crops_stay_at_a_larger_size(capsys):
    config = str(ROOT / "configs/upernet_swin_nano.py")
    assert model_info.main([config, "--batch-size", "1", "--shape", "640,320"]) == 0
    assert "one image of 640x320; activations of a training step of 1 x 160x160\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("wrapper", "amp"),
    [
        (dict(type="swin_dense.Bfloat16OptimWrapper"), ", bf16"),
        (dict(type="AmpOptimWrapper", dtype="bfloat16"), ", bf16"),
        (dict(type="AmpOptimWrapper", dtype="float16"), ", fp16"),
        (dict(type="mmengine.AmpOptimWrapper"), ", fp16"),
        (dict(type="OptimWrapper"), ""),
    ],
)
def test_a_config_of_mixed_precision_is_counted_so(wrapper, amp, tmp_path, capsys):
    config, path = tmp_path / "mixed.py", tmp_path / "info.json"
    config.write_text(f"_base_ = [{NANO!r}]\noptim_wrapper = dict(**{wrapper!r})\n")
    kept = []
    for of in (str(config), NANO):
        assert model_info.main([of, "--batch-size", "1", "--json", str(path)]) == 0
        kept.append(json.loads(path.read_text())["total"]["activations"])
    assert f"of 1 x 224x160{amp}\n" in capsys.readouterr().out
    assert kept[0] < 0.9 * kept[1] if amp else kept[0] == kept[1]


def test_options_change_the_model(capsys):
    assert model_info.main([NANO, "--cfg-options", "model.backbone.embed_dim=48"]) == 0
    assert rows(capsys.readouterr().out)["total"][0] > 2.5


def test_a_model_alone_is_enough(tmp_path, capsys):
    """Without loaders: one image, and a shape for label maps, which have no usual one."""
    for name, more in (("retinanet", []), ("upernet", ["--shape", "128,96"])):
        alone = tmp_path / f"{name}.py"
        base = str(ROOT / f"configs/_base_/{name}.py")
        alone.write_text(
            f"_base_ = [{base!r}]\nmodel = dict(backbone=dict(type='swin_dense.Swin'))"
        )
        assert model_info.main([str(alone), *more]) == 0
        assert "of a training step of 1 x " in capsys.readouterr().out
    assert model_info.main([str(alone)]) == 2
    assert "Give one as --shape." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "there is no file nowhere.py"),
        ([NANO, "--json", f"{NANO}/x.json"], "--json"),
        (
            [str(ROOT / "configs/dino_swin_t.py"), "--shape", "96,64"],
            "at least model.num_queries places",
        ),
        ([NANO, "--cfg-options", "model.neck.typ=FPN"], "has no 'typ'. Did you mean 'type'?"),
    ],
)
def test_mistakes_are_told(arguments, message, capsys):
    assert model_info.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_wrong_numbers_are_told(capsys):
    for wrong in (["--shape", "64"], ["--batch-size", "0"], ["--batch-size", "two"]):
        with pytest.raises(SystemExit, match="2"):
            model_info.main([NANO, *wrong])
    assert "a whole number from 1, not '0'" in capsys.readouterr().err
