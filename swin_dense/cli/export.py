"""Write a trained model as a file for another runtime, with a certificate.

The file is run on the test set of the config, in several batches and sizes, and must find what the
model finds: AP or mIoU, scores, boxes and label maps, within limits. If it does not, there is no
file. The certificate lies beside it, as JSON.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.cli.command import FAULT, command
from swin_dense.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config

    from swin_dense.openmmlab.engine.predictor import Predictor

FORMATS = ("onnx", "openvino", "torchscript", "torch-export")


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/export.py", __doc__)
    options.add_trained(parser)
    options.add_data(parser)
    parser.add_argument("--to", choices=FORMATS, default="onnx", help="the format (onnx)")
    parser.add_argument("--out", metavar="FILE", help="the file (<weights>.onnx, beside them)")
    parser.add_argument(
        "--sampling",
        choices=["grid", "gather"],
        default="grid",
        help="how deformable attention reads maps: by GridSample, or by gathering the four cells "
        "around a point, for runtimes whose GridSample differs (grid)",
    )
    parser.add_argument(
        "--images",
        type=options.positive,
        metavar="N",
        help="look at the first N images; AP counts objects of the others as missed (all)",
    )
    parser.add_argument(
        "--max-loss",
        type=options.share,
        metavar="SHARE",
        help="of AP, PQ or mIoU, 0 to 1, that the file may lose (0.001)",
    )
    parser.add_argument(
        "--no-certificate", action="store_true", help="write the file and compare nothing"
    )
    return parser


def _export(asked: argparse.Namespace) -> int:
    from swin_dense.checkpoints import files
    from swin_dense.export import formats
    from swin_dense.openmmlab.engine import exporting, predictor

    suffix = formats.SUFFIXES[asked.to]
    out = Path(asked.out) if asked.out else Path(Path(asked.checkpoint).name).with_suffix(suffix)
    if out.suffix != suffix:
        raise InputError(f"--out {out}: files of --to {asked.to} end in {suffix}.")
    files.require_place(out.parent, "--out")
    formats.require(out)
    model = predictor.load(
        asked.config,
        asked.checkpoint,
        device="cpu",
        image_scale=asked.image_scale,
        options=asked.cfg_options,
        trust_config=asked.trust_config,
    )
    config = None if asked.no_certificate else _with_data(asked, model)
    exporting.write(model, out, asked.sampling)
    print(f"{out}: {sum(one.stat().st_size for one in formats.parts(out)) / 1e6:.1f} MB")
    if config is None:
        print("no certificate: nobody has compared this file with its model")
        return 0
    return _certify(asked, model, config, out)


def _with_data(asked: argparse.Namespace, model: "Predictor") -> "Config":
    """Return the model's config with the test data that is asked for."""
    from mmengine.config import Config

    from swin_dense.openmmlab.engine import weights
    from swin_dense.openmmlab.settings import classes, places
    from swin_dense.task import Task

    config = Config(model.config.to_dict(), format_python_code=False)
    lines = places.complete_data(config, ("test",), asked.data, asked.data_root, asked.classes)
    print("\n".join(lines))
    found = tuple(config.test_dataloader.dataset.metainfo.classes)
    ordered = model.task is Task.SEMANTIC
    weights.require_classes(model.classes, found, str(asked.checkpoint), ordered=ordered)
    if not ordered:
        classes.set_classes(config, model.classes, model.things)
    return config


def _certify(asked: argparse.Namespace, model: "Predictor", config: "Config", out: Path) -> int:
    from swin_dense.export import formats
    from swin_dense.openmmlab.engine import certificate, predictor

    limits = dict(certificate.LIMITS)
    if asked.max_loss is not None:
        limits["metric"] = asked.max_loss
    file = predictor.load(out)
    found = certificate.certify(model, file, config, asked.images, limits, print)
    for row in found["passes"]:
        print(_line(row))
    refused = certificate.refusals(found)
    if refused:
        kept = out.with_name(out.name + ".refused.json")
        certificate.write(found, kept)
        for part in formats.parts(out):
            part.unlink()
        print("refused, and removed: the file does not find what its model finds")
        print("\n".join(f"  {line}" for line in refused))
        print(f"what it found: {kept}")
        return FAULT
    place = out.with_name(out.name + ".json")
    certificate.write(found, place)
    print(f"certificate: {place}")
    return 0


def _line(row: dict[str, Any]) -> str:
    shown = ", ".join(
        f"{name} {value:.4f} (file {row['file'][name]:.4f})" for name, value in row["model"].items()
    )
    drift = ", ".join(f"{name} {value:.2g}" for name, value in row["drift"].items() if value)
    speed = row["seconds_per_image"]
    return (
        f"  {row['images']} images: {shown}; drift {drift or 'none'}; "
        f"{speed['model'] / max(speed['file'], 1e-9):.2f} times the model's speed"
    )


main = command(_export, _parser())
