"""A video becomes a video: as many frames, as fast, with what was found drawn over each."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import SMALL
from PIL import Image

from swin_dense.cli import video_demo
from swin_dense.openmmlab.engine.predictor import Predictor

SCALE = SMALL[:2]
one_task = pytest.mark.parametrize("trained", ["segmentation"], indirect=True)


@pytest.fixture
def clip(tmp_path, small_shapes):
    """Eight frames of 104x72, five in a second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (104, 72))
    for image in sorted(small_shapes.image_dir("val").iterdir()) * 2:
        writer.write(np.asarray(Image.open(image).convert("RGB"))[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def run(trained, clip):
    _, config, work = trained
    least = ["--score-thr", "0.0"] if trained[0] == "detection" else []

    def run(out, *more, source=clip):
        arguments = [str(source), str(config), str(work / "iter_8.pth"), "--out", str(out)]
        return video_demo.main([*arguments, *SCALE, *least, *more])

    return run


def frames(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        there, frame = capture.read()
        if not there:
            return found, capture.get(cv2.CAP_PROP_FPS)
        found.append(frame)


def test_each_frame_is_drawn(run, clip, tmp_path, capsys):
    out = tmp_path / "drawn.avi"
    assert run(out) == 0
    found, rate = frames(out)
    assert (len(found), rate) == (8, pytest.approx(5, rel=0.01))
    assert {frame.shape for frame in found} == {(432, 624, 3)}
    plain = [np.kron(frame, np.ones((6, 6, 1))) for frame in frames(clip)[0]]
    assert all(np.abs(a - b).mean() > 5 for a, b in zip(plain, found, strict=True))
    assert f"8 frames -> {out}" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))


@one_task
def test_no_more_frames_than_asked(run, tmp_path):
    assert run(tmp_path / "drawn.webm", "--max-frames", "3") == 0
    assert len(frames(tmp_path / "drawn.webm")[0]) == 3


@one_task
def test_a_frame_of_another_size_is_fitted_in(run, tmp_path, small_shapes):
    folder = tmp_path / "mixed"
    folder.mkdir()
    one, two, *_ = sorted(small_shapes.image_dir("val").iterdir())
    shutil.copy(one, folder / "a.png")
    Image.open(two).crop((0, 0, 60, 70)).save(folder / "b.png")
    assert run(tmp_path / "new/drawn.avi", source=folder) == 0
    found, _ = frames(tmp_path / "new/drawn.avi")
    assert [frame.shape for frame in found] == [(432, 624, 3)] * 2
    assert found[1][:, :90].max() < 30  # black beside it


@one_task
def test_what_there_is_when_somebody_ends_it_is_kept(run, tmp_path, monkeypatch):
    looked, seen = Predictor._look, []

    def look(self, items):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return looked(self, items)

    monkeypatch.setattr(Predictor, "_look", look)
    assert run(tmp_path / "drawn.avi") == 130
    assert len(frames(tmp_path / "drawn.avi")[0]) == 2


@one_task
@pytest.mark.parametrize(
    ("out", "more", "text"),
    [
        ("drawn.gif", {}, "the suffix says how to write it: .mp4 .avi .mkv .webm"),
        ("drawn.avi", {"source": __file__}, "this is an image. demo/image_demo.py"),
        ("clip.avi", {}, "this is a folder, or the video itself"),
        ("none/drawn.avi", {"source": "no.mp4"}, "does not exist"),
    ],
)
def test_what_cannot_be_is_told(run, tmp_path, out, more, text, capsys):
    assert run(tmp_path / out, **more) == 2
    assert text in capsys.readouterr().err
    assert out == "clip.avi" or not (tmp_path / out).exists()
