"""Reading the documented example, slips in real files, and hostile input: what comes out, and within which memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from configs.hostile import Outcome, defuse, fuzz
from configs.slips import example_values, slip_counts
from measure import Fact

INPUTS = 20_000
SLIPS = 200


def rows(samples: int) -> Iterator[Fact]:
    """The example, the slips, then the fuzzing in a process of its own; few inputs where one sample is enough."""
    with tempfile.TemporaryDirectory() as folder:
        for name, values in example_values(Path(folder)):
            yield Fact(f"the documented example, {name}", values)
        for kind, counts in slip_counts(Path(folder), SLIPS):
            yield Fact(f"{SLIPS} files with {kind}", counts)
    inputs = INPUTS if samples > 1 else INPUTS // 100
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # a fresh process for each, for its peak of memory
        yield Fact(f"{inputs:,} hostile inputs", told(pool.apply(fuzz, (inputs,))))
        for name, outcome in pool.map(defuse, range(-1, 10 if samples > 1 else 0), chunksize=1):
            yield Fact(f"bomb: {name}", told(outcome))


def told(outcome: Outcome) -> str:
    """An outcome in words."""
    other = "; ".join(outcome.faults) or "nothing else"
    return (
        f"{outcome.accepted:,} accepted, {outcome.refused:,} ConfigurationError, {other}; "
        f"peak {outcome.peak_mib:.0f} MiB, of which {outcome.before_mib:.0f} before the first"
    )
