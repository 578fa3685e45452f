"""Write docs/model_zoo.md: what each config costs, and what it reached.

Counts are made from the configs; what others state is in docs/model_zoo.json, what we measured in
the metrics.json of a run that it names. No count and no result of ours in its tables is typed; the
sums in its remarks are, and the tests do them again.
"""

import argparse
import ast
import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense import config_files
from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.errors import InputError, nearest
from swin_dense.report import zoo
from swin_dense.report.zoo import Authors, Row
from swin_dense.task import Task

if TYPE_CHECKING:
    from mmengine.config import Config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/model_zoo.md"
STATED = ROOT / "docs/model_zoo.json"
HEAD = """# Model zoo

Written by `tools/model_zoo.py` from the configs and `model_zoo.json`; the tests fail when it is
stale. "Theirs" is what the authors state, not measured by us. Parameters are those of the whole
model. FLOPs are multiply-adds of one image, as the papers count them: 800x1280 for COCO (1000
boxes and 100 masks in detectors of two stages), s x 4s for label maps cut to s x s, or as it says.
Ours are mostly a little lower: tokens that only pad a window are not projected here. Results are
percent, at one scale. The licence links the authors' trained model; see [weights.md](weights.md)
for what reads it.
"""
MEASURED = {"bbox_AP": "box AP", "segm_AP": "mask AP", "PQ": "PQ", "mIoU": "mIoU"}
FRACTIONS = ("bbox_AP", "segm_AP")
GROUPS = {
    Task.DETECTION: "COCO, boxes",
    Task.INSTANCES: "COCO, instances",
    Task.PANOPTIC: "COCO, panoptic",
    Task.SEMANTIC: "ADE20K, semantic segmentation",
}
SHAPES = "Built-in shapes"


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/model_zoo.py", __doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the page would change"
    )
    return parser


def _model_zoo(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files

    if not STATED.is_file():
        raise InputError(
            f"there is no {STATED}: the page belongs to a checkout of the project, and so does "
            "what the authors state. Run tools/model_zoo.py of a checkout."
        )
    text = written(rows())
    if not asked.check:
        with files.replaced(PAGE) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"written: {PAGE}")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        raise InputError(f"{PAGE} is stale. Write it anew with tools/model_zoo.py.")


def written(found: list[Row]) -> str:
    """Return the page.

    Raises:
        InputError: counts are not the authors', and nothing says why.
    """
    if wrong := zoo.problems(found):
        raise InputError(f"{STATED.name}: " + "; ".join(wrong) + ".")
    return zoo.page(found, HEAD)


def rows() -> list[Row]:
    """Return a row for each config, in the order of the page."""
    stated = json.loads(STATED.read_text(encoding="utf-8"))
    paths = {name: config_files.FOLDER / f"{name}.py" for name in config_files.names()}
    if unknown := sorted(stated.keys() - paths.keys()):
        raise InputError(
            f"{STATED.name}: there is no config {unknown[0]!r}.{nearest(unknown[0], paths)}"
        )
    found = [row(path, stated.get(name, {})) for name, path in paths.items()]
    return sorted(
        found,
        key=lambda r: (
            [*GROUPS.values(), SHAPES].index(r.group),
            _head(r.name),
            r.parameters,
            r.name,
        ),
    )


def row(path: Path, stated: Mapping[str, Any]) -> Row:
    """Return the row of one config.

    Args:
        stated: of docs/model_zoo.json: what Authors takes, `shape` (height and width) where their
            FLOPs are of another size than image_sizes.paper_shape, and `ours`, the path of a
            metrics.json of ours from the root of the project.
    """
    from swin_dense.benchmarks import peers
    from swin_dense.openmmlab.engine import complexity
    from swin_dense.openmmlab.settings import config as configs
    from swin_dense.openmmlab.settings import image_sizes

    with contextlib.suppress(peers.NotInstalledError):  # the backbone then says what is missing
        peers.reach_backbone(path)
    config = configs.load(path)
    usual = image_sizes.paper_shape(config)
    height, width = stated.get("shape", usual)
    total = complexity.count(config, (height, width))
    title = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    words = title.split("\n\n")[0].replace("\n", " ").rstrip(".").split(", ")
    start = re.search(r"those (ImageNet-\w+) weights", title)
    theirs = {key: value for key, value in stated.items() if key not in ("shape", "ours")}
    return Row(
        path.stem,
        _group(config),
        ", ".join(w for w in words if not w.startswith(("COCO", "ADE20K", "batch"))),
        start[1] if start else "",
        total.parameters,
        total.flops,
        "" if (height, width) == usual else f"{height}x{width}",
        _measured(ROOT / stated["ours"]) if "ours" in stated else {},
        Authors(**theirs) if theirs else None,
    )


def _group(config: "Config") -> str:
    if config.get("data") == "shapes":
        return SHAPES
    return GROUPS[Task.of(config)]


def _head(name: str) -> str:
    """Return "mask_rcnn" of "mask_rcnn_swin_t"; sizes of a head stay together."""
    return name.partition("_swin")[0]


def _measured(path: Path) -> dict[str, float]:
    """Return results in percent, of a metrics.json that tools/test.py wrote."""
    metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return {
        title: metrics[name] * (100 if name in FRACTIONS else 1)
        for name, title in MEASURED.items()
        if name in metrics
    }


main = command(_model_zoo, _parser())
