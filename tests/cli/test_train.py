"""Training from the command line: what it writes, how it resumes, what the schedule becomes."""

import json
import os
import re

import pytest
import torch
from conftest import CONFIGS, ROOT, SMALL

from swin_dense.checkpoints import files
from swin_dense.cli import train
from swin_dense.datasets import shapes
from swin_dense.openmmlab.engine import run_folder


def logged(work):
    """The scalars of a run, one dict per printed line."""
    path = max(work.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_checkpoints_numbers_and_half_precision_weights(trained):
    task, _, work = trained
    left = {"iter_4.pth", "iter_8.pth", "weights_fp16.safetensors", "curve.png", "training.html"}
    assert left <= {p.name for p in work.iterdir()}
    rows = [row for row in logged(work) if "loss" in row]
    assert max(row["lr"] for row in rows) > 3e-4  # a short warm-up still ends
    assert {"loss", "lr", "data_time", "time", "memory", "iter"} <= set(rows[0])
    names = shapes.CLASSES if task == "detection" else shapes.LABELS
    assert tuple(files.read(work / "weights_fp16.safetensors")["meta"]["classes"]) == names
    meta = files.read(work / "iter_8.pth")["meta"]
    assert tuple(meta["dataset_meta"]["classes"]) == names


def test_half_precision_weights_are_the_last_checkpoint_s(trained):
    _, _, work = trained
    whole = files.read(work / "iter_8.pth")["state_dict"]
    half = files.read(work / "weights_fp16.safetensors")["state_dict"]
    assert whole.keys() == half.keys()
    for name, tensor in whole.items():
        expected = tensor.half() if tensor.is_floating_point() else tensor
        assert torch.equal(half[name], expected), name


def test_a_resumed_run_ends_where_the_whole_one_does(trained, small_shapes, tmp_path):
    _, config, work = trained
    status = train.main(
        [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(tmp_path / "w")]
        + ["--max-iters", "8", "--no-val", "--resume", str(work / "iter_4.pth"), *SMALL]
    )
    assert status == 0
    resumed, whole = (files.read(w / "iter_8.pth") for w in (tmp_path / "w", work))
    assert resumed["meta"]["iter"] == 8
    rates = [row["lr"] for w in (tmp_path / "w", work) for row in logged(w) if row.get("iter") == 8]
    assert rates[0] == pytest.approx(rates[1])
    assert resumed["optimizer"]["state"][0]["step"] == whole["optimizer"]["state"][0]["step"]


def test_a_resumed_run_keeps_its_rate_and_says_so_for_another_batch(
    trained, small_shapes, tmp_path, capfd
):
    _, config, work = trained
    command = [str(config), "--data-root", str(small_shapes.root), "--max-iters", "8", "--no-val"]
    command += ["--resume", str(work / "iter_4.pth"), *SMALL]
    rates = []
    for batch in (3, 2):  # that of the first run, another one
        folder = tmp_path / str(batch)
        options = [f"train_dataloader.batch_size={batch}", "--work-dir", str(folder)]
        assert train.main([*command, *options]) == 0
        printed = "".join(capfd.readouterr())
        told = "was set for batches of 3, this run has 2. It stays" in printed
        assert told == (batch == 2)
        rates.append([row["lr"] for row in logged(folder) if "loss" in row])
    assert rates[0] == rates[1]


def test_a_work_dir_is_of_one_run(small_shapes, tmp_path, capsys):
    words = [str(CONFIGS["segmentation"]), "--data-root", str(small_shapes.root), "--no-val"]
    with run_folder.owned(tmp_path):
        assert train.main([*words, "--work-dir", str(tmp_path), "--max-iters", "2", *SMALL]) == 2
        assert {path.name for path in tmp_path.iterdir()} == {run_folder.LOCK}
    assert f"another run writes to {tmp_path} (process {os.getpid()} on" in capsys.readouterr().err


def test_resume_without_a_path_takes_the_last_checkpoint(small_shapes, tmp_path, capsys):
    command = [str(CONFIGS["segmentation"]), "--data-root", str(small_shapes.root), "--no-val"]
    command += ["--work-dir", str(tmp_path)]
    command += ["--max-iters", "3"]
    saving = ["default_hooks.checkpoint.by_epoch=False", "default_hooks.checkpoint.interval=2"]
    assert train.main([*command, *SMALL, *saving]) == 0
    for asked in (["--resume"], ["resume=True"]):  # SMALL ends with options of the config
        (tmp_path / "iter_3.pth").unlink()
        (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))  # as if cut off
        assert train.main([*command, *SMALL, *asked]) == 0
        assert files.read(tmp_path / "iter_3.pth")["meta"]["iter"] == 3
        assert "resumed epoch: 0, iter: 2" in max(tmp_path.glob("*/*.log")).read_text()


