"""A run's folder with its job.sh, and stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mtf_slurm.render import JobScript, render_job
from mtf_utils.rundir import FinishReceipt, RunDirectory


class Script:
    """A run folder with nothing but its job.sh."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory(folder / "run-1")
        self.root = folder / "root"
        self.run.path.mkdir()
        self.root.mkdir()

    def write(self, code: str, **settings: Any) -> None:
        job = JobScript(
            name="run-1", project_root=self.root, python=sys.executable, command=("{python}", "-c", code), **settings
        )
        self.run.job_script.write_text(render_job(job))

    def start(self, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(self.run.job_script)],
            env=os.environ | variables,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def execute(self, **variables: str) -> tuple[int, str]:
        process = self.start(**variables)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def receipt(self, number: int = 1) -> FinishReceipt:
        receipt = self.run.attempt(number).finished()
        assert receipt is not None
        return receipt


class Counter:
    """Notes which programs are run, by standing in for each of them in the PATH."""

    def __init__(self, folder: Path) -> None:
        self.programs, self._noted = folder / "counted", folder / "noted"
        self.programs.mkdir()
        shim = folder / "shim"
        shell = shutil.which("sh")
        shim.write_text(
            f'#!{shell}\necho "${{0##*/}}" >>"{self._noted}"\n'
            f'exec "$(PATH="{os.environ["PATH"]}" command -v "${{0##*/}}")" "$@"\n'
        )
        shim.chmod(0o755)
        for place in os.environ["PATH"].split(os.pathsep):
            for program in Path(place).iterdir() if Path(place).is_dir() else ():
                if not (self.programs / program.name).is_symlink():
                    (self.programs / program.name).symlink_to(shim)

    def seen(self) -> list[str]:
        """What was run since the last time, in order."""
        names = text_of(self._noted).split()
        self._noted.unlink(missing_ok=True)
        return names


class Slurm:
    """Stands in for Slurm's programs: answers what the test wants, in turn, and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sweep = script.run.path.parent.parent
        self.programs = self.sweep / "programs"
        self.programs.mkdir()
        self.asked_file = self.sweep / "asked"

    def answer(self, program: str, *answers: str) -> None:
        """Each answer is a line of shell; the last one stays."""
        for number, answer in enumerate(answers):
            (self.programs / f"{program}.{number}").write_text(answer)
        path = self.programs / program
        path.write_text(
            f'#!/bin/bash\necho {program} "$@" >>{self.asked_file}\n'
            f"n=$(grep -c ^{program} {self.asked_file})\n"
            f"[ $n -gt {len(answers)} ] && n={len(answers)}\n. {path}.$((n - 1))\n"
        )
        path.chmod(0o755)

    def execute(self, restart: int = 0, **variables: str) -> tuple[int, str]:
        common = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "MTF_SWEEP_DIR": str(self.sweep),
            "MTF_TOKEN": "t1",
            "MTF_FIRST_ATTEMPT": "1",
            "SLURM_JOB_ID": "80",
            "SLURM_ARRAY_JOB_ID": "79",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_RESTART_COUNT": str(restart),
        }
        return self.script.execute(**(common | variables))

    def asked(self) -> list[str]:
        return text_of(self.asked_file).splitlines()


def text_of(path: Path) -> str:
    """What is in the file; empty if there is none."""
    return path.read_text() if path.exists() else ""
