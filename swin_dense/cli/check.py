"""Try every kernel on this machine's devices against its meaning in float64.

The same small cases are tried by themselves at the first use of an op on a CUDA device; here all
of them run and are shown. Ends with status 1 if one is no good. Attach the file that --json writes
to a report.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_dense.cli import options
from swin_dense.cli.command import FAULT, command
from swin_dense.errors import InputError, nearest
from swin_dense.report import tables

if TYPE_CHECKING:
    import torch

    from swin_dense.ops.self_check import Finding


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/check.py", __doc__)
    parser.add_argument(
        "--device",
        action="append",
        metavar="NAME",
        help="cpu, cuda or cuda:1; may be given several times (all that have kernels)",
    )
    parser.add_argument(
        "--op", action="append", metavar="NAME", help="only this one; may be given several times"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was found there too")
    return parser


def _check(asked: argparse.Namespace) -> int:
    from swin_dense.benchmarks.ratios import machine
    from swin_dense.checkpoints import files
    from swin_dense.ops import self_check, trust

    found: dict[str, list[Finding]] = {}
    ops, notes = _ops(asked.op), list[str]()
    for device in _devices(asked.device):
        for family in ops:
            for dtype in self_check.dtypes(family, device):
                reason = trust.no_code(family, device)
                if reason is not None:
                    notes.append(reason)
                    break
                found.setdefault(str(device), []).extend(self_check.run(family, device, dtype))
    rows = [_row(device, one) for device, findings in found.items() for one in findings]
    header = ["op", "case", "device", "dtype", "off by", "allowed", "same bits", "ms", ""]
    on = machine()
    print(f"{trust.describe()}; {on['device']}, {on['cpu']}, torch {on['torch']}")
    print(tables.grid(header, rows))
    findings = [one for some in found.values() for one in some]
    bad = [one for one in findings if not one.ok]
    seconds = sum(one.seconds for one in findings)
    print(f"{len(findings)} cases in {seconds:.1f} s, {len(bad)} of them no good", *notes, sep="\n")
    if asked.json:
        entries = [
            {"device": device, **one.to_json()} for device, some in found.items() for one in some
        ]
        content = {
            "kernels": trust.describe(), "machine": on, "notes": notes, "findings": entries
        }  # fmt: skip
        with files.replaced(Path(asked.json)) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    return FAULT if bad else 0


def _devices(names: Sequence[str] | None) -> "list[torch.device]":
    import torch

    from swin_dense.ops import extension

    have = [torch.device("cpu")] if "cpu" in extension.loaded() else []
    if "cuda" in extension.loaded():
        have += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if not have:
        raise InputError(f"nothing to check: {extension.describe()}.")
    if names is None:
        return have
    chosen = [device for name in names for device in have if name in (str(device), device.type)]
    if len({device.type for device in chosen}) < len({name.partition(":")[0] for name in names}):
        raise InputError(
            f"`device`: kernels are here for {', '.join(map(str, have))}; got "
            f"{', '.join(names)}. {extension.describe()}."
        )
    return chosen


def _ops(names: Sequence[str] | None) -> list[str]:
    from swin_dense.ops import self_check

    known = self_check.families()
    for name in names or ():
        if name not in known:
            raise InputError(
                f"`op`: there is no op {name}.{nearest(name, known)} One of {', '.join(known)}."
            )
    return list(names or known)


def _row(device: str, one: "Finding") -> list[str]:
    bits = {None: "-", True: "yes", False: "NO"}[one.equal_bits]
    return [
        one.op, one.about, device, one.dtype, f"{one.error:.1e}", f"{one.allowed:.0e}", bits,
        f"{one.seconds * 1000:.0f}", "good" if one.ok else "NO GOOD",
    ]  # fmt: skip


main = command(_check, _parser())
