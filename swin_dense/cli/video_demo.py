"""Draw what a model finds in each frame of a video, or of a camera, as a video."""

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import Any

from swin_dense.cli import options, trained
from swin_dense.cli.command import command
from swin_dense.cli.progress import progress
from swin_dense.errors import InputError

CODES = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".webm": "VP80"}
RATE = 25.0  # frames in a second, where the source tells no times


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("demo/video_demo.py", __doc__)
    parser.add_argument(
        "video", help="a video, its address, a live stream's address, or a camera's number"
    )
    trained.add(parser)
    parser.add_argument(
        "--out",
        default="demo_out.mp4",
        metavar="FILE",
        help=f"the video to write: {' '.join(CODES)}; browsers play .webm (demo_out.mp4)",
    )
    parser.add_argument(
        "--max-frames", type=options.positive, metavar="N", help="end after N frames"
    )
    return parser


def _demo(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files
    from swin_dense.datasets import sources

    source, out = sources.find(asked.video), Path(asked.out)
    if source.single:
        raise InputError(f"{asked.video}: this is an image. demo/image_demo.py draws images.")
    if out.suffix.lower() not in CODES:
        raise InputError(f"--out {out}: the suffix says how to write it: {' '.join(CODES)}.")
    if out.is_dir() or (out.exists() and out.resolve() == Path(asked.video).resolve()):
        raise InputError(f"--out {out}: this is a folder, or the video itself. Name another file.")
    files.require_place(out.parent, "--out")
    model = trained.load(asked)
    results = model.stream(source, asked.score_thr)
    part = out.with_name(f".{out.name}{out.suffix}")
    count = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            contextlib.closing(results),
            progress(asked.max_frames) as tell,
            _Video(part) as video,
        ):
            for result in itertools.islice(results, asked.max_frames):
                video.add(result.draw_frame(), result.seconds)
                count += 1
                tell(count)
    finally:  # what there is when somebody ends it is a video, too
        if count:
            part.replace(out)
            print(f"{count} frames -> {out}")
        part.unlink(missing_ok=True)


class _Video:
    """A video to be written; its size is that of the first frame, its rate that of the source.

    That rate is known with the second frame, for which the first one waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: tuple[Any, float | None] | None = None
        self.writer: Any = None

    def add(self, rgb: Any, seconds: float | None) -> None:
        """Write a frame; one of another size is fitted into the first one's, with black around."""
        if self.first is None:
            self.first = rgb, seconds
            return
        if self.writer is None:
            start = self.first[1]
            known = seconds is not None and start is not None and seconds > start
            self._open(1 / (seconds - start) if known else RATE)  # type: ignore[operator]
        self._write(rgb)

    def _open(self, rate: float) -> None:
        import cv2

        code = cv2.VideoWriter_fourcc(*CODES[self.path.suffix.lower()])  # type: ignore[attr-defined]
        rgb = self.first[0]  # type: ignore[index]
        self.size = rgb.shape[1::-1]
        self.writer = cv2.VideoWriter(str(self.path), code, rate, self.size)
        if not self.writer.isOpened():
            raise InputError(f"--out: this OpenCV cannot write {self.path.suffix}; try .avi.")
        self._write(rgb)

    def _write(self, rgb: Any) -> None:
        import cv2
        import numpy as np
        from PIL import Image, ImageOps

        if rgb.shape[1::-1] != self.size:
            rgb = np.asarray(ImageOps.pad(Image.fromarray(rgb), self.size))
        self.writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> "_Video":
        return self

    def __exit__(self, *_: object) -> None:
        if self.first is not None and self.writer is None:
            self._open(RATE)
        if self.writer is not None:
            self.writer.release()


main = command(_demo, _parser())
