"""Rewrite another project's weights under our names, as safetensors.

SRC is a path, an https or hf:// address, or a name of the authors' weights. Its layout is told by
its names. DST holds the account of the conversion in its metadata.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.config_files import find_config
from swin_dense.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from swin_dense.checkpoints.files import Checkpoint
    from swin_dense.checkpoints.ledger import Ledger

WARNING = (
    "warning: --trust unpickles {path}. A pickle is a program: whoever made or changed the file "
    "can do with this computer whatever you can do, read your keys, delete your data. Go on only "
    "with a file from somebody you trust, best inside a container without network."
)
# Of what the file says of itself.
KEPT = ("classes", "CLASSES", "thing_classes", "dataset_meta", "config")
KEPT_NAMES = "no layout known, names kept"


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/convert.py", __doc__)
    parser.add_argument("src", help="the weights to read")
    parser.add_argument("dst", help="the .safetensors file to write")
    parser.add_argument(
        "--to",
        metavar="LAYOUT",
        help="write a bare backbone in this layout instead of ours, one that --layouts lists",
    )
    parser.add_argument(
        "--layouts", action=_List, nargs=0, help="list the layouts that --to can write, and end"
    )
    parser.add_argument(
        "--config", help="compare the weights with the model of this config, tensor by tensor"
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it is there")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="unpickle a file that needs it, which runs whatever code is in it",
    )
    options.add_trust(parser)
    return parser


class _List(argparse.Action):
    """Print the names of the layouts and end, as --help does with the options."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        import swin_dense.backbones  # noqa: F401  registers what is known of their weights
        from swin_dense.checkpoints import layouts

        print("\n".join(layouts.known()))
        parser.exit()


def _convert(asked: argparse.Namespace) -> None:
    import swin_dense.backbones  # noqa: F401  registers what is known of their weights
    from swin_dense.checkpoints import downloads, files, layouts
    from swin_dense.checkpoints.ledger import count

    to = Path(asked.dst)
    if to.suffix != ".safetensors":
        raise InputError(f"DST {to}: safetensors are written. Call it {to.stem}.safetensors.")
    if to.exists() and not asked.force:
        raise InputError(f"DST {to} is there already. Choose another name, or give --force.")
    heads = asked.to is not None and layouts.takes_heads(asked.to)
    files.require_place(to.parent, "DST")
    path = downloads.locate(asked.src)
    if asked.trust:
        print(WARNING.format(path=path), file=sys.stderr, flush=True)
    checkpoint = files.read(path, source=asked.src, trust=asked.trust)

    state, layout, dropped = _converted(checkpoint, needed=asked.to is not None)
    if asked.to is not None:
        state = layouts.export(state if heads else _bare(state), asked.to)
    record: dict[str, Any] = {
        "file": asked.src,
        "sha256": files.sha256(checkpoint.path),
        "layout": layout,
        "written_as": asked.to or ("ours" if layout != KEPT_NAMES else layout),
        "left_out": dropped,
    }
    print(f"weights: {asked.src} (sha256 {record['sha256'][:12]})\n  found: {layout}")
    if dropped:
        kinds = "; ".join(f"{n} {why}" for why, n in Counter(dropped.values()).items())
        print(f"  left out: {len(dropped)} tensors ({kinds})")
    if asked.config:
        ledger = _compared(checkpoint, asked.config, asked.trust_config)
        record["model"] = {"config": find_config(asked.config).name, **ledger.record()}
        print(f"against {asked.config}:", *ledger.comparison()[2:], sep="\n")
    files.write_weights(to, state, _about(checkpoint) | {"weights": [record]})
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    print(f"{to}: {len(state)} tensors, {count(shapes):,} numbers, {record['written_as']}")


def _converted(
    checkpoint: "Checkpoint", needed: bool
) -> tuple[dict[str, "Tensor"], str, dict[str, str]]:
    """Return the weights, the layout they had, and what was left out with its reason."""
    from swin_dense.checkpoints import fitting, layouts, suspicious

    suspicious.refuse_impossible(checkpoint.weights, checkpoint.source)
    try:
        found = layouts.convert(checkpoint.weights)
    except InputError as error:
        if needed:
            raise
        print(f"note: {error}", file=sys.stderr)
        return checkpoint.weights, KEPT_NAMES, checkpoint.no_tensors
    suspicious.refuse_suspicious(found.state, checkpoint.source)
    layout = found.layout + fitting.averaged(found.average or checkpoint.average)
    return found.state, layout, {**found.dropped, **checkpoint.no_tensors}


def _bare(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return the backbone of a detector, or the whole of what is a backbone."""
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    return inner or dict(state)


def _compared(checkpoint: "Checkpoint", config: str, trust_config: bool) -> "Ledger":
    """Return the account of laying the weights into the config's model, or into its backbone."""
    from swin_dense.openmmlab.engine import weights

    return weights.compare(config, checkpoint, trust_config)


def _about(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the names of the classes, wherever the file has them, and the config if it is ours."""
    meta = checkpoint.get("meta")
    kept = {key: meta[key] for key in KEPT if key in meta} if isinstance(meta, Mapping) else {}
    if not isinstance(kept.get("config"), Mapping):  # others write its text there
        kept.pop("config", None)
    return {key: value for key, value in kept.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


main = command(_convert, _parser())
