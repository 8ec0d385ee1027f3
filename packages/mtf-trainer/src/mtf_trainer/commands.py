"""The verb `mtf checkpoint`: list, verify, show, compare and export checkpoints. Nothing here writes into one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtf_trainer.checkpoint.faults import DamagedCheckpointError
from mtf_trainer.checkpoint.folder import read_checkpoint
from mtf_trainer.checkpoint.manifest import Manifest, read_manifest
from mtf_trainer.errors import CheckpointError
from mtf_trainer.inspection import (
    best_checkpoint,
    compare_checkpoints,
    export_weights,
    find_checkpoints,
    one_checkpoint,
)
from mtf_utils.cli import DONE, USER_MISTAKE, WORK_FAILED, Command, CommandError
from mtf_utils.display import printable
from mtf_utils.output import print_json

__all__ = ["CHECKPOINT"]

_DIFFERENT = WORK_FAILED  # as with diff itself: a script can ask whether two checkpoints are the same
_WHERE = "a checkpoint, or a folder of checkpoints or a run, of which the newest is taken"


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, run: Any, text: str, *, reads: bool = True) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.set_defaults(action=run)
        if reads:
            action.add_argument("--json", action="store_true", help="print JSON")
        return action

    listing = add("ls", _list, "list the checkpoints of a folder, without verifying more than their manifests")
    listing.add_argument("folder", nargs="?", default=".", type=Path, help="of checkpoints, or of a run (default: .)")
    verify = add("verify", _verify, "read every byte and compare it with what was written")
    verify.add_argument("paths", nargs="+", type=Path, help="checkpoints, or folders of which all are verified")
    show = add("show", _show, "say what a checkpoint holds")
    show.add_argument("path", type=Path, help=_WHERE)
    diff = add("diff", _diff, "compare two checkpoints, value by value and tensor by tensor; status 1 if they differ")
    diff.add_argument("left", type=Path, help=_WHERE)
    diff.add_argument("right", type=Path, help="the same")
    export = add("export", _export, "write the weights of a model to a file of their own", reads=False)
    export.add_argument("path", type=Path, help=_WHERE)
    export.add_argument("output", type=Path, help="a new file: .safetensors, or .pt for a torch state dict")
    export.add_argument("--best", action="store_true", help="of the checkpoint with the best monitored metric")
    export.add_argument("--averaged", action="store_true", help="the averages that an EMA callback kept")


def _run(arguments: argparse.Namespace) -> int:
    try:
        status: int = arguments.action(arguments)
    except DamagedCheckpointError as error:
        raise CommandError(str(error), exit_status=WORK_FAILED) from error
    except CheckpointError as error:
        raise CommandError(str(error), exit_status=USER_MISTAKE) from error
    return status


CHECKPOINT = Command(help="list, verify, show, compare and export checkpoints", configure=_configure, run=_run)


def _list(arguments: argparse.Namespace) -> int:
    rows = []
    for path in find_checkpoints(arguments.folder):
        try:
            rows.append(_summary(path, read_manifest(path)))
        except DamagedCheckpointError as error:
            rows.append({"name": path.name, "fault": str(error)})
    if arguments.json:
        print_json("checkpoint", {"action": "ls", "checkpoints": rows})
        return DONE
    if not rows:
        print(printable(f"{arguments.folder}: no checkpoints"))
    for row in rows:
        print(printable(_list_line(row)))
    return DONE


def _list_line(row: dict[str, Any]) -> str:
    if "fault" in row:
        return f"{row['name']}  damaged: {row['fault']}"
    metric = "" if row["metric"] is None else f"  metric {row['metric']:.6g}"
    pinned = "  pinned" if row["pinned"] else ""
    return (
        f"{row['name']}  {row['kind']:<9}  {row['epoch']} epochs done  {_size(row['bytes']):>9}  {row['created_at']}"
        f"  {row['run_id']}{metric}{pinned}"
    )


def _summary(path: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": path.name,
        "kind": str(manifest.kind),
        "epoch": manifest.epoch,
        "global_step": manifest.global_step,
        "metric": manifest.metric,
        "pinned": manifest.pinned,
        "run_id": manifest.run_id,
        "created_at": manifest.created_at,
        "bytes": sum(entry.size for entry in manifest.files.values()),
    }


def _verify(arguments: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for path in _each(arguments.paths):
        try:
            read_checkpoint(path)
        except DamagedCheckpointError as error:
            rows.append({"path": str(path), "valid": False, "fault": str(error)})
        else:
            rows.append({"path": str(path), "valid": True, "fault": None})
        if not arguments.json:
            row = rows[-1]
            print(printable(f"{row['path']}: valid" if row["valid"] else f"damaged: {row['fault']}"), flush=True)
    if arguments.json:
        print_json("checkpoint", {"action": "verify", "checkpoints": rows})
    return DONE if all(row["valid"] for row in rows) else WORK_FAILED


def _each(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        found = find_checkpoints(path)
        if not found:
            raise CommandError(f"{path}: no checkpoints there")
        yield from found


def _show(arguments: argparse.Namespace) -> int:
    path = one_checkpoint(arguments.path)
    manifest = read_manifest(path)
    files = {
        name: {"bytes": entry.size, "tensors": len(entry.tensors or {}), "xxh3": entry.xxh3}
        for name, entry in manifest.files.items()
    }
    shown = _summary(path, manifest) | {"versions": manifest.versions, "files": files}
    if arguments.json:
        fingerprint = json.loads(json.dumps(manifest.fingerprint, default=repr))
        print_json("checkpoint", {"action": "show"} | shown | {"fingerprint": fingerprint})
        return DONE
    for name, value in shown.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                text = f"{_size(item['bytes']):>9}  {item['tensors']} tensors" if name == "files" else item
                print(printable(f"  {key:<24} {text}"))
        else:
            print(printable(f"{name + ':':<14} {value}"))
    return DONE


def _diff(arguments: argparse.Namespace) -> int:
    left, right = one_checkpoint(arguments.left), one_checkpoint(arguments.right)
    differences = list(compare_checkpoints(read_checkpoint(left), read_checkpoint(right)))
    if arguments.json:
        rows = [vars(difference) for difference in differences]
        found = {"left": str(left), "right": str(right), "differences": rows}
        print_json("checkpoint", {"action": "diff"} | found)
    else:
        for difference in differences:
            print(printable(f"{difference.place}: {difference.text}", lines=True))
        count = f"{len(differences) or 'no'} difference{'s' if len(differences) != 1 else ''}"
        print(printable(f"{left} and {right}: {count}"))
    return _DIFFERENT if differences else DONE


def _export(arguments: argparse.Namespace) -> int:
    path = best_checkpoint(arguments.path) if arguments.best else one_checkpoint(arguments.path)
    count, size = export_weights(path, arguments.output, averaged=arguments.averaged)
    print(printable(f"{arguments.output}: {count} tensors, {_size(size)}, from {path.name}"))
    return DONE


def _size(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
