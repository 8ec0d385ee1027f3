"""Kills the local runner at random and calls it again until done: `python tests/bench/local_kills.py [--kills N]`.

A sweep of real trainings is run through the facade, two runs at a time. SIGKILL hits the runner alone, whose runs then
go on and are found by the next call, or the runner and everything that it started. Every sweep must come to the same as
an undisturbed one, bit for bit: each run has finished exactly once, no two attempts of one were ever at work together,
nothing is left behind, and one more call does nothing. Ends with status 1 if it does not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sweeping.project import make_project
from sweeping.rounds import TARGETS, Round


def main() -> int:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="local_kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many there are (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of targets and moments (default: 0)")
    parser.add_argument("--runs", type=int, default=6, help="of a sweep (default: 6)")
    parser.add_argument("--pace", type=float, default=0.1, metavar="S", help="how long a step takes (default: 0.1)")
    parser.add_argument(
        "--longest", type=float, default=15.0, metavar="S", help="how long a call lives at most (default: 15)"
    )
    parser.add_argument("--script", type=Path, help="what the runs execute (default: sweeping/training.py)")
    options = parser.parse_args()
    if min(options.kills, options.runs) < 1 or min(options.pace, options.longest) <= 0:
        parser.error("--kills and --runs are at least 1, --pace and --longest more than 0")
    with tempfile.TemporaryDirectory(prefix="local-kills-") as temporary:
        return _campaign(options, Path(temporary).resolve())


def _campaign(options: argparse.Namespace, folder: Path) -> int:
    began = time.monotonic()
    project = make_project(folder / "project", options.script)
    reference = Round(project, folder / "undisturbed", options.runs, options.pace)
    reference.finish()
    wanted = reference.outcomes()
    if not all(wanted.values()) or len(wanted) != options.runs:
        raise RuntimeError(f"the undisturbed sweep has failed:\n{reference.log.read_text()}")
    chance, rounds, faults = random.Random(options.seed), list[Round](), 0
    while (left := options.kills - sum(len(each.kills) for each in rounds)) > 0:
        each = Round(project, folder / f"round-{len(rounds)}", options.runs, options.pace)
        each.play(chance, left, options.longest)
        rounds.append(each)
        found = each.faults(wanted)
        faults += len(found)
        for fault in found:
            print(f"{each.folder.name}: {fault}")
        if found:
            print(each.log.read_text(), flush=True)
    kills = [kill for each in rounds for kill in each.kills]
    targets = Counter(kill.target for kill in kills)
    moments = ", ".join(f"{kill.after_s:.1f} s ({kill.target}, {kill.at_work} processes)" for kill in kills)
    print(f"{len(kills)} kills ({', '.join(f'{name}: {targets[name]}' for name in TARGETS)}), after {moments}")
    done = sum(each.runs for each in rounds)
    print(
        f"{len(rounds)} sweeps, {done} runs, {sum(each.calls for each in rounds)} calls, "
        f"{sum(each.attempts for each in rounds)} attempts"
    )
    print(f"faults: {faults or 'none'}; {time.monotonic() - began:.0f} s")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
