"""The verb `mtf clean`: show what is not needed any more, of a sweep or in the project's repository, and remove it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mtf_slurm.cleaning import Cleaning, clean, find_rubbish
from mtf_slurm.code.contents import readable_size
from mtf_slurm.code.repository import Repository
from mtf_slurm.code.users import Orphan, find_orphans, prune_orphans
from mtf_slurm.finding import find_sweep
from mtf_slurm.verbs import add_folder, add_json, explained, print_json, print_lines
from mtf_slurm.wording import counted
from mtf_utils.cli import DONE, Command, CommandError

__all__ = ["CLEAN"]

_SHOWN: Final = 3
"""How many folders a line names."""


def _configure(parser: argparse.ArgumentParser) -> None:
    add_folder(parser, optional=True)
    parser.add_argument(
        "--snapshots",
        action="store_true",
        help="instead, the snapshots in the git repository around DIR whose sweeps' folders are gone",
    )
    parser.add_argument("--apply", action="store_true", help="remove it; without this, it is only shown")
    add_json(parser)


@explained
def _clean(arguments: argparse.Namespace) -> int:
    if arguments.snapshots:
        data, lines = _snapshots(arguments.dir or Path(), arguments.apply)
    else:
        data, lines = _sweep(_folder(arguments), arguments.apply)
    if arguments.json:
        print_json("clean", {"removed": arguments.apply} | data)
    else:
        print_lines(lines)
    return DONE


def _folder(arguments: argparse.Namespace) -> Path:
    folder = find_sweep(arguments.dir)
    if arguments.apply and arguments.dir is None and folder != Path.cwd():
        raise CommandError(f"--apply removes only what is named: mtf clean {folder} --apply")
    return folder


def _sweep(folder: Path, apply: bool) -> tuple[dict[str, Any], Iterable[str]]:
    found = clean(folder) if apply else find_rubbish(folder)
    items = [{"kind": i.kind, "path": str(i.path), "size": i.size, "why": i.why} for i in found.items]
    return {"size": found.size, "items": items, "snapshots": list(found.snapshots)}, _sweep_lines(found, removed=apply)


def _sweep_lines(found: Cleaning, *, removed: bool) -> list[str]:
    if not found.items:
        return ["nothing to remove"]
    lines = [f"{item.kind:10}  {readable_size(item.size):>10}  {item.path}  ({item.why})" for item in found.items]
    lines += [f"{'snapshot':10}  {'':>10}  {tree} in git" for tree in found.snapshots]
    return [*lines, _summary(f"{counted(len(found.items), 'item')}, {readable_size(found.size)}", removed=removed)]


def _snapshots(folder: Path, apply: bool) -> tuple[dict[str, Any], Iterable[str]]:
    repository = Repository.find(folder.absolute())
    found = prune_orphans(repository) if apply else find_orphans(repository)
    listed = [
        {"repository": str(o.root), "tree": o.tree, "taken_at": _time(o), "folders": [str(path) for path in o.folders]}
        for o in found
    ]
    return {"repository": str(repository.root), "snapshots": listed}, _snapshot_lines(found, repository, apply)


def _snapshot_lines(found: list[Orphan], repository: Repository, removed: bool) -> Iterator[str]:
    if not found:
        yield "nothing to remove"
        return
    for orphan in found:
        more = f" and {len(orphan.folders) - _SHOWN} more" if len(orphan.folders) > _SHOWN else ""
        folders = ", ".join(map(str, orphan.folders[:_SHOWN])) + more
        why = f"gone: {folders}" if folders else "no sweep is known for it"
        module = "" if orphan.root == repository.root else f"  submodule {orphan.root.relative_to(repository.root)}"
        yield f"{orphan.tree}  {_time(orphan)}{module}  ({why})"
    yield _summary(f"{len(found)} snapshots", removed=removed)
    if removed:
        yield "git gives their space back when it collects garbage (git gc)"


def _summary(total: str, *, removed: bool) -> str:
    return f"removed {total}" if removed else f"{total}; nothing was removed, --apply does it"


def _time(orphan: Orphan) -> str:
    return datetime.fromtimestamp(orphan.taken_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


CLEAN = Command("remove what finished runs no longer need", _configure, _clean)