@pytest.mark.parametrize("task", CONFIGS)
def test_bfloat16_trains(task, small_shapes, tmp_path):
    status = train.main(
        [str(CONFIGS[task]), "--data-root", str(small_shapes.root), "--work-dir", str(tmp_path)]
        + ["--max-iters", "2", "--no-val", "--amp", "bf16", *SMALL]
    )
    assert status == 0
    state = files.read(tmp_path / "iter_2.pth")["state_dict"]
    assert all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    assert all(t.dtype is not torch.bfloat16 for t in state.values())


def test_fine_tuning_starts_from_the_weights_given(trained, small_shapes, tmp_path):
    task, config, work = trained
    start = work / "weights_fp16.safetensors"
    status = train.main(
        [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(tmp_path)]
        + ["--max-iters", "1", "--no-val", "--load-from", str(start), *SMALL]
        + ["optim_wrapper.optimizer.lr=0.0"]
    )
    assert status == 0
    before, after = (
        files.read(start)["state_dict"],
        files.read(tmp_path / "iter_1.pth")["state_dict"],
    )
    name = "backbone.layers.2.blocks.1.mlp.fc1.weight"
    assert torch.equal(before[name].float(), after[name]), task


def test_pretrained_backbones_are_laid_in(trained, small_shapes, tmp_path, capsys):
    task, config, work = trained
    state = files.read(work / "iter_8.pth")["state_dict"]
    backbone = {
        n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")
    }
    torch.save({"model": {**backbone, "head.weight": torch.ones(2, 3)}}, tmp_path / "imagenet.pth")
    status = train.main(
        [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(tmp_path / "w")]
        + ["--max-iters", "1", "--no-val", "--pretrained", str(tmp_path / "imagenet.pth"), *SMALL]
        + ["optim_wrapper.optimizer.lr=0.0"]
    )
    assert status == 0, task
    after = files.read(tmp_path / "w/iter_1.pth")
    assert all(torch.equal(after["state_dict"][f"backbone.{n}"], t) for n, t in backbone.items())
    printed = capsys.readouterr().out
    assert "random weights" not in printed
    assert printed.count("imagenet.pth") == 1
    assert "100 % of the backbone's numbers" in printed
    (record,) = json.loads(next((tmp_path / "w").glob("*/weights.json")).read_text())
    assert record["file"] == str(tmp_path / "imagenet.pth")
    assert record["sha256"] == files.sha256(tmp_path / "imagenet.pth")
    assert list(record["unused"]) == ["head.weight"]
    assert after["meta"]["weights"] == [record]
    assert files.read(tmp_path / "w/weights_fp16.safetensors")["meta"]["weights"] == [record]

    resumed = tmp_path / "resumed"
    more = ["--max-iters", "1", "--no-val", "--resume", str(tmp_path / "w/iter_1.pth"), *SMALL]
    status = train.main(
        [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(resumed), *more]
    )
    assert status == 0
    records = json.loads(next(resumed.glob("*/weights.json")).read_text())
    assert records[0] == record  # where it came from is not forgotten
    assert records[1]["layout"] == "the model's own names"


