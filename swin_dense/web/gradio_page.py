"""The page itself: gradio's parts over `Answers`, which does all there is to do.

Nothing is fetched from elsewhere and nothing is told to anybody: gradio's telemetry and version
check are off, its fonts and scripts are its own files.
"""

import contextlib
import importlib.metadata
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from swin_dense.errors import InputError, extra_of_ours
from swin_dense.report.page import text
from swin_dense.task import Task
from swin_dense.web import pieces
from swin_dense.web.answers import LEAST, Answers, file_name
from swin_dense.web.guard import Guard
from swin_dense.web.views import View

VERSION = 6  # of gradio, whose parts change names between versions
LARGE = 3_000_000  # bytes of the pixels of a picture
AGE = 1800  # seconds that pictures and files to download are kept
SETTINGS = "GRADIO_"  # what begins so in the environment would change the page
FAULT = "Something went wrong here that is not your picture's fault. The server's log tells what."
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
CSS = """
.gradio-container{max-width:76rem!important;margin:0 auto!important;
--soft:color-mix(in srgb,var(--body-text-color) 68%,transparent)}
.html-container{padding:0!important}
.lead h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0 .3rem}
.lead p{margin:0;max-width:46rem;color:var(--soft)}
.sentence{border-left:4px solid var(--primary-500);border-radius:4px;padding:.55rem .8rem;
background:var(--background-fill-secondary);overflow-wrap:anywhere}
.sentence p{margin:0}.sentence.wrong{border-color:#d1242f;background:rgb(209 36 47/.09)}
.note{color:var(--soft);font-size:.88rem}.sentence .note{margin-top:.25rem}
.found{overflow:auto;max-height:24rem}
.found table{width:100%;border-collapse:collapse;font-size:.92rem;border:0;
font-variant-numeric:tabular-nums}
.found tr{border:0!important}
.found th,.found td{padding:.3rem .55rem;border:0!important;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--border-color-primary)!important}
.found tbody th:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;
font-weight:500}
.found thead th{position:sticky;top:0;background:var(--body-background-fill);font-weight:600;
color:var(--soft)!important}.found thead th:first-child{text-align:left}
.found i{display:inline-block;width:.95em;height:.95em;border-radius:3px;margin-right:.5em;
vertical-align:-.12em;border:1px solid rgb(0 0 0/.25)}
@media(max-width:40rem){.found tr{border:0!important}
.found th,.found td{padding:.3rem .3rem}}
"""


class Example(NamedTuple):
    """A picture to try the page with, (H, W, 3) uint8, RGB."""

    name: str
    rgb: np.ndarray


def require() -> None:
    """Look whether gradio is installed, without the seconds that its import takes.

    Raises:
        InputError: it is not, or it is another version; with what to do.
    """
    remedy = extra_of_ours("web")
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"web-demo: gradio is not installed. {remedy}") from error
    if int(version.partition(".")[0]) != VERSION:
        raise InputError(
            f"web-demo: gradio {version} is installed, and this page is made of the parts of "
            f"gradio {VERSION}. {remedy}"
        )


