"""The same kills for our trainer, Lightning, HF Trainer and Accelerate: `python tests/bench/kills_peers.py`.

One task (dropout, shuffling, augmentation from three random streams, accumulation of 4, a schedule, validation, a
checkpoint every 5 optimizer steps), written for each as its documentation shows, killed once when there is a checkpoint
to go on from, and restarted as documented. Needs the environment `peers`, which has them all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from killing.lane import Lane
from killing.peers.scoreboard import HEADING, Cell, cells, fill


def main() -> None:
    """Fill the scoreboard row by row."""
    parser = argparse.ArgumentParser(prog="kills_peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=15, help="in each row (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--lanes", type=int, default=2, help="frameworks under way at once (default: 2)")
    parser.add_argument("--only", default="", help="rows of frameworks whose name contains this")
    parser.add_argument("--keep", type=Path, help="a new folder in which to keep the runs for inspection")
    arguments = parser.parse_args()
    rows = [cell for cell in cells() if arguments.only.lower() in cell.name.lower()]
    if not rows or min(arguments.kills, arguments.lanes) < 1:
        parser.error("nothing to do: --kills and --lanes are at least 1, and --only names a framework")
    with tempfile.TemporaryDirectory(prefix="kills-peers-") as temporary:
        folder = arguments.keep or Path(temporary)

        def work(item: tuple[int, str]) -> list[Cell]:
            number, module = item
            of_module = [cell for cell in rows if cell.module == module]
            with Lane(f"killing.peers.{module}", number) as lane:
                for cell in of_module:
                    fill(cell, lane, folder / str(rows.index(cell)), arguments.kills, arguments.seed)
                    print(cell.line(), file=sys.stderr, flush=True)
            return of_module

        print(HEADING, flush=True)
        with ThreadPoolExecutor(arguments.lanes) as pool:
            for finished in pool.map(work, enumerate(dict.fromkeys(cell.module for cell in rows))):
                print(*(cell.line() for cell in finished), sep="\n", flush=True)
    print(*errors(rows), sep="\n")


def errors(rows: list[Cell]) -> Iterator[str]:
    """How the runs ended that could not be restarted."""
    for cell in rows:
        for text, count in cell.errors.most_common():
            yield f"{cell.name}, {cell.signal.name}, {cell.workers} workers: {count} x {text}"


if __name__ == "__main__":
    main()
