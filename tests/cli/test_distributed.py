"""Two processes on one machine without GPUs: they train one model, speak once, and never wait
for one another in vain."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIGS, ROOT, SMALL
from PIL import Image

from swin_dense.checkpoints import files

PATIENCE = 240  # seconds; a run takes about 30, one that hangs never ends


def torchrun(tool, *arguments, meanwhile=None):
    """(exit status, what both processes printed) of a tool under two processes.

    `meanwhile` is called with torchrun's process.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(ROOT / f"tools/{tool}.py"), *map(str, arguments)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": path,
    }
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        if meanwhile:
            meanwhile(process)
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {PATIENCE} s:\n{process.communicate()[0][-3000:]}")
    return process.returncode, printed


def train(work, config, root, *options, iterations=3, **given):
    shorter = ["--max-iters", iterations] if iterations else []
    return torchrun(
        "train",
        *(config, "--data-root", root, "--work-dir", work, "--no-val", "--launcher", "pytorch"),
        *(*shorter, *SMALL, *options),
        **given,
    )


def scalars(work):
    (path,) = work.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_whole(work, name):
    """One checkpoint of that name, every number in it finite, and one log that says all once."""
    assert [p.name for p in work.glob("*.pth")] == [name]
    state = files.read(work / name)["state_dict"]
    assert all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    assert not any(key.startswith("module.") for key in state)
    assert len(list(work.glob("*/*.log"))) == 1
    assert files.read(work / "weights_fp16.safetensors")["state_dict"].keys() == state.keys()
    return state


@pytest.fixture(scope="module", params=list(CONFIGS))
def run(request, tmp_path_factory, small_shapes):
    """(task, exit status, what was printed, folder) of three iterations with two processes."""
    work = tmp_path_factory.mktemp("two") / "work"
    status, printed = train(work, CONFIGS[request.param], small_shapes.root)
    return request.param, status, printed, work


def test_two_processes_train_one_model(run):
    _, status, printed, work = run
    assert status == 0, printed[-3000:]
    is_whole(work, "iter_3.pth")
    assert [row["iter"] for row in scalars(work)] == [1, 2, 3]


def test_only_the_first_process_speaks(run):
    _, status, printed, _ = run
    assert status == 0, printed[-3000:]
    lines = printed.splitlines()
    for start in ("data: ", "train: ", "backbone: random", "checkpoints and half-precision"):
        assert sum(line.startswith(start) for line in lines) == 1, (start, printed)
    rate = "batch 3 x 2 devices: learning rate 1e-3 -> 7.5e-4 (rule: linear, recipe batch 8)"
    assert sum(rate in line for line in lines) == 1, printed
    for iteration in (1, 2, 3):
        assert sum(f"iter {iteration}/3" in line for line in lines) == 1, printed
    assert "Traceback" not in printed
    assert "Error" not in printed


def test_both_see_their_own_half_of_the_data(run, small_shapes, tmp_path):
    """The loss of one process on the same seed is another one."""
    task, status, _, work = run
    assert status == 0
    from swin_dense.cli import train as alone

    arguments = [str(CONFIGS[task]), "--data-root", str(small_shapes.root), "--no-val"]
    arguments += ["--work-dir", str(tmp_path / "w"), "--max-iters", "3", *SMALL]
    assert alone.main(arguments) == 0
    pairs = zip(scalars(work), scalars(tmp_path / "w"), strict=True)
    assert all(two["loss"] != pytest.approx(one["loss"], rel=1e-4) for two, one in pairs)


def test_two_processes_evaluate_as_one_does(run, small_shapes, tmp_path):
    task, status, _, work = run
    assert status == 0
    from swin_dense.cli import test as alone

    common = [str(CONFIGS[task]), str(work / "iter_3.pth"), "--data-root", str(small_shapes.root)]
    common += [*SMALL[:2]]
    status, printed = torchrun(
        "test", *common, "--work-dir", tmp_path / "two", "--launcher", "pytorch"
    )
    assert status == 0, printed[-3000:]
    assert alone.main([*common, "--work-dir", str(tmp_path / "one")]) == 0
    two, one = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("two", "one"))
    assert two["metrics"] == pytest.approx(one["metrics"], abs=2e-3, nan_ok=True)
    assert two["per_class"].keys() == one["per_class"].keys()
    assert one["per_class"]
    lines = printed.splitlines()
    assert sum(line.startswith("numbers: ") for line in lines) == 1, printed
    assert sum(line.startswith("test: ") for line in lines) == 1, printed


def without_objects(root, task):
    """Empty every second of the first eight training images, and remove the ninth.

    Two processes that go through the set in file order see the full ones and the empty ones.
    """
    if task == "detection":
        path = root / "annotations/instances_train.json"
        content = json.loads(path.read_text())
        content["images"] = content["images"][:8]
        kept = {image["id"] for image in content["images"][::2]}
        content["annotations"] = [r for r in content["annotations"] if r["image_id"] in kept]
        path.write_text(json.dumps(content))
        return
    for folder in ("images", "label_maps"):
        sorted((root / folder / "train").iterdir())[8].unlink()
    for path in sorted((root / "label_maps/train").iterdir())[1::2]:
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.full_like(labels, 255)).save(path)  # 255: nothing is judged


@pytest.mark.parametrize("task", CONFIGS)
def test_a_process_without_ground_truth_does_not_hang_the_other(task, small_shapes, tmp_path):
    root = Path(shutil.copytree(small_shapes.root, tmp_path / "set"))
    without_objects(root, task)
    config = tmp_path / "in_order.py"
    dataset = "filter_cfg=dict(filter_empty_gt=False)" if task == "detection" else ""
    config.write_text(
        f'_base_ = ["{CONFIGS[task]}"]\n'
        'train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=3)\n'
        "train_dataloader = dict(\n"
        '    sampler=dict(type="InfiniteSampler", shuffle=False),\n'
        f"    dataset=dict({dataset}),\n"
        ")\n"
        "param_scheduler = []\n"
        "default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3))\n"
        "log_processor = dict(by_epoch=False)\n"
    )
    work = tmp_path / "work"
    two = "train_dataloader.batch_size=2"
    status, printed = train(work, config, root, two, iterations=None)
    assert status == 0, printed[-3000:]
    is_whole(work, "iter_3.pth")
    rows = scalars(work)
    assert [row["iter"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_mistake_ends_both_processes_with_one_message(small_shapes, tmp_path):
    status, printed = train(tmp_path / "work", CONFIGS["detection"], tmp_path / "nowhere")
    assert status != 0
    assert printed.count("there is no folder") == 1, printed
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells only there")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_lost_process_is_named_and_ends_the_run(number, rank, small_shapes, tmp_path):
    lost, work = [], tmp_path / "work"

    def lose(run):
        while not list(work.glob("*/vis_data/scalars.json")):
            assert run.poll() is None
            time.sleep(0.1)
        for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                lost.append(child)
                os.kill(int(child), number)

    config, patience = CONFIGS["detection"], "peer_timeout=5"
    status, printed = train(
        work, config, small_shapes.root, patience, iterations=10**6, meanwhile=lose
    )
    assert status == 1
    what = (
        "killed or crashed (signal 9)" if number == signal.SIGKILL else "stopped (SIGSTOP) for 5 s"
    )
    (line,) = [line for line in printed.splitlines() if line.startswith("error: process ")]
    assert f"process {lost[0]} of rank {rank} on " in line
    assert f" was {what}" in line
