"""Write what an evaluation found: a page to look at, its numbers as JSON, and its matches.

`index.html` needs no network; `report.json` has every number of it; `records.npz` is what two runs
are compared by.
"""

import datetime
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.report import curves, detections, maps, matches, page, records, worst_objects

PAGE, NUMBERS = "index.html", "report.json"
PACKAGES = ("torch", "onedl-mmdetection", "onedl-mmsegmentation", "hotcoco", "numpy")
GROUPS = {"": "all", "_th": "things", "_st": "stuff"}


@dataclass
class Evaluation:
    """All that a page is made of.

    Attributes:
        about: config, checkpoint, task and the like, in the order they are shown.
        numbers, per_class: those of the tables.
        weights: the ledger of each load.
        speed: images, seconds and what else was measured of the run.
        found: what was found, in one of the forms that `swin_dense.report` knows.
        training: what `curves.read` found of the training of these weights.
    """

    about: dict[str, Any]
    numbers: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    weights: list[dict[str, Any]] = field(default_factory=list)
    speed: dict[str, Any] = field(default_factory=dict)
    found: list[Any] = field(default_factory=list)
    training: list[dict[str, float]] = field(default_factory=list)


def write(folder: Path, evaluation: Evaluation) -> Path:
    """Write page, numbers and matches into a folder; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {
        "about": {**evaluation.about, **_versions()},
        "metrics": dict(evaluation.numbers),
        "per_class": evaluation.per_class,
        "speed": evaluation.speed,
        "weights": evaluation.weights,
    }
    shown: list[tuple[str, page.Html]] = []
    matched: list[records.Records] = []
    for found in evaluation.found:
        if isinstance(found, detections.Found):
            own = [
                matches.of_objects(one, kind, found.names, found.lvis)
                for kind, one in found.judged.items()
            ]
            known["detections"] = detections.numbers(found, own)
            shown += detections.sections(found, own, known["detections"])
            matched += own
        elif isinstance(found, maps.FoundMaps):
            known["label_maps"] = maps.numbers_of_maps(found)
            shown += maps.sections_of_maps(found, known["label_maps"])
            matched.append(found.matched)
        elif isinstance(found, maps.FoundSegments):
            known["segments"] = maps.numbers_of_segments(found)
            shown += maps.sections_of_segments(found, known["segments"])
            matched.append(found.matched)
    known = plain(known)
    sections = [
        ("Numbers", _overall(known["metrics"])),
        *shown,
        *([("Training", curves.section(evaluation.training))] if evaluation.training else []),
        ("Speed and memory", _speed(known["speed"])),
        ("Weights", _weights(known["weights"])),
        ("Run", page.facts("What was evaluated", _facts(known["about"]))),
    ]
    title = f"{known['about'].get('config', 'Model')}: evaluation"
    text = page.document(title, sections, _lead(known))
    if matched:
        records.write(folder, matched)
    (folder / NUMBERS).write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / PAGE).write_text(text, "utf-8")
    return folder / PAGE


def plain(value: Any) -> Any:
    """Return values that JSON can hold: numpy's as Python's, nan as nothing."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and value != value else value


def _versions() -> dict[str, Any]:
    found = {"Python": platform.python_version()}
    for package in ("swin-dense", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"date": now.isoformat(" ", "seconds"), "versions": found}


def _lead(known: Mapping[str, Any]) -> page.Html:
    about = known["about"]
    parts = [about.get("task"), about.get("checkpoint"), about["date"]]
    return page.paragraph(" · ".join(str(part) for part in parts if part), soft=True)


def _overall(numbers: Mapping[str, float | None]) -> page.Html:
    """Lay the numbers of a log out: a column for each kind or group."""
    if "PQ" in numbers:
        rows = [
            [name, *(page.number(numbers.get(name + end), 2) for end in GROUPS)]
            for name in ("PQ", "SQ", "RQ")
        ]
        return page.table("Percent", ["", *GROUPS.values()], rows)
    kinds = [k for k in worst_objects.TITLES if any(n.startswith(f"{k}_") for n in numbers)]
    if not kinds:
        rows = [[name, page.number(value, 2)] for name, value in numbers.items()]
        return page.table("Percent", ["", "value"], rows)
    names = dict.fromkeys(
        name.removeprefix(f"{kind}_") for name in numbers for kind in kinds if f"{kind}_" in name
    )
    return page.table(
        "COCO's numbers, from 0 to 1",
        ["", *(worst_objects.TITLES[kind] for kind in kinds)],
        [[name, *(page.number(numbers.get(f"{kind}_{name}")) for kind in kinds)] for name in names],
    )


def _speed(speed: Mapping[str, Any]) -> page.Html:
    if not speed:
        return page.paragraph("Nothing was measured.")
    shown = {
        name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else value
        for name, value in speed.items()
    }
    return page.facts("As measured in this run, the first batch left out", shown)


def _weights(ledgers: list[dict[str, Any]]) -> page.Html:
    if not ledgers:
        return page.paragraph("No weights were loaded.")
    parts = []
    for ledger in ledgers:
        kept = {name: _nested(value) for name, value in ledger.items()}
        parts.append(
            page.folded(
                f"{ledger.get('file', ledger.get('source', 'weights'))}: "
                f"{ledger.get('share', 0):.1%} of what it should bring",
                page.facts("Ledger of this load", kept),
            )
        )
    return page.join(parts)


def _nested(value: Any) -> Any:
    """Show what has parts as text of several lines."""
    if not isinstance(value, dict | list) or not value:
        return value
    lines = json.dumps(value, indent=1, ensure_ascii=False)
    return page.Html(f"<pre>{page.text(lines)}</pre>")


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(about)
    versions = facts.pop("versions", {})
    classes = facts.pop("classes", None)
    if classes:
        facts["classes"] = f"{len(classes)}: {', '.join(classes)}"
    return {**facts, **versions}
