"""Submits to a real Slurm in trouble and counts jobs and starts: `python tests/bench/submission_campaign.py [NAME …]`.

controller: experiments are submitted while the controller is frozen and thawed, killed and restarted at random.
both: the same, and the launcher is killed and started again at random, too.
journal: the launcher is killed (SIGKILL) before every step of its journal and while sbatch runs, and started again.
arrays: a large batch as arrays, beside one sbatch for each run: time and requests to the controller.
large: a batch larger than MaxArraySize.
bound: runs at work at a time, with several groups, chunks and two launchers.

Ends with status 1 if an experiment has more than one job, is lost or started twice, or a bound does not hold.
"""

from __future__ import annotations

import argparse
import sys

from submitting.scenarios import SCENARIOS


def main() -> None:
    """Run the scenarios that the command line names; all of them by default."""
    parser = argparse.ArgumentParser(prog="submission_campaign", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--size", type=int, help="how many experiments (default: each scenario's own)")
    parser.add_argument("--steps", type=int, help="journal: only so many steps, chosen at random (default: all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - SCENARIOS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    failed = False
    for name in arguments.names or SCENARIOS:
        report = SCENARIOS[name](seed=arguments.seed, size=arguments.size, steps=arguments.steps)
        print(f"{name}: {'good' if report.is_good else 'BAD'}", *report.lines, sep="\n  ", flush=True)
        failed |= not report.is_good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
