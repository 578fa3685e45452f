"""Compare two evaluations of the same images, and say whether they differ."""

import argparse
import json
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/compare.py", __doc__)
    for place in ("first", "second"):
        parser.add_argument(
            place,
            metavar=f"RUN_{place.upper()}",
            help="a folder of test --report, or several with commas between, of runs that differ "
            "in their seed alone",
        )
    parser.add_argument("--json", metavar="FILE", help="write all differences there, too")
    parser.add_argument(
        "--resamples",
        type=options.positive,
        default=1000,
        metavar="N",
        help="how often the images are drawn anew for an interval (1000)",
    )
    parser.add_argument("--seed", type=options.natural, default=0, help="of the draws (0)")
    return parser


def _compare(asked: argparse.Namespace) -> None:
    from swin_dense.report import comparison, records
    from swin_dense.report.tested import plain

    first, second = (
        [records.read(Path(folder)) for folder in folders.split(",")]
        for folders in (asked.first, asked.second)
    )
    found = comparison.compare_sides(first, second, asked.resamples, asked.seed)
    print(comparison.told(found))
    if asked.json:
        from swin_dense.checkpoints import files

        path = Path(asked.json)
        files.require_place(path.parent, "--json")
        content = {"first": asked.first, "second": asked.second, "kinds": plain(found)}
        with files.replaced(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"differences: {path}")


main = command(_compare, _parser())
