"""Results as tables and files."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mtf_slurm.errors import SLURMError
from mtf_utils import atomic
from mtf_utils.display import spreadsheet_cell

if TYPE_CHECKING:
    from mtf_slurm.run_result import RunResult

__all__ = ["rows", "run_to_dict", "to_dataframe", "write_csv", "write_json"]

FIRST: Final = ("name", "status", "attempts", "epoch", "global_step")
LAST: Final = ("grid", "job_id", "reason", "path", "identity")


def run_to_dict(run: RunResult) -> dict[str, Any]:
    """A run as plain data."""
    values = {item.name: getattr(run, item.name) for item in dataclasses.fields(run)} | {"log": run.log}
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return dict(value) if hasattr(value, "keys") else value


def rows(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """A table of the runs, every row with the same keys: the run, its parameters, its metrics, where it lies.

    A parameter or metric whose name is taken is called `parameter.<name>` or `metric.<name>`.
    """
    parameters = list(dict.fromkeys(key for run in runs for key in run.parameters))
    metrics = list(dict.fromkeys(key for run in runs for key in run.metrics))
    parameter_names = {key: f"parameter.{key}" if key in (*FIRST, *LAST) else key for key in parameters}
    taken = {*FIRST, *LAST, *parameter_names.values()}
    metric_names = {key: f"metric.{key}" if key in taken else key for key in metrics}
    table = []
    for run in runs:
        row = {key: _plain(getattr(run, key)) for key in FIRST}
        row |= {name: run.parameters.get(key) for key, name in parameter_names.items()}
        row |= {name: run.metrics.get(key) for key, name in metric_names.items()}
        table.append(row | {key: _plain(getattr(run, key)) for key in LAST})
    return table


def write_csv(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    """Write the table; lists and mappings in a cell are JSON, a missing value is an empty cell.

    Text that a spreadsheet would take for a formula gets a `'` in front; `write_json` changes nothing.
    """
    atomic.refuse_special(path)
    text = io.StringIO(newline="")
    names = list(table[0]) if table else [*FIRST, *LAST]
    writer = csv.writer(text)
    writer.writerow([spreadsheet_cell(name) for name in names])
    for row in table:
        writer.writerow([_cell(row[name]) for name in names])
    atomic.write_text(path, text.getvalue())
    return path


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) else spreadsheet_cell(value)


def write_json(path: Path, value: Any) -> Path:
    """Write plain data as JSON."""
    atomic.refuse_special(path)
    atomic.write_json(path, value)
    return path


def to_dataframe(table: Sequence[dict[str, Any]]) -> Any:
    """The table as a pandas DataFrame.

    Raises:
        SLURMError: pandas cannot be imported.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        installed = error.name != "pandas"  # then something that it needs is missing
        why = f"cannot be imported: {error}" if installed else "is not installed: pip install pandas"
        raise SLURMError(f"to_dataframe needs pandas, which {why} (to_csv and to_json need nothing)") from error
    return pandas.DataFrame(list(table))
