"""Rows of a journal as a Parquet table, for pandas, Polars, DuckDB, Spark; one row per image."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swin_dense.datasets import image_tables
from swin_dense.task import Task

ROWS = 500  # held in memory at once


def write(journal: Path, table: Path, task: Task) -> None:
    """Write a table of the rows of a journal, whatever their number in the same memory."""
    pyarrow = image_tables.require_pyarrow()
    schema = _schema(pyarrow, task)
    with pyarrow.parquet.ParquetWriter(table, schema) as writer, journal.open("rb") as lines:
        rows = (_row(json.loads(line)) for line in lines)
        for some in _some(rows):
            writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))


def _some(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(itertools.islice(rows, ROWS)):
        yield some


def _row(row: dict[str, Any]) -> dict[str, Any]:
    if "classes" in row:  # names are values in a table, not columns
        row["classes"] = [{"class": name, "area": area} for name, area in row["classes"].items()]
    return row


def _schema(pyarrow: Any, task: Task) -> Any:
    """Return the columns: those of `to_json`, with the image's name and what went wrong."""
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()

    def rows(**fields: Any) -> Any:
        return pyarrow.list_(pyarrow.struct(fields))

    runs = pyarrow.struct({"values": pyarrow.list_(whole), "lengths": pyarrow.list_(whole)})
    mask = pyarrow.struct({"size": pyarrow.list_(whole), "counts": text})
    named = {"class": text}
    columns = {
        Task.SEMANTIC: {"classes": rows(**named, area=whole), "label_map": runs},
        Task.PANOPTIC: {
            "segments": rows(id=whole, **named, isthing=pyarrow.bool_(), score=real, area=whole),
            "segment_map": runs,
        },
    }.get(task, {"instances": rows(**named, score=real, box=pyarrow.list_(real), mask=mask)})
    always = {"image": text, "seconds": real, "height": whole, "width": whole}
    return pyarrow.schema({**always, **columns, "drawn": text, "error": text})
