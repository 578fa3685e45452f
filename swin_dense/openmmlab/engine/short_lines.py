"""Lines for the console: at most 120 characters of what the log file has in full."""

import datetime
import logging
from collections.abc import Mapping
from typing import Any

from mmengine.runner import LogProcessor

WIDTH = 120
STAMP = "%H:%M:%S "
ROOM = WIDTH - len("12:34:56 ")
MOST = 4  # terms of the loss
# What mmdet's metric prints of the numbers that the line after it has, mmengine's name of the run,
# mmengine's warnings of its own old names, and that mmseg's metric has no prefix.
NOT_FOR_THE_USER = (
    "\n Average Precision",
    "\nAverage Precision",
    "\n Average Recall",
    "Evaluating ",
    "Exp name",
    '"FileClient"',
    '"HardDiskBackend"',
    "The prefix is not set in metric class",
)


class Line(str):
    """A line as mmengine has it, and `short` for the console."""

    short: str

    def __new__(cls, full: str, short: str) -> "Line":
        line = super().__new__(cls, full)
        line.short = short
        return line


class ShortLines(LogProcessor):
    """mmengine's lines and scalars, each line with a short one for the console."""

    def get_log_after_iter(
        self, runner: Any, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        tag, full = super().get_log_after_iter(runner, batch_idx, mode)
        if mode == "train":
            place = f"{runner.iter + 1}/{runner.max_iters}"
            if self.by_epoch:
                length = self._get_dataloader_size(runner, mode)
                place = f"{tag['epoch']}/{runner.max_epochs} {batch_idx + 1}/{length}"
            start = f"{'epoch' if self.by_epoch else 'iter'} {place}"
        else:
            start = f"{mode} {batch_idx + 1}/{self._get_dataloader_size(runner, mode)}"
        parts = [start]
        if (eta := runner.message_hub.runtime_info.get("eta")) is not None:
            parts.append(f"eta {datetime.timedelta(seconds=int(eta))}")
        if mode == "train":
            parts += [f"{tag['time']:.2f} s"] * ("time" in tag)
            parts += [f"lr {tag['lr']:.2e}"] * ("lr" in tag)
            parts += _losses(tag)
        return tag, Line(full, fitted(parts))

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        tag, full = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        trains = not (isinstance(runner._train_loop, dict) or runner._train_loop is None)
        where = f"evaluation at iteration {runner.iter}" if trains and mode == "val" else mode
        room = ROOM - len(where) - 2
        rows = [fitted([f"{kind}:", *found], room) for kind, found in _kinds(tag).items()]
        rows = [row.removeprefix(":  ") for row in rows]
        return tag, Line(full, "\n".join(f"{where}  {row}" for row in rows) or where)


class ForConsole(logging.Formatter):
    """Write the time of day and the line, short where there is a short one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s%(message)s", STAMP)

    def format(self, record: logging.LogRecord) -> str:
        """Return what is printed; from a warning on, its level too."""
        stamp = self.formatTime(record, self.datefmt)
        if record.levelno >= logging.WARNING:
            stamp += f"{record.levelname.lower()}: "
        text = getattr(record.msg, "short", None) or record.getMessage()
        return "\n".join(stamp + line for line in text.splitlines() or [""])


def concerns_the_user(record: logging.LogRecord) -> bool:
    """Leave out what libraries say about themselves, and what is said once more in a line."""
    text = record.getMessage()
    return not text.startswith(NOT_FOR_THE_USER) and "_mAP_copypaste: " not in text


def fitted(parts: list[str], width: int = ROOM) -> str:
    """Join as many parts as a line holds, the first ones always."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


def _losses(tag: Mapping[str, Any]) -> list[str]:
    """Return the loss, then its largest terms without the word in their names."""
    if "loss" not in tag:
        return []
    terms = {k: v for k, v in tag.items() if k != "loss" and "loss" in k.rpartition(".")[2]}
    largest = sorted(terms, key=lambda name: -abs(terms[name]))[:MOST] if len(terms) > 1 else []
    short = [
        f"{name.replace('loss_', '').removesuffix('_loss')} {terms[name]:.3f}" for name in largest
    ]
    return [f"loss {tag['loss']:.4f}", *short]


def _kinds(tag: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sort numbers by what they judge: coco/bbox_mAP is the mAP of coco/bbox."""
    kinds: dict[str, list[str]] = {}
    for name, value in tag.items():
        if name in ("time", "data_time", "iter", "epoch") or not isinstance(value, int | float):
            continue
        prefix, slash, own = name.rpartition("/")
        kind, line, rest = own.partition("_")
        if not (slash and line and rest[:2] in ("mA", "AR")):
            kind, rest = "", own
        kinds.setdefault(f"{prefix}{slash}{kind}".strip("/"), []).append(f"{rest} {value:.4f}")
    return kinds
