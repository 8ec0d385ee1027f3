"""Kills training processes at random and compares what comes of them: `python tests/bench/kills.py [--kills N]`.

Real processes get real signals (SIGTERM, SIGUSR1, SIGKILL; alone or with their whole group), several in one run, at any
time and aimed: at start-up, in mid-accumulation, in validation, while a checkpoint is being written. Every run is
continued to its end and must give, bit for bit, the weights, optimizer, scheduler, random streams, metrics and callback
traces of an undisturbed run. Ends with status 1 if anything differs, a process cannot go on, or work is lost after a
signal that could be caught.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from killing.campaign import Campaign
from killing.runs import SETUPS
from killing.table import render


def main() -> None:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="how many kills have to hit (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills' signals, targets and moments (default: 0)")
    parser.add_argument("--lanes", type=int, default=2, help="runs under way at once (default: 2)")
    parser.add_argument("--setups", type=int, default=len(SETUPS), help="only the first so many configurations")
    parser.add_argument("--module", default="killing.ours", help="what the processes run (default: killing.ours)")
    parser.add_argument("--keep", type=Path, help="a new folder in which to keep the runs for inspection")
    arguments = parser.parse_args()
    if min(arguments.kills, arguments.lanes, arguments.setups) < 1:
        parser.error("--kills, --lanes and --setups are at least 1")
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"--keep {arguments.keep}: it exists already; name a new folder")
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        campaign = Campaign(
            kills=arguments.kills,
            seed=arguments.seed,
            setups=SETUPS[: arguments.setups],
            lanes=arguments.lanes,
            folder=arguments.keep or Path(temporary),
            module=arguments.module,
        )
        campaign.execute()
    print(render(campaign))
    sys.exit(1 if any(run.faults for run in campaign.runs) else 0)


if __name__ == "__main__":
    main()