@contextlib.contextmanager
def served(
    answers: Answers,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    least: float = 0.3,
    examples: Sequence[Example] = (),
    title: str = "swin_dense",
) -> Iterator[str]:
    """Serve the page within, from a folder that is removed at the end; gives its address.

    Args:
        port: None for the first free one from 7860.
        least: the threshold that the page begins with.

    Raises:
        InputError: gradio is missing, or the port or the address cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="swin_dense_web_") as folder, _own_settings(folder):
        gradio = _imported()
        page = _Page(gradio, answers, Path(folder), least, examples, title)
        blocks = page.build()
        middleware = _middleware(answers.limits.size, folder)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                inline=False,
                quiet=True,
                prevent_thread_lock=True,
                max_threads=answers.limits.waiting + 16,
                max_file_size=answers.limits.size,
                allowed_paths=[],
                app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                state_session_capacity=1000,
                theme=_theme(gradio),
                css=CSS,
            )
        except OSError as error:
            raise InputError(
                f"web-demo: {host} port {port or 'from 7860'} cannot be had ({error}). Another "
                "program may have it: choose another `port`, or leave it out."
            ) from error
        try:
            with _swept(Path(folder)):
                yield address
        finally:
            blocks.close(verbose=False)


class _Page:
    """The parts of the page and what happens in them."""

    def __init__(
        self,
        gradio: Any,
        answers: Answers,
        folder: Path,
        least: float,
        examples: Sequence[Example],
        title: str,
    ) -> None:
        self.gr, self.answers, self.folder = gradio, answers, folder
        self.least, self.examples, self.title = max(least, LEAST), examples, title

    def build(self) -> Any:
        """Return gradio's blocks."""
        gr = self.gr
        _Page._example.__annotations__["chosen"] = gr.SelectData
        with gr.Blocks(title=self.title, analytics_enabled=False) as blocks:
            self.key = gr.State("")
            gr.HTML(
                f"<h1>{text(self.title)}</h1><p>Give a picture: what the model finds in it is "
                "drawn over it. It goes to the machine that serves this page and nowhere else.</p>",
                elem_classes="lead",
            )
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._inputs()
                with gr.Column(scale=3, min_width=320):
                    self._outputs()
            self._events()
        blocks.queue(max_size=4 * self.answers.limits.waiting, api_open=False)
        return blocks

    def _inputs(self) -> None:
        gr, names = self.gr, list(self.answers.models)
        self.model = gr.Radio(
            names, value=names[0], label="Model", visible=len(names) > 1, elem_id="model"
        )
        self.photo = gr.File(label="Picture", height=150, elem_id="photo")
        self.photo.async_move_resource_to_block_cache = self._own_file
        words = "<p class=note>Or try one of these:</p>" if self.examples else ""
        gr.HTML(words)
        self.gallery = gr.Gallery(
            [Image.fromarray(example.rgb) for example in self.examples],
            label="Pictures to try",
            show_label=False,
            columns=4,
            rows=1,
            height=120,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            visible=bool(self.examples),
            elem_id="examples",
        )

    def _outputs(self) -> None:
        gr = self.gr
        first = next(iter(self.answers.models.values()))
        words = f"Waiting for a picture. This model knows {pieces.listing(first.classes)}."
        self.words = gr.HTML(pieces.sentence(words), elem_id="words")
        self.picture = gr.Image(
            label="What was found",
            show_label=False,
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="overlay",
        )
        self.threshold = gr.Slider(
            LEAST,
            1.0,
            value=self.least,
            step=0.01,
            label="Show what is at least so sure",
            visible=False,
            elem_id="threshold",
        )
        self.classes = gr.CheckboxGroup([], label="Classes", visible=False, elem_id="classes")
        self.table = gr.HTML("", elem_id="table")
        with gr.Row():
            self.downloads = [
                gr.DownloadButton(
                    f"Download {name}", visible=False, size="md", elem_id=f"as-{name.lower()}"
                )
                for name in ("JSON", "GeoJSON")
            ]

    def _events(self) -> None:
        gr, waiting = self.gr, self.answers.limits.waiting
        shown = [self.words, self.picture, self.table, *self.downloads]
        found = [self.key, self.threshold, self.classes, *shown]
        # `Answers` has them wait in a line of its own, so that all of them come to it.
        look = dict(concurrency_limit=waiting + 1, concurrency_id="look", api_visibility="private")
        look |= dict(show_progress_on=[self.words], trigger_mode="multiple")
        self.photo.upload(
            self._uploaded, [self.photo, self.model, self.threshold], [self.photo, *found], **look
        )
        self.gallery.select(self._example, [self.model, self.threshold], found, **look)
        self.model.input(self._other_model, [self.key, self.model, self.threshold], found, **look)
        gr.on(
            [self.threshold.input, self.threshold.release, self.classes.input],
            self._changed,
            [self.key, self.threshold, self.classes],
            shown,
            trigger_mode="always_last",
            show_progress="hidden",
            concurrency_limit=2,
            api_visibility="private",
        )

    def _uploaded(self, path: str | None, model: str, least: float) -> list[Any]:
        """Look at an uploaded file; the place for the next one is free again.

        It is left there: gradio keeps equal files of several people as one.
        """

        def key() -> str:
            if path is None:
                raise InputError("There is no file. Give a picture.")
            file = self._inside(path)
            return self.answers.look(file.read_bytes(), file.name, model)

        return [None, *self._found(key, least)]

    def _example(self, model: str, least: float, chosen: Any) -> list[Any]:
        """Look at the example that was clicked on; `build` says that this is what `chosen` is."""

        def key() -> str:
            example = self.examples[int(chosen.index)]
            return self.answers.look_at(example.rgb, example.name, model)

        return self._found(key, least)

    def _other_model(self, key: str, model: str, least: float) -> list[Any]:
        if not key:
            return [self.gr.skip()] * 8
        return self._found(lambda: self.answers.look_again(key, model), least)

    def _found(self, look: Callable[[], str], least: float) -> list[Any]:
        """Return new values of all that shows what was found: all of it anew."""
        gr = self.gr

        def values() -> list[Any]:
            key = look()
            view = self.answers.show(key, least)
            scores = self.answers.models[self.answers.seen(key).model].task is not Task.SEMANTIC
            names = list(view.names)
            return [
                key,
                gr.update(visible=scores and bool(names)),
                gr.update(choices=names, value=names, visible=len(names) > 1),
                *self._shown(key, view, least),
            ]

        hidden = gr.update(visible=False)
        return self._told(values, ["", hidden, hidden])

    def _changed(self, key: str, least: float, names: list[str]) -> list[Any]:
        return self._told(lambda: self._shown(key, self.answers.show(key, least, names), least), [])

    def _shown(self, key: str, view: View, least: float) -> list[Any]:
        gr, seen = self.gr, self.answers.seen(key)
        classes = self.answers.models[seen.model].classes
        words = pieces.summary(view, seen.seconds, least, classes)
        picture, *files = self._written(key, seen.result.name, view)
        return [
            pieces.sentence(words, seen.notes),
            gr.update(value=str(picture), visible=True),
            pieces.table(view.rows),
            *(gr.update(value=str(file), visible=True) for file in files),
        ]

    def _written(self, key: str, name: str, view: View) -> list[Path]:
        """Write what can be downloaded, into a folder whose name nobody can guess."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name).stem)[:40]
        picture, files = Image.fromarray(view.picture), []
        if view.picture.size < LARGE:
            files.append(folder / f"{stem}.png")
            picture.save(files[0])
        else:  # a PNG would take a second
            files.append(folder / f"{stem}.jpg")
            picture.save(files[0], quality=92, subsampling=0)
        for words, suffix in zip(self.answers.written(key, view), ("json", "geojson"), strict=True):
            files.append(folder / f"{stem}.{suffix}")
            files[-1].write_text(words, encoding="utf-8")
        return files

    def _told(self, values: Callable[[], list[Any]], before: list[Any]) -> list[Any]:
        """Return values, or a sentence in their place; the server lives on."""
        try:
            return values()
        except InputError as error:
            words = str(error)
        except Exception:
            traceback.print_exc()
            words = FAULT
        hidden = self.gr.update(visible=False)
        return [*before, pieces.sentence(words, wrong=True), hidden, "", hidden, hidden]

    async def _own_file(self, path: str | Path | None) -> str | None:
        """Take only what was uploaded to this page; gradio would fetch addresses, too."""
        return None if path is None else str(self._inside(path))

    def _inside(self, path: str | Path) -> Path:
        """Return a file if it lies in the page's folder and is no link out of it."""
        file = Path(path)
        if file.is_symlink() or not file.resolve().is_relative_to(self.folder.resolve()):
            raise InputError("This file was not uploaded here.")
        if not file.is_file():
            raise InputError(f"{file_name(file.name)}: the file is no longer here. Give it again.")
        return file


