"""Everything that holds pictures is a row of them, in order, each read when its turn comes."""

import contextlib
import http.server
import os
import socketserver
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets import sources
from swin_dense.errors import InputError

GREYS = (10, 60, 120, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures of 5x7, one of them in a folder below, and a video of six frames."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    for name, grey in zip(("b.png", "a.png", "c.bmp", "more/d.png"), GREYS, strict=True):
        Image.new("RGB", (7, 5), (grey, 0, 0)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    clip = cv2.VideoWriter(str(root / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 4, (64, 48))
    for i in range(6):
        clip.write(np.full((48, 64, 3), (0, 0, 40 * i), np.uint8))  # blue, green, red
    clip.release()
    return root


def reds(source):
    return [int(picture.read()[0, 0, 0]) for picture in sources.find(source)]


def names(source):
    return [Path(picture.name).name for picture in sources.find(source)]


def test_a_file_is_a_single_picture(folder):
    row = sources.find(folder / "a.png")
    assert (row.single, row.endless, row.count) == (True, False, 1)
    assert reds(str(folder / "a.png")) == [60]
    [picture] = row
    assert (picture.name, picture.seconds) == (str(folder / "a.png"), None)


def test_a_folder_is_its_pictures_by_name(folder):
    row = sources.find(folder)
    assert (row.single, row.count) == (False, 3)
    assert names(folder) == ["a.png", "b.png", "c.bmp"]
    assert reds(folder) == [60, 10, 120]
    assert reds(folder) == reds(row)  # gone through again


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("**/*.png", ["a.png", "b.png", "d.png"]),
        ("[cx].*", ["c.bmp"]),
    ],
)
def test_a_pattern_is_the_pictures_that_it_names(folder, pattern, expected):
    assert names(f"{folder}/{pattern}") == expected
    assert sources.find(f"{folder}/{pattern}").single is False


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    Image.new("RGB", (3, 2), (9, 0, 0)).save(tmp_path / "a[1].png")
    assert reds(tmp_path / "a[1].png") == [9]


def test_a_video_is_its_frames(folder):
    row = sources.find(folder / "clip.avi")
    assert (row.single, row.endless, row.count) == (False, False, None)
    frames = list(row)
    assert [Path(frame.name).name for frame in frames] == [f"clip.avi#{i}" for i in range(6)]
    assert [frame.seconds for frame in frames] == pytest.approx([i / 4 for i in range(6)])
    assert reds(row) == pytest.approx([40 * i for i in range(6)], abs=6)  # red is red


def test_a_list_joins_sources_of_all_kinds(folder):
    grey = np.full((2, 3, 3), 5, np.uint8)
    row = [folder / "a.png", grey, Image.new("RGB", (4, 2), (8, 0, 0)), str(folder / "clip.avi")]
    assert reds(row)[:4] == [60, 5, 8, 0]
    assert names(row)[:4] == ["a.png", "1", "2", "clip.avi#0"]
    assert sources.find(row).count is None
    assert sources.find(row[:3]).count == 3
    assert reds(np.stack([grey, grey + 1, grey + 2])) == [5, 6, 7]
    assert reds(iter([grey, grey])) == [5, 5]
    assert sources.find([grey]).single is False
    assert list(sources.find([])) == []


def test_a_picture_is_read_when_its_turn_comes(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (3, 2), (9, 0, 0)).save(path)
    row = sources.find([path])
    path.write_bytes(b"no picture")
    [picture] = row
    with pytest.raises(InputError, match=r"a\.png: this is no image of a known kind"):
        picture.read()


@pytest.fixture(scope="module")
def address(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_is_fetched(address, monkeypatch):
    assert reds(f"{address}/a.png") == [60]
    assert sources.find(f"{address}/a.png").single
    with pytest.raises(InputError, match=r"/e\.png: it cannot be fetched \(HTTP Error 404"):
        reds(f"{address}/e.png")
    with pytest.raises(InputError, match=r"notes\.txt: this is no image of a known kind"):
        reds(f"{address}/notes.txt")
    monkeypatch.setattr(sources, "BYTES", 20)
    with pytest.raises(InputError, match=r"a\.png: more than 0 MB"):
        reds(f"{address}/a.png")


class Camera:
    """A camera that gives three frames, and counts that it is released."""

    released = 0

    def __init__(self, number):
        self.left = 3 if number == 2 else -1

    def isOpened(self):
        return self.left >= 0

    def get(self, _):
        return 0.0

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((4, 6, 3), (0, 0, 77), np.uint8)

    def release(self):
        Camera.released += 1


def test_a_camera_has_no_end_and_is_given_back(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    for source in (2, "2", [2]):
        row = sources.find(source)
        assert (row.endless, row.count) == (True, None)
        assert reds(source) == [77] * 3
    frames = iter(sources.find(2))
    assert next(frames).name == "camera 2#0"
    before = Camera.released
    frames.close()
    assert Camera.released == before + 1
    with pytest.raises(InputError, match=r"camera 7 cannot be opened. 0 is the first"):
        reds(7)
    with pytest.raises(InputError, match="has no end, so nothing after it"):
        sources.find([2, np.zeros((2, 3, 3), np.uint8)])
    assert sources.find("rtsp://host/live").endless


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{}/d.png", r"the image does not exist\. .* Did you mean"),
        ("{}/*.jpg", r"\*\.jpg: no image, video or table has such a name\. \* stands for"),
        ("{}/*.txt", r"It names 1 files of other kinds, .*notes\.txt first"),
        ("{}/notes.txt", "this is no image of a known kind"),
        (None, "a source of images is an image, a folder of images, .*got None"),
        (True, "got True"),
        ({"a": 1}, "an image is a path, a PIL image, or an RGB array .*got dict"),
        (np.zeros((4, 6), np.uint8), "Repeat a grey image"),
    ],
)
def test_what_is_no_source_is_told(folder, source, text):
    with pytest.raises(InputError, match=text):
        reds(source.format(folder) if isinstance(source, str) else source)


def test_a_damaged_video_is_told(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"this cannot be opened as a video.*ffmpeg -i IN"):
        reds(tmp_path / "clip.mp4")


def test_a_generator_is_gone_through_as_its_pictures_are_asked_for():
    """One that has no end, and fills one array again and again."""
    array = np.zeros((2, 3, 3), np.uint8)

    def pictures():
        while True:
            array[:] += 1
            yield array

    row = iter(sources.find(pictures()))
    first, second = next(row), next(row)
    assert (first.name, second.name) == ("0", "1")
    assert (first.read()[0, 0, 0], second.read()[0, 0, 0]) == (1, 2)


def test_the_rest_of_a_video_cut_off_is_an_error(tmp_path):
    cut, random = tmp_path / "cut.avi", np.random.default_rng(5)
    clip = cv2.VideoWriter(str(cut), cv2.VideoWriter_fourcc(*"MJPG"), 4, (64, 48))
    for _ in range(20):
        clip.write(random.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    clip.release()
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    *frames, rest = sources.find(cut)
    assert 5 < len(frames) < 15
    assert rest.error is not None
    with pytest.raises(InputError, match=r"cut\.avi: the video says that it has 20 frames"):
        rest.read()


def test_a_link_to_a_folder_around_it_gives_no_picture_twice(tmp_path):
    Image.new("RGB", (3, 2), (9, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [picture.name for picture in sources.find(f"{tmp_path}/**/*.png")] == [
        str(tmp_path / "a.png")
    ]


def test_an_answer_that_is_no_http_is_told(monkeypatch):
    """A server that says garbage, one that stops half-way, one that never ends."""
    answers = {
        "/garbage": [b"what?\r\n\r\n"],
        "/half": [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"abc"],
        "/slow": [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 40],
    }

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            path = self.request.recv(2000).split()[1].decode()
            with contextlib.suppress(OSError):
                for part in answers[path]:
                    self.request.sendall(part)
                    time.sleep(0.02)

    monkeypatch.setattr(sources, "TOTAL", 0.3)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, text in (("garbage", "what"), ("half", "IncompleteRead"), ("slow", "not done")):
            address = f"http://127.0.0.1:{server.server_address[1]}/{path}"
            with pytest.raises(InputError, match=f"{path}: it cannot be fetched .*{text}"):
                reds(address)
        server.shutdown()
    for address in ("http://[::1/a.png", "http://a b:x/a.png"):
        with pytest.raises(InputError, match="it cannot be fetched"):
            reds(address)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="a pipe, a device"):
        sources.find(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"addresses begin with http://"):
        sources.find("ftp://host/a.png")


def test_a_source_that_is_none_does_not_end_the_others(folder, tmp_path):
    """It is a picture which says so when it is read: whoever leaves such out goes on."""
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for row in ([tmp_path / "bad.mp4", folder / "a.png"], iter(["missing.png", folder / "a.png"])):
        lost, picture = sources.find(row)
        assert picture.read()[0, 0, 0] == 60
        with pytest.raises(InputError, match=r"opened as a video|does not exist"):
            lost.read()
