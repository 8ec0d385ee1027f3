"""Which code runs of a sweep run, what surrounds them, and when their attempts were at work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from mtf_slurm.code.contents import readable_size
from mtf_slurm.code.isolation import code_file_of
from mtf_slurm.code.record import CodeFile
from mtf_slurm.evidence import read_attempts
from mtf_slurm.report.model import CodeView, Span
from mtf_slurm.status import AttemptEvidence, JobStatus
from mtf_utils.rundir import RunDirectory, RunDirectoryError, SweepFile

__all__ = ["Codes", "environment", "spans_of"]

DIFF_BYTES: Final = 200_000
"""How much of a difference to the commit is shown."""


@dataclass
class Codes:
    """The different codes among runs, numbered as they appear."""

    _known: dict[str, int] = field(default_factory=dict)
    _records: list[tuple[CodeFile, Path]] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)

    def number_of(self, run: RunDirectory) -> int | None:
        """The number of a run's code; None if that is not known."""
        with contextlib.suppress(RunDirectoryError):
            record = code_file_of(run)
            if record is not None:
                key = record.tree or f"{record.project_root} {record.commit} {record.dirty}"
                number = self._known.setdefault(key, len(self._known))
                if number == len(self._records):
                    self._records.append((record, run.code_diff))
                    self._counts.append(0)
                self._counts[number] += 1
                return number
        return None

    def views(self) -> list[CodeView]:
        """What a report shows of them."""
        return [
            CodeView(facts=_facts(record), diff=_beginning(diff), runs=count)
            for (record, diff), count in zip(self._records, self._counts, strict=True)
        ]


def _facts(record: CodeFile) -> dict[str, str]:
    changed = {True: "with changes that are not committed", False: "as committed", None: ""}[record.dirty]
    size = "" if record.files is None else f"{record.files} files, {readable_size(record.size or 0)}"
    facts = {
        "Runs": "a snapshot, apart from the project" if record.isolated else "what lies in the project",
        "Why": record.reason or "",
        "Snapshot": record.tree or "",
        "Commit": f"{record.commit or ''} {f'({changed})' if record.commit and changed else ''}".strip(),
        "Branch": record.branch or "",
        "Repository": record.remote or "",
        "Project": record.project_root,
        "Content": size,
        "Remarks": "; ".join(record.warnings),
    }
    return {label: text for label, text in facts.items() if text}


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(DIFF_BYTES + 1)
    except OSError:
        return ""
    text = data[:DIFF_BYTES].decode("utf-8", "replace")
    return f"{text}\n… the rest is in {path}" if len(data) > DIFF_BYTES else text


def environment(sweep: SweepFile, hosts: Iterable[str]) -> dict[str, str]:
    """What surrounds the runs, by label."""
    known = sorted(set(hosts) - {""})
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    versions = {f"{'Python' if name == 'python' else name}": version for name, version in sweep.versions.items()}
    facts = {"Command": " ".join(sweep.command), "Hosts": shown, **versions}
    return {label: text for label, text in facts.items() if text}


def spans_of(run: RunDirectory, status: JobStatus) -> list[Span]:
    """The attempts of a run that tell when they began; none if a receipt cannot be read."""
    try:
        attempts = read_attempts(run)
    except RunDirectoryError:
        return []
    return [span for attempt in attempts if (span := _span(attempt, attempts, status)) is not None]


def _span(attempt: AttemptEvidence, attempts: Sequence[AttemptEvidence], status: JobStatus) -> Span | None:
    start = _seconds(attempt.started.started_at) if attempt.started else None
    if attempt.started is None or start is None:
        return None
    at_work = attempt is attempts[-1] and status is JobStatus.RUNNING
    return Span(
        attempt=attempt.number,
        start_s=start,
        end_s=_seconds(attempt.finished.finished_at) if attempt.finished else None,
        outcome=attempt.finished.outcome.value if attempt.finished else "running" if at_work else "no receipt",
        host=attempt.started.host,
    )


def _seconds(text: str) -> int | None:
    with contextlib.suppress(ValueError):
        return int(datetime.fromisoformat(text).timestamp())
    return None
