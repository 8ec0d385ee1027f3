"""The verb `mtf init`: make a project that runs."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mtf_config.project import ProjectExistsError, write_project
from mtf_utils.cli import DONE, Command, CommandError
from mtf_utils.display import printable
from mtf_utils.output import print_json

__all__ = ["INIT"]

_FILES: Final = {
    "train.py": "one run: data, model, training",
    "configs/base.yaml": "what every run starts from",
    "sweep.yaml": "what to vary: four runs",
    "tests/test_train.py": "tests (pytest)",
    "data/digits.csv.gz": "1797 handwritten digits",
}
_NEEDED: Final = {"mtf_trainer": "mtf-trainer", "mtf_slurm": "mtf-slurm"}
"""What its commands need beside this package: module → distribution."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dir", nargs="?", type=Path, default=Path(), metavar="DIR", help="the project's folder (default: this one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.dir
    try:
        files = write_project(folder)
    except ProjectExistsError as error:
        raise CommandError(f"{error}; name another folder: mtf init NAME") from error
    if arguments.json:
        print_json("init", {"project": str(folder.absolute()), "files": files})
    else:
        sys.stdout.writelines(f"{printable(line)}\n" for line in _lines(folder))
    return DONE


def _lines(folder: Path) -> Iterator[str]:
    yield f"a project in {folder.absolute()}:"
    yield from (f"  {name:22}{what}" for name, what in _FILES.items())
    yield "next:"
    if folder.absolute() != Path.cwd():
        yield f"  cd {shlex.quote(str(folder))}"
    lacking = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if lacking:
        yield f"  pip install {' '.join(lacking)}"
    yield "  mtf run sweep.yaml       four runs on this machine; Ctrl-C saves, the same command goes on"
    yield "  mtf results              the leaderboard"
    yield "  mtf submit sweep.yaml    the same on Slurm"


INIT: Final = Command("make a project that runs: training, configuration, sweep, tests, data", _configure, _run)
