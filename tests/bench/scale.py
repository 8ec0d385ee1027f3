"""How `mtf` grows with a sweep: `python tests/bench/scale.py [--runs 100 1000 10000] [--folder DIR] [--samples N]`.

For each number of runs a sweep is planned and submitted dry by the product, its runs' files are written by the
product's own writers (nothing is trained), and then every verb that looks at it is called in a process of its own,
with the time, the memory and the number of files that it opened and of folders that it listed. Where there is a
Chromium, the report is opened in it and filtered. Ends with status 1 if 10,000 runs take more than they may.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scaling.counting import Call, call
from scaling.limits import LIMITS, exceeded
from scaling.making import fill, sweep_file
from scaling.reading import read_in_browser

HEADING = f"{'runs':>6}  {'what':<22} {'seconds':>8} {'MB':>6} {'files read':>11} {'folders listed':>15} {'a run':>8}"


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10_000], help="how many runs a sweep has")
    parser.add_argument("--folder", type=Path, help="where sweeps are made, and kept (default: one that is removed)")
    parser.add_argument("--samples", type=int, default=3, help="how often each reading verb is called (default: 3)")
    arguments = parser.parse_args()
    if min(arguments.samples, *arguments.runs) < 1:
        parser.error("--runs and --samples are at least 1")
    print(f"load of the machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = arguments.folder or Path(temporary)
        found = [
            measure for runs in arguments.runs for measure in measured(folder / str(runs), runs, arguments.samples)
        ]
    too_much = [problem for each in found if (problem := exceeded(each))]
    for problem in too_much:
        print(f"TOO MUCH  {problem}")
    print(f"limits, for 10,000 runs: {', '.join(f'{what} {limit}' for what, limit in LIMITS.items())}")
    sys.exit(1 if too_much else 0)


def measured(folder: Path, runs: int, samples: int) -> list[Call]:
    """Make a sweep of so many runs and call everything that looks at it."""
    file, output = sweep_file(folder, runs), folder / "sweep"
    print(f"\n{HEADING}")
    found = [shown(call(runs, "plan", ["plan", str(file), "--output-dir", str(folder / "new")]))]
    if not output.exists():
        found.append(shown(call(runs, "submit (dry)", ["run", str(file), "--execution", "dry_run"])))
        print(f"{runs:>6}  on disk, submitted:    {describe(output)}")
        fill(output)
        print(f"{runs:>6}  on disk, at work:      {describe(output)}", flush=True)
    for what, words in (
        ("status", ["status", str(output)]),
        ("status --json", ["status", str(output), "--json"]),
        ("results", ["results", str(output), "--top", "10"]),
        ("results --csv", ["results", str(output), "--csv", str(folder / "results.csv"), "--top", "10"]),
        ("plan again", ["plan", str(file)]),
        ("report", ["report", str(output)]),
    ):
        calls = [call(runs, what, words) for _ in range(samples if what != "report" else 1)]
        found.append(shown(min(calls, key=lambda each: each.seconds)))
    report = output / "report.html"
    print(f"{runs:>6}  report.html            {report.stat().st_size / 1e6:.1f} MB")
    return [*found, *map(shown, read_in_browser(report, runs))]


def shown(measure: Call) -> Call:
    """Print a line as soon as it is known."""
    print(measure, flush=True)
    return measure


def describe(folder: Path) -> str:
    """How many files and folders there are, and how much they take."""
    files = folders = size = 0
    for place, inside, names in os.walk(folder):
        folders += len(inside)
        files += len(names)
        size += sum(Path(place, name).lstat().st_blocks * 512 for name in names)
    return f"{files} files in {folders} folders, {size / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
