"""Which runs a table shows, in which order, and what groups of them come to."""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mtf_slurm.status import JobStatus
from mtf_slurm.wording import tally
from mtf_utils.cli import CommandError
from mtf_utils.names import nearest

__all__ = ["FIELDS", "Group", "Row", "Selection", "group_by", "state_counts", "text_of", "whole_key"]

FIELDS: Final = ("name", "state", "attempts", "epoch", "step", "rate", "left", "grid")
"""What runs can be sorted by beside their parameters and metrics."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run as a table shows it.

    Attributes:
        name: of the run.
        status: its state.
        grid: the grid that it comes from.
        parameters: what the grid says: dotted key → value.
        attempts: how many were started.
        epoch: epochs done, or at work in.
        step: optimizer steps.
        metrics: the last values.
        rate: optimizer steps a second, while it is at work.
        left_s: seconds until it is done, if that is known.
        source: what the row was made of.
    """

    name: str
    status: JobStatus
    grid: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    epoch: int | None = None
    step: int | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    rate: float | None = None
    left_s: float | None = None
    source: Any = None

    def value(self, key: str) -> Any:
        """A field, a parameter or a metric; None without one."""
        if key in FIELDS:
            return {"state": self.status.value, "left": self.left_s}.get(key, getattr(self, key, None))
        return self.parameters[key] if key in self.parameters else self.metrics.get(key)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows, in which order.

    Attributes:
        states: those that are shown; empty is every state.
        pattern: of the names, with * and ?; empty is every name.
        where: parameters and the text of the values that they must have.
        sort: a field, parameter or metric; empty is the order of the sweep.
        reverse: whether the largest comes first.
    """

    states: frozenset[JobStatus] = frozenset()
    pattern: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""
    reverse: bool = False

    def apply(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are chosen, in order; those without a value for what is sorted by come last."""
        chosen = [row for row in rows if self._takes(row)]
        if not self.sort:
            return chosen[::-1] if self.reverse else chosen
        known = [row for row in chosen if _is_known(row.value(self.sort))]
        known.sort(key=_order(self.sort), reverse=self.reverse)
        return known + [row for row in chosen if not _is_known(row.value(self.sort))]

    def _takes(self, row: Row) -> bool:
        if self.states and row.status not in self.states:
            return False
        if self.pattern and not fnmatch.fnmatchcase(row.name, self.pattern):
            return False
        return all(key in row.parameters and text_of(row.parameters[key]) == text for key, text in self.where.items())

    def resolved(self, rows: Sequence[Row]) -> Selection:
        """The selection with whole keys for short ones: `channels` for `model.channels`.

        Raises:
            CommandError: no run has such a key; the nearest is named.
        """
        parameters = list(dict.fromkeys(key for row in rows for key in row.parameters))
        metrics = list(dict.fromkeys(key for row in rows for key in row.metrics))
        where = {whole_key("--where", key, parameters): text for key, text in self.where.items()}
        sort = whole_key("--sort", self.sort, [*FIELDS, *parameters, *metrics]) if self.sort else ""
        return replace(self, where=where, sort=sort)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some runs that have a value in common.

    Attributes:
        name: the value.
        rows: the runs.
    """

    name: str
    rows: tuple[Row, ...]

    def best(self, metric: str, mode: str) -> Row | None:
        """The row with the best value of a metric; None if no row has one."""
        known = [row for row in self.rows if _is_known(row.metrics.get(metric))]
        if not known:
            return None
        return (min if mode == "min" else max)(known, key=lambda row: row.metrics[metric] or 0.0)


def group_by(rows: Sequence[Row], key: str) -> list[Group]:
    """The rows by the value of a field or a parameter, in the order of first appearance.

    Raises:
        CommandError: no run has such a key.
    """
    whole = whole_key("--group", key, [*FIELDS, *dict.fromkeys(name for row in rows for name in row.parameters)])
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(text_of(row.value(whole)), []).append(row)
    return [Group(name=name, rows=tuple(members)) for name, members in found.items()]


def state_counts(rows: Iterable[Row]) -> str:
    """How many runs are in which state: `2 completed, 1 running`."""
    counts = Counter(row.status for row in rows)
    return tally({status.value: count for status, count in sorted(counts.items())})


def whole_key(option: str, key: str, known: Sequence[str]) -> str:
    """The key that is meant: itself, or the only one that ends in it.

    Raises:
        CommandError: there is none; the nearest is named.
    """
    if key in known:
        return key
    ending = [name for name in known if name.rpartition(".")[2] == key]
    if len(ending) == 1:
        return ending[0]
    short = {name.rpartition(".")[2]: name for name in known}
    guess = nearest(key, known) or short.get(nearest(key, short) or "")
    hint = f"did you mean {guess!r}?" if guess else f"there are: {', '.join(known) or 'none'}"
    raise CommandError(f"{option} {key}: no run has that; {hint}")


def _order(key: str) -> Callable[[Row], tuple[bool, float, str]]:
    """Numbers by their size, before texts by their letters: the values of a key may be of both kinds."""

    def order(row: Row) -> tuple[bool, float, str]:
        value = row.value(key)
        is_number = isinstance(value, int | float)
        return (not is_number, float(value) if is_number else 0.0, "" if is_number else text_of(value))

    return order


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
