"""Records as a table for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TextIO

from mtf_trainer.loggers.protocol import LogRecord
from mtf_utils.atomic import write_text
from mtf_utils.display import spreadsheet_cell
from mtf_utils.rundir import read_metrics

__all__ = ["CsvLogger"]


class CsvLogger:
    """Writes `metrics.csv` beside the journal: a row for each record, a column for each name that ever came up.

    A name that comes up later widens the table, with empty cells in the rows before. A process that continues a run
    first makes the table anew out of the journal. A name that a spreadsheet would take for a formula gets a `'` in
    front.
    """

    def __init__(self) -> None:
        self._path = Path()
        self._columns: list[str] = []
        self._file: TextIO | None = None

    def open(self, journal: Path, position: int | None) -> None:
        """See `MetricLogger.open`."""
        self.close()
        self._path = journal.with_name("metrics.csv")
        self._columns = list(dict.fromkeys(name for record in _first(journal, position) for name in record))
        self._replace(_first(journal, position))

    def log(self, record: LogRecord) -> None:
        """See `MetricLogger.log`."""
        if new := [name for name in record if name not in self._columns]:
            before, self._columns = self._columns, self._columns + new
            with self._path.open(encoding="utf-8", newline="") as file:
                self._replace(islice(csv.DictReader(file, before), 1 if before else 0, None))
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8", newline="")
        csv.DictWriter(self._file, self._columns).writerow(record)
        self._file.flush()

    def _replace(self, rows: Iterable[LogRecord]) -> None:
        self.close()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        if self._columns:
            csv.writer(text).writerow([spreadsheet_cell(name) for name in self._columns])
        writer.writerows(rows)
        write_text(self._path, text.getvalue())

    def close(self) -> None:
        """See `MetricLogger.close`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _first(journal: Path, position: int | None) -> Iterable[LogRecord]:
    return islice(read_metrics(journal), position) if position else ()
