"""The verbs of `mtf` that are about a cluster itself: `cluster`, `doctor`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mtf_slurm.cluster.doctor import Doctor
from mtf_slurm.verbs import add_json, explained, print_json, print_lines, reading
from mtf_slurm.wording import counted
from mtf_utils.cli import DONE, UNREACHABLE, WORK_FAILED, Command, CommandError
from mtf_utils.paths import ProjectRootError, get_project_root

if TYPE_CHECKING:
    from mtf_slurm.testing import LocalCluster

__all__ = ["CLUSTER", "DOCTOR"]

_KILOBYTES: Final = {"K": 1, "": 1024, "M": 1024, "G": 1024**2, "T": 1024**3}


def _configure_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("up", "down", "status", "env"), help="what to do with it")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where it lies (default: a folder of yours in /tmp)")
    made = parser.add_argument_group("for up")
    made.add_argument("--nodes", type=int, metavar="N", help="how many nodes (default: 2)")
    made.add_argument("--cpus", type=int, metavar="N", help="CPUs of a node, pretended (default: 16)")
    made.add_argument("--gpus", type=int, metavar="N", help="GPUs of a node, pretended (default: 4)")
    made.add_argument(
        "--memory", metavar="SIZE", help="memory of a node, pretended: 64G, or a number of MB (default: 256000)"
    )
    made.add_argument("--accounting", action="store_true", help="with accounting, so that sacct answers")
    add_json(parser)


@explained
def _cluster(arguments: argparse.Namespace) -> int:
    folder = (arguments.folder or Path(tempfile.gettempdir(), f"mtf-cluster-{os.getuid()}")).absolute()
    asked = {key: getattr(arguments, key) for key in ("nodes", "cpus", "gpus")}
    settings = {key: value for key, value in asked.items() if value is not None}
    if arguments.memory is not None:
        settings["memory"] = arguments.memory
    if arguments.accounting:
        settings["accounting"] = True
    if arguments.action != "up" and settings:
        raise CommandError(f"--{next(iter(settings))} belongs to `mtf cluster up`")
    if arguments.action == "up":
        if "memory" in settings:
            settings["memory_mb"] = _megabytes(settings.pop("memory"))
        return _up(folder, settings, as_json=arguments.json)
    act = {"down": _down, "status": _show, "env": _environment}[arguments.action]
    return act(folder, as_json=arguments.json)


def _megabytes(text: str) -> int:
    """An amount of memory as sbatch takes it for `--mem`: a number of MB, or one with K, M, G or T."""
    found = re.fullmatch(r"([0-9]+)([KMGT]?)B?", text.strip().upper())
    amount = int(found[1]) * _KILOBYTES[found[2]] // 1024 if found else 0
    if amount < 1:
        raise CommandError(f"--memory {text}: expected an amount of 1 MB or more, such as 64G or 64000 (MB)")
    return amount


def _up(folder: Path, settings: dict[str, Any], *, as_json: bool) -> int:
    # only who asks for a cluster loads what makes one
    from mtf_slurm.testing import ClusterSettings, LocalCluster

    cluster = LocalCluster(ClusterSettings.from_dict(settings), folder=folder, detached=True)
    if cluster.is_up():
        raise CommandError("\n".join([f"a cluster is up in {folder} already", *_hints(folder)]))
    cluster.start()
    if as_json:
        print_json("cluster", _state(cluster))
    else:
        print_lines([f"a cluster of {counted(cluster.settings.nodes, 'node')} is up in {folder}", *_hints(folder)])
    return DONE


def _hints(folder: Path) -> list[str]:
    chosen = "" if folder.parent == Path(tempfile.gettempdir()) else f" --folder {shlex.quote(str(folder))}"
    return [f'to use it: eval "$(mtf cluster env{chosen})"', f"to end it: mtf cluster down{chosen}"]


def _down(folder: Path, *, as_json: bool) -> int:
    cluster = _attach(folder)
    was_up = cluster.is_up()
    cluster.stop()
    if as_json:
        print_json("cluster", _state(cluster))
    else:
        print_lines([f"the cluster in {folder} is down" if was_up else f"the cluster in {folder} was not up"])
    return DONE


def _show(folder: Path, *, as_json: bool) -> int:
    from mtf_slurm.testing import ClusterError

    try:
        cluster = _attach(folder)
    except ClusterError:
        state: dict[str, Any] = {"folder": str(folder), "up": False, "nodes": "", "environment": {}}
    else:
        state = _state(cluster)
    if as_json:
        print_json("cluster", state)
    elif state["up"]:
        print_lines([f"a cluster is up in {folder}", *state["nodes"].splitlines(), *_hints(folder)])
    else:
        print_lines([f"no cluster is up in {folder}; to start one: mtf cluster up"])
    return DONE if state["up"] else WORK_FAILED


def _environment(folder: Path, *, as_json: bool) -> int:
    cluster = _attach(folder)
    if not cluster.is_up():
        raise CommandError(f"the cluster in {folder} is not up; start it with: mtf cluster up")
    if as_json:
        print_json("cluster", _state(cluster))
    else:
        # for a shell, to which every character matters
        sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in cluster.environment().items())
    return DONE


def _attach(folder: Path) -> LocalCluster:
    from mtf_slurm.testing import LocalCluster

    return LocalCluster.attach(folder)


def _state(cluster: LocalCluster) -> dict[str, Any]:
    up = cluster.is_up()
    nodes = cluster.run(["sinfo"], check=False).stdout if up else ""
    environment = cluster.environment() if up else {}
    return {"folder": str(cluster.folder), "up": up, "nodes": nodes, "environment": environment}


def _configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dir",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="where runs are to be kept (default: experiments of the project)",
    )
    add_json(parser)


@reading
def _doctor(arguments: argparse.Namespace) -> int:
    try:
        project = get_project_root(Path.cwd())
    except ProjectRootError:
        project = Path.cwd()
    doctor = Doctor(arguments.dir or project / "experiments", project)
    found = []
    for check in doctor.checks():
        found.append(check)
        if not arguments.json:
            print_lines([check.line()])
            sys.stdout.flush()
    if arguments.json:
        print_json("doctor", {"checks": [check.to_dict() for check in found]})
    if not doctor.reached:
        return UNREACHABLE
    return WORK_FAILED if any(check.level == "problem" for check in found) else DONE


CLUSTER = Command("start, stop and use a throw-away Slurm on this machine", _configure_cluster, _cluster)
DOCTOR = Command("check this machine and its cluster", _configure_doctor, _doctor)
