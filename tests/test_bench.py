"""Every benchmark still runs; what it measures is not judged here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from repository import ROOT

RATIO = re.compile(r"  \S.* ms +[\d.]+ x \S")
FACT = re.compile(r"  \S.{42,} \S")
BENCH = ROOT / "tests" / "bench"
NAMES = sorted(file.stem.removeprefix("bench_") for file in BENCH.glob("bench_*.py"))


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark command."""
    small = os.environ | {"MTF_BENCH_PARAMETERS": "1_000_000"}
    command = [sys.executable, BENCH, *arguments]
    return subprocess.run(command, env=small, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_prints_ratios_and_facts(name: str) -> None:
    done = bench("--samples", "1", name)
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.startswith(f"{name}: ")
    assert rows
    assert all(RATIO.match(row) or FACT.match(row) for row in rows)


def test_list_names_all_and_measures_nothing() -> None:
    done = bench("--list")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == NAMES


def test_an_unknown_benchmark_is_named() -> None:
    done = bench("nonsense")
    assert done.returncode == 2
    assert "no benchmark is called nonsense" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("plotly") is None, reason="plotly is not installed")
def test_scale_counts_what_a_look_reads() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "scale.py", "--runs", "40", "160", "--samples", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.findall(r"^ +(\d+)  status +[\d.]+ +\d+ +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    (few, few_files, few_lists), (many, many_files, many_lists) = [tuple(map(int, row)) for row in counted]
    more = many_files + many_lists - few_files - few_lists  # what does not depend on the runs is in both
    assert (few, many) == (40, 160)
    assert 2 <= more / (many - few) <= 8
