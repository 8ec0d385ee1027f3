"""Hostile input in a process of its own, so that its peak of memory can be told."""

from __future__ import annotations

import itertools
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from config_fuzzing import bombs, damaged_files, load, read, texts

from mtf_config import ConfigurationManager


@dataclass(frozen=True)
class Outcome:
    """What came of some inputs.

    Attributes:
        accepted: how many are sound.
        refused: how many gave a `ConfigurationError`.
        faults: each other exception, with how often it came.
        before_mib: memory of the process before the first input.
        peak_mib: most memory of the process.
    """

    accepted: int
    refused: int
    faults: tuple[str, ...]
    before_mib: float
    peak_mib: float


def fuzz(count: int) -> Outcome:
    """Half of the inputs are texts of Hypothesis, half are damaged files that are loaded whole."""
    with tempfile.TemporaryDirectory() as folder:
        manager = ConfigurationManager(folder, folder)
        made = [partial(_read, text, is_json=bool(number % 2)) for number, text in enumerate(texts(count // 2))]
        files = damaged_files(count - len(made), seed=1)
        return _outcome(itertools.chain(made, (partial(load, *file, manager) for file in files)))


def defuse(number: int) -> tuple[str, Outcome]:
    """Name and outcome of one bomb as YAML and as JSON; of a file that is none for -1."""
    name, content = [("none, for comparison", b"a: 1"), *bombs().items()][number + 1]
    with tempfile.TemporaryDirectory() as folder:
        manager = ConfigurationManager(folder, folder)
        return name, _outcome(partial(load, content, f"bomb.{kind}", manager) for kind in ("yaml", "json"))


def _read(text: bytes | str, *, is_json: bool) -> bool:
    return read(text, is_json=is_json) is not None


def _outcome(calls: Iterator[Callable[[], bool]]) -> Outcome:
    results: Counter[bool] = Counter()
    faults: Counter[str] = Counter()
    before = _peak_mib()
    for call in calls:
        try:
            results[call()] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            faults[f"{type(error).__name__} ({str(error)[:60]})"] += 1
    told = tuple(f"{count} x {name}" for name, count in faults.items())
    return Outcome(results[True], results[False], told, before, _peak_mib())


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent had at the fork
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
