"""The verb `mtf clean`: show what of a sweep is not needed any more, and remove it when told to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtf_slurm.cleaning import Cleaning, clean, find_rubbish
from mtf_slurm.code.contents import readable_size
from mtf_slurm.errors import SLURMError
from mtf_slurm.verbs import print_json, print_lines
from mtf_utils.cli import DONE, Command, CommandError

__all__ = ["CLEAN"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder of a sweep")
    parser.add_argument("--apply", action="store_true", help="remove it; without this, it is only shown")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _clean(arguments: argparse.Namespace) -> int:
    try:
        found = clean(arguments.dir) if arguments.apply else find_rubbish(arguments.dir)
    except SLURMError as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        print_json("clean", _data(found, removed=arguments.apply))
    else:
        print_lines(_lines(found, removed=arguments.apply))
    return DONE


def _data(found: Cleaning, *, removed: bool) -> dict[str, Any]:
    items = [{"kind": i.kind, "path": str(i.path), "size": i.size, "why": i.why} for i in found.items]
    return {"removed": removed, "size": found.size, "items": items, "snapshots": list(found.snapshots)}


def _lines(found: Cleaning, *, removed: bool) -> list[str]:
    if not found.items:
        return ["nothing to remove"]
    lines = [f"{item.kind:10}  {readable_size(item.size):>10}  {item.path}  ({item.why})" for item in found.items]
    lines += [f"{'snapshot':10}  {'':>10}  {tree} in git" for tree in found.snapshots]
    total = f"{len(found.items)} items, {readable_size(found.size)}"
    return [*lines, f"removed {total}" if removed else f"{total}; nothing was removed, --apply does it"]


CLEAN = Command("remove what finished runs no longer need", _configure, _clean)
