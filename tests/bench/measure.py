"""Times one thing against a reference, sample beside sample, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured comparison."""

    name: str
    reference: str
    median_ms: float
    reference_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float

    def __str__(self) -> str:
        return (
            f"{self.name:<44} {self.median_ms:>10.2f} ms  {self.ratio:>6.2f} x {self.reference} "
            f"({self.reference_ms:.2f} ms; {self.ratio_low:.2f} .. {self.ratio_high:.2f})"
        )


@dataclass(frozen=True)
class Fact:
    """One finding that is no comparison: a count, a size, a value."""

    name: str
    finding: str

    def __str__(self) -> str:
        return f"{self.name:<44} {self.finding}"


def compare(
    name: str, subject: Callable[[], object], reference_name: str, reference: Callable[[], object], samples: int
) -> Row:
    """Time both in turn, after one unmeasured call of each.

    Args:
        name: What the subject does.
        subject: The call to be judged.
        reference_name: What the reference does.
        reference: The call to be judged against.
        samples: How often both are timed; the ratio is formed within each sample.

    Returns:
        Medians in milliseconds, and the median and the extremes of the ratio.
    """
    return compare_timed(name, lambda: _seconds(subject), reference_name, lambda: _seconds(reference), samples)


def compare_timed(
    name: str, subject: Callable[[], float], reference_name: str, reference: Callable[[], float], samples: int
) -> Row:
    """As `compare`, for calls that return the seconds that count."""
    subject()
    reference()
    pairs = [(1000 * subject(), 1000 * reference()) for _ in range(samples)]
    ratios = [taken / beside for taken, beside in pairs]
    return Row(
        name=name,
        reference=reference_name,
        median_ms=statistics.median(taken for taken, _ in pairs),
        reference_ms=statistics.median(beside for _, beside in pairs),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
