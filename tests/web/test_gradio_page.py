"""The page in a real browser, with real uploads, where gradio, playwright and Chromium are."""

import json
import re
import shutil
import sys
import urllib.parse
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from swin_dense.benchmarks import peers
from swin_dense.report.masks import Masks
from swin_dense.report.results import Instances
from swin_dense.task import Task
from swin_dense.web import gradio_page
from swin_dense.web.answers import Answers, Limits

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SHOWN = "#overlay img"


class Corners:
    """A model that finds the two corners of whatever it is shown."""

    task, classes, weights = Task.INSTANCES, ("left", "right"), {"sha256": "f00"}

    def __init__(self):
        self.model, self.looks = torch.nn.Identity(), 0

    def predict(self, rgb, score=None):
        self.looks += 1
        height, width = rgb.shape[:2]
        masks = np.zeros((2, height, width), bool)
        masks[0, :9, :9] = masks[1, -9:, -9:] = True
        boxes = np.array([[0, 0, 9, 9], [width - 9, height - 9, width, height]], np.float32)
        return Instances(
            image=rgb,
            classes=self.classes,
            boxes=boxes,
            scores=np.array([0.75, 0.25], np.float32),
            labels=np.array([0, 1]),
            masks=Masks.of(masks),
        )


@pytest.fixture
def browser(monkeypatch):
    """A browser without a window."""
    # Where tools/install.py puts what only tests need; gradio imports some of it when it is used.
    monkeypatch.setattr(sys, "path", [*sys.path, str(peers.FOLDER)])
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    try:
        gradio_page.require()
    except gradio_page.InputError as error:
        pytest.skip(str(error))
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def files(tmp_path):
    """Pictures and what is none, by name."""
    folder = tmp_path / "files"
    folder.mkdir()
    picture = Image.linear_gradient("L").resize((61, 47)).convert("RGB")
    picture.save(folder / "picture.png")
    moved = [picture.rotate(angle) for angle in (90, 180)]
    picture.save(folder / "moving.gif", save_all=True, append_images=moved)
    (folder / "notes.txt").write_text("some words")
    (folder / "empty.png").write_bytes(b"")
    Image.new("1", (20_000, 10_000)).save(folder / "huge.png")
    (folder / "heavy.jpg").write_bytes(bytes(2**20 + 1))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Chromium is found by its names elsewhere")
def test_uploads_of_every_kind(browser, files):
    desk = Answers({"corners": Corners(), "other corners": Corners()}, Limits(size=2**20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gradio's own, and Pillow's about 200 megapixels
        with gradio_page.served(desk, port=None, title="<b>Corners</b>") as address:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            asked = []
            page.on("request", lambda request: asked.append(request.url))
            page.set_default_timeout(12000)
            page.goto(address)
            assert page.inner_text("h1") == "<b>Corners</b>"
            _try_each(page, files, desk.models["corners"])
            others = [browser.new_page() for _ in range(3)]
            for other in others:
                other.goto(address)
            for other in others:  # all are given before the first is waited for
                give(other, files / "picture.png")
            for other in others:
                assert said(other).startswith("1 left in")
            hosts = {urllib.parse.urlparse(url).netloc for url in asked} - {""}
            assert hosts == {urllib.parse.urlparse(address).netloc}


def _try_each(page, files, model):
    give(page, files / "picture.png")
    assert re.fullmatch(r"1 left in 0\.\d\d s\. 1 is less sure than 0\.30\.", said(page))
    page.wait_for_function("() => (document.querySelector('#overlay img') || {}).naturalWidth > 0")
    assert page.locator(SHOWN).evaluate("image => image.naturalWidth") == 10 * 61
    with page.expect_download() as download:
        page.click("#as-json")
    assert download.value.suggested_filename == "picture.json"
    assert len(json.loads(download.value.path().read_text())["instances"]) == 1
    threshold = page.locator("#threshold input[type=number]")
    threshold.fill("0.2")
    threshold.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 2")
    page.click("#classes label:has-text('left')")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 1")
    assert "right" in page.inner_text("#table")
    assert model.looks == 1  # one look served all of these
    page.click("#model label:has-text('other')")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 2")
    for name, start in (
        ("notes.txt", "notes.txt: this is no image of a known kind"),
        ("empty.png", "empty.png: the image file is empty (0 bytes)"),
        ("huge.png", "huge.png: this has more than the 50 megapixels"),
    ):
        give(page, files / name)
        assert said(page, name).startswith(start)
        page.locator(SHOWN).wait_for(state="detached")
    give(page, files / "moving.gif")
    assert "several frames" in said(page, "frames")
    page.locator(SHOWN).wait_for(state="visible")
    give(page, files / "heavy.jpg")  # gradio's part of the page refuses to send it
    page.locator("[data-testid=toast-body]:has-text('heavy.jpg')").wait_for()


def give(page, path):
    page.locator("#photo input[type=file]").set_input_files(path)


def said(page, words=""):
    """Return the sentence of the page once it has some words, and is not the one at the start."""
    told = page.locator("#words .sentence")
    page.wait_for_function(
        """words => { const told = document.querySelector('#words .sentence').innerText;
           return told.includes(words) && !told.startsWith('Waiting') }""",
        arg=words,
    )
    return told.inner_text()


def test_without_gradio_there_is_one_message(monkeypatch):
    def version(name):
        raise gradio_page.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gradio_page.importlib.metadata, "version", version)
    with pytest.raises(gradio_page.InputError, match=r"gradio is not installed.*\.\[web\]"):
        gradio_page.require()
    monkeypatch.setattr(gradio_page.importlib.metadata, "version", lambda name: "5.50.0")
    with pytest.raises(gradio_page.InputError, match=r"gradio 5\.50\.0 is installed"):
        gradio_page.require()


def test_what_has_been_there_for_long_is_swept_away(tmp_path):
    """What was there at the start stays, what comes later goes, and its folder with it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/kept").write_text("1")
    with gradio_page._swept(tmp_path, age=-1, every=0.01):
        (tmp_path / "b/c").mkdir(parents=True)
        (tmp_path / "b/c/gone").write_text("2")
        (tmp_path / "b/link").symlink_to(tmp_path / "a")
        while (tmp_path / "b").exists():
            pass
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/kept"]
