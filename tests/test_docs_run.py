"""What README and docs show is run, page by page and in order, on pictures of shapes.

Each page has a folder of its own in which what pages speak of is there: `photo.jpg`, `photos/`,
`clip.mp4`, `scan.tif`, `data/own`, a run in `work_dirs/run`. Words in capitals stand for something
(STANDS_FOR), trainings are cut to two iterations on small images, and what cannot be run here is
in NOT_RUN with its reason: a command that is neither fails. `make test-slow` trains the
first run whole.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, SMALL
from documented import PAGES, blocks, named, of_ours
from peers import peer
from PIL import Image
from safetensors import torch as safetensors

import swin_dense
from swin_dense.cli import main as commands
from swin_dense.cli import train
from swin_dense.datasets import shapes
from swin_dense.registry import MODELS

# The start of a line -> why it is not run here.
NOT_RUN = {
    "make ": "CI runs them, on a fresh clone",
    "pip install": "it would change the environment that runs this; setup.cfg has the names",
    "python demo/web_demo.py": "it serves until it is ended: tests/web/ starts and asks it",
    "torchrun ": "several processes: tests/cli/test_distributed.py starts them",
    "srun ": "there is no SLURM here",
    "sbatch ": "there is no SLURM here",
    "ray ": "tests/openmmlab/engine/test_ray_workers.py starts it",
    "scancel ": "there is no SLURM here",
    "python tools/replay.py": "tests/cli/test_bad_input.py runs it on what a run left",
    "python tools/train.py configs/mask_rcnn_swin_nano.py --resume": "tests/cli/test_train.py does",
    "export ": "it is for the shell that goes on",
    "cd ": "it is for the shell that goes on",
    "git clone": "it is how this came here",
    "python tools/train.py configs/mask_rcnn_swin_t.py": "a model for a GPU: tests/configs/",
}
STANDS_FOR = {
    "CONFIG": "configs/mask_rcnn_swin_nano.py",
    "DIR": "data/own",
    "FORMAT": "coco",
    "N": "3",
    "SOURCE": "exported",
    "SRC": "demo/weights/mask_rcnn_swin_nano.safetensors",
}
# Of the tests' peers: name of a page -> packages that it needs.
NEEDS = {"export": ("onnx", "onnxruntime"), "predict": ("pyarrow",)}
LOADERS = SMALL[2:]  # a batch of 3, nothing in other processes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of all that pages speak of."""
    top = tmp_path_factory.mktemp("shown")
    made = shapes.write(top / "made", seed=5, train=9, val=4, size=(72, 104))
    for split in shapes.SPLITS:
        for root in ("data/own", f"data/coco/{split}2017"):
            target = top / root / (split if root == "data/own" else "")
            shutil.copytree(made.image_dir(split), target)
        shutil.copy(made.annotation_file(split), top / f"data/own/instances_{split}.json")
        shutil.copytree(made.image_dir(split), top / f"data/maps/images/{split}")
        shutil.copytree(made.root / f"label_maps/{split}", top / f"data/maps/annotations/{split}")
    (top / "data/maps/classes.txt").write_text("\n".join(shapes.LABELS))
    shutil.copytree(made.image_dir("train"), top / "exported/images")
    shutil.copy(made.annotation_file("train"), top / "exported/annotations.json")
    seen = [Image.open(path) for path in sorted(made.image_dir("val").iterdir())]
    (top / "photos/more").mkdir(parents=True)
    for name, picture in zip(("photo", "photos/one", "photos/more/two"), seen, strict=False):
        picture.save(top / f"{name}.jpg")
    seen[0].resize((300, 200)).save(top / "scan.tif")
    film = cv2.VideoWriter(str(top / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (104, 72))
    for at in range(12):
        film.write(np.ascontiguousarray(np.asarray(seen[at % 2])[..., ::-1]))
    film.release()
    whole = safetensors.load_file(ROOT / "demo/weights/mask_rcnn_swin_nano.safetensors")
    bare = {k: v for k, v in whole.items() if re.match(r"backbone\.(?!norm\d)", k)}
    safetensors.save_file(bare, top / "imagenet.safetensors")
    return top


@pytest.fixture(scope="module")
def runs(pictures):
    """Two runs of two iterations, from the weights of demo/: of objects and of label maps."""
    for name, config, root in (
        ("run", "mask_rcnn_swin_nano", "own"),
        ("maps", "upernet_swin_nano", "maps"),
    ):
        status = train.main(
            [config, "--data-root", str(pictures / "data" / root), "--no-val"]
            + ["--load-from", str(ROOT / f"demo/weights/{config}.safetensors"), "--max-iters", "2"]
            + ["--work-dir", str(pictures / "work_dirs" / name), *SMALL]
        )
        assert status == 0
        for at in (400, 1000):  # as pages call the last checkpoint of a whole training
            (pictures / "work_dirs" / name / f"iter_{at}.pth").symlink_to("iter_2.pth")
    return pictures


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    """A folder to work in that has all of it; what is made there is its own."""
    for place in sorted(runs.iterdir()):
        if place.is_dir():
            (tmp_path / place.name).mkdir()
            for inner in place.iterdir():
                (tmp_path / place.name / inner.name).symlink_to(inner)
        else:
            shutil.copy(place, tmp_path)
    for name in ("configs", "demo", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = dict(MODELS.module_dict)
    yield tmp_path
    for file in tmp_path.glob("*.py"):  # what a page registered is forgotten
        sys.modules.pop(file.stem, None)
    for name in MODELS.module_dict.keys() - known.keys():
        del MODELS.module_dict[name]


def words_of(line: str, words: str) -> list[str]:
    """Return the arguments of a command as it is run here."""
    stands = dict(STANDS_FOR)
    if re.search("maps|upernet|streets", line):
        stands.update(CONFIG="configs/upernet_swin_nano.py", DIR="data/maps")
    if "--val-share" in line:
        stands["DIR"] = "exported"  # one file for all images
    pattern = re.compile(rf"\b({'|'.join(stands)})\b(?=$|/)")
    words = re.sub(r"[][]", "", words)  # what may be left out is not
    return [pattern.sub(lambda match: stands[match[1]], word) for word in shlex.split(words)]


def shortened(name: str, words: list[str]) -> list[str]:
    """Return the arguments with two iterations on small images, and no processes of loaders."""
    if name == "train":
        at = words.index("--max-iters") if "--max-iters" in words else len(words)
        words = [*words[:at], "--max-iters", "2", *words[at + 2 :]]
        if "--image-scale" in words:
            words[words.index("--image-scale") + 1] = SMALL[1]
    return [*words, *LOADERS] if name in ("train", "test") else words


def reason_not_to(line: str) -> str | None:
    if " --engine ray" in line:
        return NOT_RUN["ray "]
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def run(line: str, whole: bool, capfd) -> None:
    """Run a command as the page shows it; one of ours in this process."""
    ours = of_ours(line)
    if not ours:
        done = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return
    name, words = ours[0], words_of(line, ours[1])
    status = commands.module(name).main(words if whole else shortened(name, words))
    printed = capfd.readouterr()
    assert status == 0, f"{line}: {printed.err}"


def follow(page: Path, whole: bool, capfd) -> None:
    """Run the blocks of a page in order, those of Python in one namespace.

    One that begins with the name of a file, `# net.py`, becomes that file.
    """
    names = {"swin_dense": swin_dense}
    for block in blocks(page):
        file = re.match(r"# (\w+\.py)\n", block.text)
        if block.kind == "python" and file:
            Path(file[1]).write_text(block.text)
        elif block.kind == "python":
            exec(compile(block.text, named(page), "exec"), names)
        elif not block.kind:
            for line in block.lines:
                if not reason_not_to(line):
                    run(line, whole, capfd)


SHOWN = [page for page in PAGES if page.name != "CONTRIBUTING.md" and blocks(page)]


@pytest.mark.parametrize("page", SHOWN, ids=named)
def test_what_a_page_shows_runs(page, folder, monkeypatch, capfd):
    for package in NEEDS.get(page.stem, ()):
        peer(package)
    monkeypatch.setattr(shapes, "write", partial(shapes.write, train=9, val=4))
    follow(page, False, capfd)


@pytest.mark.slow
def test_the_first_run_runs_whole(folder, capfd):
    follow(ROOT / "docs/first_run.md", True, capfd)
    numbers = json.loads(Path("work_dirs/first/test/metrics.json").read_text())["metrics"]
    assert numbers["segm_AP"] > 0.5


def test_a_command_is_run_or_it_is_said_why_not():
    """A block is of Python, of commands (ours, of NOT_RUN, or printf), a script, or text."""
    for page in SHOWN:
        for block in blocks(page):
            if block.kind == "bash":  # a script, which tests/test_docs.py has a shell read
                assert block.text.startswith("#!")
                continue
            assert block.kind in ("", "python", "text"), f"{named(page)}: {block.kind}"
            for line in block.lines if not block.kind else ():
                known = of_ours(line) or reason_not_to(line) or line.startswith("printf ")
                assert known, f"{named(page)}: neither run nor in NOT_RUN: {line}"
