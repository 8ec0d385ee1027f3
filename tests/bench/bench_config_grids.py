"""Grids: a billion points without enumeration, and a million permutations against `itertools.product` alone."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterator

from measure import Fact, Row, compare
from mtf_config import ParameterGrid

KEYS = [f"model.digit{digit}" for digit in range(9)]
VALUES = list(range(10))


def rows(samples: int) -> Iterator[Row | Fact]:
    """What one point of a billion costs; then the ratio for a million, or less where one sample is enough."""
    yield Fact("10^9 points: create, count, make one", billion())
    keys = KEYS[: 6 if samples > 1 else 4]
    grid = decimal(len(keys))

    def bare() -> None:
        for row in itertools.product(*[VALUES] * len(keys)):
            dict(zip(keys, row, strict=True))

    def ours() -> None:
        for _ in grid.generate_permutations():
            pass

    yield compare(f"{len(grid):,} permutations", ours, "itertools.product and dict(zip())", bare, samples)


def billion() -> str:
    """Time without, and then memory with tracing."""
    taken = min(_timed() for _ in range(5))
    tracemalloc.start()
    point, count = decimal(9).point(123_456_789), decimal(9).get_parameter_count()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if (list(point.values()), count) != (list(range(1, 10)), 10**9):
        raise RuntimeError(f"point 123,456,789 of {count:,} is {point}")
    return f"{taken * 1000:.2f} ms, {peak / 2**10:.1f} KiB; point 123,456,789 is {list(point.values())}"


def _timed() -> float:
    start = time.perf_counter()
    grid = decimal(9)
    grid.get_parameter_count()
    grid.point(123_456_789)
    return time.perf_counter() - start


def decimal(digits: int) -> ParameterGrid:
    """A grid whose points are the numbers of so many digits."""
    grid = ParameterGrid("decimal")
    for key in KEYS[:digits]:
        grid.add_parameter(key, VALUES)
    return grid