def test_fine_tuning_with_other_classes_names_nothing(trained, small_shapes, tmp_path, capsys):
    """As many classes as before, or more: the layers that tell them apart start anew."""
    task, config, work = trained
    state = files.read(work / "iter_8.pth")
    names = state["meta"]["dataset_meta"]["classes"]
    heads = "roi_head.bbox_head.fc_cls.weight", "decode_head.conv_seg.weight"
    head = heads[task == "segmentation"]
    for classes in (("other", *names[1:]), names[1:]):
        state["meta"]["dataset_meta"]["classes"] = classes
        if len(classes) < len(names):
            count = len(state["state_dict"][head]) - 1
            shapes_of = {n: t for n, t in state["state_dict"].items() if n in HEADS[task]}
            for name, tensor in shapes_of.items():
                rows = len(tensor) // 4 if "fc_reg" in name else len(tensor)
                state["state_dict"][name] = tensor[: (rows - 1) * (len(tensor) // rows)]
            assert len(state["state_dict"][head]) == count
        torch.save(state, tmp_path / "start.pth")
        folder = tmp_path / str(len(classes))
        status = train.main(
            [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(folder)]
            + ["--max-iters", "1", "--no-val", "--load-from", str(tmp_path / "start.pth"), *SMALL]
            + ["optim_wrapper.optimizer.lr=0.0"]
        )
        assert status == 0
        printed = capsys.readouterr().out
        assert "at random, of other classes in the file: " in printed
        (record,) = json.loads(next(folder.glob("*/weights.json")).read_text())
        assert record["share"] == 1
        assert set(record["random"]["of other classes in the file"]) == HEADS[task]
        after = files.read(folder / "iter_1.pth")["state_dict"]
        assert not torch.equal(after[head][:2], state["state_dict"][head][:2])


HEADS = {
    "detection": {
        f"roi_head.{layer}.{end}"
        for layer in ("bbox_head.fc_cls", "bbox_head.fc_reg", "mask_head.conv_logits")
        for end in ("weight", "bias")
    },
    "segmentation": {
        f"{head}.conv_seg.{end}"
        for head in ("decode_head", "auxiliary_head")
        for end in ("weight", "bias")
    },
}


def test_what_may_be_missing_is_named(trained, small_shapes, tmp_path):
    task, config, work = trained
    head = "roi_head" if task == "detection" else "decode_head"
    state = files.read(work / "iter_8.pth")["state_dict"]
    rest = {n: t for n, t in state.items() if not n.startswith(head)}
    torch.save(rest, tmp_path / "start.pth")
    command = [str(config), "--data-root", str(small_shapes.root), "--max-iters", "1", "--no-val"]
    command += ["--work-dir", str(tmp_path / "w"), "--load-from", str(tmp_path / "start.pth")]
    assert train.main([*command, *SMALL]) == 2
    assert not (tmp_path / "w").exists()
    assert train.main([*command, "--allow-missing", head, *SMALL]) == 0
    (record,) = json.loads(next((tmp_path / "w").glob("*/weights.json")).read_text())
    lacking = {n for n in set(state) - set(rest) if not n.endswith("num_batches_tracked")}
    assert set(record["random"]["allowed by name"]) == lacking


def test_the_papers_configs_shrink_to_a_few_iterations():
    from swin_dense.openmmlab.engine import run
    from swin_dense.openmmlab.settings import config

    detection = config.load(ROOT / "configs/mask_rcnn_swin_t.py")
    run.shorten(detection, 720)
    steps = next(p for p in detection.param_scheduler if p.type == "MultiStepLR")
    assert steps.milestones == [540, 660]  # 27 and 33 of 36
    assert (steps.end, steps.by_epoch) == (720, False)
    assert detection.train_cfg.max_iters == 720

    segmentation = config.load(ROOT / "configs/upernet_swin_t.py")
    line, evaluation = run.shorten(segmentation, 1600)
    warm_up, decay = segmentation.param_scheduler
    assert (warm_up.end, decay.begin, decay.end) == (160, 160, 1600)
    assert line.startswith("warm-up: 1500 -> 160 iterations (rule: at most a tenth of the run")
    assert evaluation.startswith("evaluation: after iteration 1600 alone (train_cfg.val_interval=")


def test_a_run_is_extended_along_the_schedule_of_the_longer_one(
    trained, small_shapes, tmp_path, capfd
):
    task, config, work = trained
    if task == "detection":
        pytest.skip("its rate stays the same for so few iterations")
    command = [str(config), "--data-root", str(small_shapes.root), "--no-val"]
    command += ["--work-dir", str(tmp_path), "--resume", str(work / "iter_4.pth")]
    assert train.main([*command, "--max-iters", "16", *SMALL]) == 2
    says = (
        r"--resume: .*iter_4.pth is of a run of 8 iterations, this one has 16\..* or add --extend"
    )
    assert re.search(says, capfd.readouterr().err)
    assert train.main([*command, "--max-iters", "16", "--extend", *SMALL]) == 0
    printed = "".join(capfd.readouterr())
    assert "warm-up: 1500 -> 1 iterations (rule: at most a tenth of the run, 16" in printed
    assert "extend: on from iteration 4 to 16; learning rate " in printed
    # A recipe of 8, batches of 3: 1e-3 * 3/8, falling linearly from the second on.
    rates = [row["lr"] for row in logged(tmp_path) if "loss" in row]
    assert len(rates) == 12
    expected = [3.75e-4 * (1 - (i - 1) / 14) for i in range(4, 16)]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_the_seed_is_the_option_s_else_the_config_s(small_shapes, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "swin_dense.openmmlab.settings.fits.require_pixels",
        lambda config, splits: seeds.append(config.randomness["seed"]) or 1 / 0,
    )
    words = [str(CONFIGS["segmentation"]), "--data-root", str(small_shapes.root)]
    words += ["--work-dir", str(tmp_path)]
    for more in ([], ["--cfg-options", "randomness.seed=3"], ["--seed", "5"]):
        with pytest.raises(ZeroDivisionError):
            train.main([*words, *more])
    with pytest.raises(ZeroDivisionError):
        train.main([*words, "--seed", "0", "--cfg-options", "randomness.seed=3"])
    assert seeds == [0, 3, 5, 0]


def test_only_a_resumed_run_is_extended(capsys):
    assert train.main([str(CONFIGS["segmentation"]), "--data", "shapes", "--extend"]) == 2
    assert "name its checkpoint with --resume" in capsys.readouterr().err
