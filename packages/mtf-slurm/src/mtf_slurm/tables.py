"""Tables that are as wide as the terminal, for what is shown while runs go on."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.text import Text

from mtf_slurm.status import JobStatus
from mtf_utils.display import printable

__all__ = ["COLOURS", "fitted"]

COLOURS: Final = {
    JobStatus.COMPLETED: "green",
    JobStatus.RUNNING: "cyan",
    JobStatus.FAILED: "red",
    JobStatus.LOST: "red",
    JobStatus.UNKNOWN: "magenta",
    JobStatus.PREEMPTED: "yellow",
    JobStatus.CANCELLED: "yellow",
}

GAP: Final = "  "
LEAST_NAME: Final = 16
LEAST_NOTE: Final = 24


def fitted(lines: list[list[str]], width: int, styles: list[str], *, right: frozenset[int]) -> list[Text]:
    """Lines of cells as wide as the screen: what is too long is the first column's beginning and the last one's end.

    Args:
        lines: the headings, and one for each run; columns without anything below their heading are left out.
        width: of the screen.
        styles: of the second cells, line by line, without the headings.
        right: the columns whose cells end where their column ends.
    """
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(lines[0]))]
    kept = [column for column in range(len(widths)) if any(line[column] for line in lines[1:]) or column == 0]
    between = sum(widths[column] + len(GAP) for column in kept[1:-1]) + len(GAP)
    widths[0] = min(widths[0], max(LEAST_NAME, width - between - min(widths[-1], LEAST_NOTE)))
    widths[-1] = max(0, width - between - widths[0])
    texts = []
    for line, style in zip(lines, ["bold", *styles], strict=False):
        text = Text(no_wrap=True, overflow="crop")
        for column in kept:
            cell = line[column] if column else _end_of(line[0], widths[0])
            padding = " " * (widths[column] - cell_len(cell))
            cell = padding + cell if column in right else cell if column == kept[-1] else cell + padding
            text.append(cell, style if column == 1 or line is lines[0] else "")
            text.append(GAP if column != kept[-1] else "")
        text.truncate(width, overflow="ellipsis")
        texts.append(text)
    return texts


def _end_of(name: str, width: int) -> str:
    """A name cut in front: those of a sweep begin alike."""
    return name if cell_len(name) <= width else f"…{name[1 - width :]}"
