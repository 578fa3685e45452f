"""Check a config's data before a training: what is wrong, why, and how to mend it.

Ends with status 1 if anything was found that stops or spoils a training, else with 0.
"""

import argparse
import json
import sys
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command, worded
from swin_dense.errors import InputError

SPLITS = ("train", "val", "test")


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/doctor.py", __doc__)
    options.add_config(parser)
    options.add_data(parser)
    parser.add_argument(
        "--split",
        default="train,val",
        type=splits,
        metavar="NAMES",
        help="which splits to check, with commas between (train,val)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the findings there, - for standard output alone"
    )
    parser.add_argument(
        "--fix",
        metavar="DIR",
        help="write a copy of the annotations or label maps there, repaired where the meaning is "
        "certain, and changes.json; images are linked, nothing is changed in place",
    )
    parser.add_argument(
        "--codes", nargs=0, action=Codes, help="print what can be found, by code, and end"
    )
    return parser


class Codes(argparse.Action):
    """Print the page of all codes, and end."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        from swin_dense.openmmlab.settings import examination  # noqa: F401  (and all it imports)
        from swin_dense.report import findings

        print(findings.page(), end="")
        parser.exit()


def splits(text: str) -> tuple[str, ...]:
    """Read "train,val" as ("train", "val")."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not set(names) <= set(SPLITS):
        raise argparse.ArgumentTypeError(f"some of {', '.join(SPLITS)}, not {text!r}")
    return tuple(s for s in SPLITS if s in names)


def _doctor(asked: argparse.Namespace) -> int:
    from swin_dense.openmmlab.settings import config as configs
    from swin_dense.openmmlab.settings import examination, places
    from swin_dense.report import findings as report

    quiet = asked.json == "-"
    config = configs.load(asked.config, asked.cfg_options, lambda line: None, asked.trust_config)
    there = tuple(s for s in asked.split if config.get(f"{s}_dataloader"))
    if not there:
        raise InputError(f"config: {asked.config} has no data of {', '.join(asked.split)}.")
    root = places.root_of(config, asked.data, asked.data_root)
    found = examination.examine(config, there, root, asked.classes, asked.image_scale)
    if not quiet:
        print(worded(report.told(found), _PARSER))
    if asked.json:
        text = json.dumps([f.as_dict() for f in found], indent=2, ensure_ascii=False, default=str)
        if quiet:
            sys.stdout.write(text + "\n")
        else:
            Path(asked.json).write_text(text + "\n", encoding="utf-8")
    if asked.fix:
        for line in examination.mend(config, there, Path(asked.fix)):
            print(line)
    return int(any(f.severity == "error" for f in found))


_PARSER = _parser()
main = command(_doctor, _PARSER)
