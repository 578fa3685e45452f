"""The page needs gradio and says so; what it leaves on disk is cleared away."""

import pytest

from swin_dense.web import gradio_page


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
