"""Two workers look at a table of images, one of them is killed, and each image is there once."""

import io
import json
import os
import signal
import subprocess

import pytest
from conftest import SMALL
from PIL import Image

from swin_dense.cli import predict
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import ray_workers
from swin_dense.report.journal import Journal

IMAGES, BROKEN = 30, 11
NO_RAY = "ray is not installed (the extra [ray]; with pandas 330 MB, too much for every test run)"


def table(path, small_shapes):
    """Write a table of image files; one is cut off."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(path.read_bytes() for path in small_shapes.image_dir("train").iterdir())
    rows = []
    for i in range(IMAGES):
        picture, file = Image.open(io.BytesIO(files[i % len(files)])), io.BytesIO()
        picture.rotate(10 * i).save(file, format="PNG")  # no two alike
        data = file.getvalue()
        rows.append({"name": f"image {i}", "image": data[:70] if i == BROKEN else data})
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)


def rows(folder):
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: row["image"])


def a_worker():
    """Return the number of a process that Ray started below this one and that holds the model."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    found = [line.split(None, 2) for line in told.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, *_ in found}

    def is_below(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    named = [int(pid) for pid, _, *args in found if args and args[0].startswith("ray::MapWorker")]
    return next(pid for pid in named if is_below(pid))


@pytest.mark.parametrize("trained", ["detection"], indirect=True)
def test_each_image_is_there_once_after_a_worker_was_killed(
    trained, small_shapes, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("ray.data", reason=NO_RAY)
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two workers need two processors")
    table(tmp_path / "images.parquet", small_shapes)
    _, config, work = trained
    common = [str(tmp_path / "images.parquet"), str(config), str(work / "iter_8.pth"), *SMALL[:2]]
    common += ["--score-thr", "0.01"]
    assert predict.main([*common, "--out", str(tmp_path / "plain")]) == 1

    add, killed = Journal.add, []

    def add_and_kill(self, name, row):
        add(self, name, row)
        if len(self.done) == 5:
            killed.append(a_worker())
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(Journal, "add", add_and_kill)
    capsys.readouterr()
    with_ray = [*common, "--engine", "ray", "--workers", "2", "--format", "parquet"]
    assert predict.main([*with_ray, "--out", str(tmp_path / "ray")]) == 1
    assert len(killed) == 1
    found, expected = rows(tmp_path / "ray"), rows(tmp_path / "plain")
    assert found == expected
    assert [row["image"] for row in found if "error" in row] == [f"image {BROKEN}"]
    assert sum(len(row.get("instances", ())) for row in found) > IMAGES
    written = pytest.importorskip("pyarrow.parquet").read_table(
        tmp_path / "ray/predictions.parquet"
    )
    assert sorted(written["image"].to_pylist()) == [row["image"] for row in expected]
    assert f"skipped image {BROKEN}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [
        ([(8, 8)], 2, 4),
        ([(8, 8)], 3, 2),
        ([(8, 8), (8, 8)], 3, 4),  # of 16 processors 5 are not on one machine three times
        ([(8, 1), (32, 4)], 5, 8),
        ([(2, 2), (1, 1)], 3, 1),
    ],
)
def test_processors_of_a_worker_are_on_one_machine(nodes, workers, each):
    assert ray_workers._each(nodes, workers) == each


def test_attempts_are_those_since_the_last_end():
    attempts = ray_workers._Attempts()
    assert [attempts.begin(n) for n in (3, 4, 3, ray_workers.LOADING)] == [1, 1, 2, 1]
    attempts.end(3)
    assert [attempts.begin(n) for n in (3, 4, ray_workers.LOADING)] == [1, 2, 1]


def test_what_ray_cannot_do_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"extra of this project: pip install '.\[ray\]'"):
        ray_workers.require()
    assert predict.main([str(tmp_path), "m.pth", "--workers", "2"]) == 2
    assert "how --engine ray runs: add it" in capsys.readouterr().err
