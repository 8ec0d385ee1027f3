"""Kills ranks of distributed training and compares what comes of it: `python tests/bench/rank_kills.py [--kills N]`.

torchrun starts real ranks, which meet over gloo. SIGTERM goes to one rank, to all, or to torchrun, SIGKILL to one rank
or to torchrun, at a random moment; then the same command is started again until training is complete. Every rank has
to end with the weights, optimizer, random streams, metrics and callback traces of an undisturbed run, bit for bit; no
process may hang or stay behind; and a signal that can be caught must lose nothing. Each run is told of on stderr. Ends
with status 1 if any of this is not so.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import queue
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from killing.lane import Lane
from ranking.launches import VICTIMS, Kill, Starter, fork_from, start_afresh
from ranking.runs import RankRun, Setup, disturbed, undisturbed


def main() -> None:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="rank_kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="how many runs are killed (default: 100)")
    parser.add_argument("--ranks", type=int, default=2, help="how many ranks a run has (default: 2)")
    parser.add_argument("--strategy", default="ddp", help="how they train (default: ddp)")
    parser.add_argument("--workers", type=int, default=0, help="loader workers of each rank (default: 0)")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS), help="who is killed, in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--lanes", type=int, default=1, help="runs under way at once (default: 1)")
    parser.add_argument("--afresh", action="store_true", help="import torch in every process anew, which takes longer")
    parser.add_argument("--keep", type=Path, help="a new folder in which to keep the runs for inspection")
    arguments = parser.parse_args()
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"--keep {arguments.keep}: it exists already; name a new folder")
    setup = Setup(arguments.ranks, arguments.strategy, arguments.workers)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        starters: queue.SimpleQueue[Starter] = queue.SimpleQueue()
        for number in range(arguments.lanes):
            starters.put(start_afresh if arguments.afresh else fork_from(stack.enter_context(_lane(number))))
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="rank-kills-"))
        runs = _campaign(setup, arguments, arguments.keep or Path(temporary), starters)
    hits = collections.Counter(run.kill.victim for run in runs if run.hit)
    faults = [run for run in runs if run.faults]
    print(f"{len(runs)} runs of {setup}, {sum(hits.values())} killed: {dict(hits)}; {len(faults)} with faults")
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if faults else 0)


def _lane(number: int) -> Lane:
    return Lane("ranking.forked", number)


def _campaign(
    setup: Setup, arguments: argparse.Namespace, folder: Path, starters: queue.SimpleQueue[Starter]
) -> list[RankRun]:
    start = starters.get()
    reference, last, between_s = undisturbed(setup, start, folder / "undisturbed")
    starters.put(start)

    def kill_one(index: int) -> RankRun:
        draw = random.Random(f"{arguments.seed}/{index}")
        victim = arguments.victims[index % len(arguments.victims)]
        place = draw.randint(0, last[0]), draw.randint(0, last[1])
        kill = Kill(victim, draw.randrange(arguments.ranks), place, draw.uniform(0.0, between_s))
        start = starters.get()
        try:
            run = disturbed(setup, start, folder / f"run-{index}", kill, reference)
        finally:
            starters.put(start)
        print(run.line(index), file=sys.stderr, flush=True)
        return run

    with ThreadPoolExecutor(arguments.lanes) as pool:
        return list(pool.map(kill_one, range(arguments.kills)))


if __name__ == "__main__":
    main()