@contextlib.contextmanager
def _swept(folder: Path, age: float = AGE, every: float = 60.0) -> Iterator[None]:
    """Remove from time to time, within, what has been in a folder for long; not what is there now.

    Args:
        age, every: in seconds.
    """
    ended, kept = threading.Event(), set(folder.rglob("*"))

    def sweep() -> None:
        while not ended.wait(every):
            for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before it
                with contextlib.suppress(OSError):  # a folder that is not empty yet
                    if path not in kept and time.time() - path.lstat().st_mtime > age:
                        is_folder = path.is_dir() and not path.is_symlink()
                        path.rmdir() if is_folder else path.unlink()

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _own_settings(folder: str) -> Iterator[None]:
    """Have gradio read no setting but ours from the environment, within."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(SETTINGS)}
    own = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
    own |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    around = os.environ.get("NO_PROXY", "")  # gradio asks its own server whether it is there
    own |= {"NO_PROXY": ",".join(filter(None, [around, "127.0.0.1", "localhost"]))}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.environ.update(kept)


def _imported() -> Any:
    """Import gradio, which reads its environment as it is imported."""
    require()
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            f"web-demo: gradio is installed and does not import ({error}). Install it with what it "
            "needs: pip install '.[web]' in the project's folder."
        ) from error
    return gradio


def _theme(gradio: Any) -> Any:
    return gradio.themes.Default(primary_hue="blue", font=FONT, font_mono=["ui-monospace"])


def _middleware(size: int, folder: str) -> list[Any]:
    from starlette.middleware import Middleware

    return [Middleware(Guard, size=size, folder=folder)]
