"""Count the parameters, FLOPs, activations and memory of a model, by part.

Nothing is computed and no data is needed. A FLOP is a multiply-add, as in the papers; a detector of
two stages is given 1000 boxes, of which 100 get a mask. Activations are what a training step keeps
for its backward pass, of the largest images that the config's pipeline gives. --shape counts both
at another size: training images are scaled to it as by tools/train.py --image-scale.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.report import tables

if TYPE_CHECKING:
    from mmengine.config import Config

    from swin_dense.openmmlab.engine.complexity import Complexity, Part

MIB = 2**20


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/model_info.py", __doc__)
    options.add_config(parser)
    parser.add_argument(
        "--shape",
        metavar="LONG,SHORT",
        type=options.scale,
        help="size of the images in pixels (as in the papers, such as 1280,800 or 2048,512, and "
        "the largest that the config trains at)",
    )
    parser.add_argument(
        "--batch-size",
        type=options.positive,
        metavar="N",
        help="images of a training step (the config's, for one device)",
    )
    parser.add_argument(
        "--amp",
        choices=["bf16", "fp16"],
        help="mixed precision of the training step (the config's; both keep as many bytes)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers there, too")
    return parser


def _model_info(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files
    from swin_dense.openmmlab.engine import complexity
    from swin_dense.openmmlab.settings import config as configs
    from swin_dense.openmmlab.settings import image_sizes

    config = configs.load(asked.config, asked.cfg_options, trust_config=asked.trust_config)
    if asked.shape:
        image_sizes.scale_images(config, asked.shape)
    shape = asked.shape[::-1] if asked.shape else image_sizes.paper_shape(config)
    training = image_sizes.training_shape(config) or shape
    batch = asked.batch_size or (config.get("train_dataloader") or {}).get("batch_size", 1)
    amp = asked.amp or _amp(config)
    if asked.json:
        files.require_place(Path(asked.json).parent, "--json")
    found = complexity.measure(config, shape, training, batch, amp is not None)
    print(
        f"{asked.config}: FLOPs of one image of {_by(shape)}; activations of a training step of "
        f"{batch} x {_by(training)}{', ' + amp if amp else ''}\n"
    )
    print(table(found))
    print(
        "\ntraining memory with AdamW, predicted: "
        + " + ".join(f"{use.replace('_', ' ')} {_mib(size)}" for use, size in found.uses.items())
        + f" = {_mib(found.memory)} MiB, without what allocators, products and losses add"
    )
    if asked.json:
        about = {
            "config": asked.config,
            "shape": shape,
            "training_shape": training,
            "batch": batch,
            "amp": amp,
        }
        with files.replaced(Path(asked.json)) as temporary:
            temporary.write_text(json.dumps({**about, **as_json(found)}, indent=2) + "\n")


def _amp(config: "Config") -> str | None:
    """Return the mixed precision that a config itself trains in."""
    wrapper = config.get("optim_wrapper") or {}
    kind = str(wrapper.get("type")).rpartition(".")[2]
    if kind == "AmpOptimWrapper":  # of a GPU, whose own is float16
        return "bf16" if "bfloat16" in str(wrapper.get("dtype")) else "fp16"
    return "bf16" if kind == "Bfloat16OptimWrapper" else None


def table(found: "Complexity") -> str:
    """Return a table with a row for each part, then their sum."""
    rows = [
        [p.name, f"{p.parameters / 1e6:.2f}", f"{p.flops / 1e9:.2f}", _mib(p.kept)]
        for p in (*found.parts, found.total)
    ]
    return tables.grid(["part", "parameters (M)", "FLOPs (G)", "activations (MiB)"], rows)


def as_json(found: "Complexity") -> dict[str, Any]:
    """Return whole numbers: parameters, multiply-adds, bytes."""
    return {
        "total": _numbers(found.total),
        "parts": {part.name: _numbers(part) for part in found.parts},
        "training_memory": found.memory,
        "training_memory_by_use": found.uses,
    }


def _numbers(part: "Part") -> dict[str, int]:
    return {"parameters": part.parameters, "flops": part.flops, "activations": part.kept}


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


main = command(_model_info, _parser())
