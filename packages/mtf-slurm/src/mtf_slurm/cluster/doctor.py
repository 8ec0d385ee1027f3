"""Check this machine and its cluster: one line a finding, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from mtf_slurm.cluster.answers import PARTITION_FORMAT, ClusterConfig, complaint, parse_config, parse_partitions
from mtf_slurm.cluster.check import Check
from mtf_slurm.cluster.machine import ask_torch, check_python, check_speed
from mtf_slurm.cluster.programs import Ran, RunProgram, run_program
from mtf_slurm.code.isolation import describe_code
from mtf_slurm.errors import ClusterUnreachableError, SLURMError
from mtf_slurm.lock import hold, is_locked
from mtf_utils.atomic import write_text
from mtf_utils.rundir import SweepDirectory

__all__ = ["Doctor"]

PROGRAMS: Final = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
ASK_TIMEOUT_S: Final = 30.0
CLOCKS_MAY_DIFFER_S: Final = 2.0
SCARCE_GB: Final = 1.0
SCARCE_FILES: Final = 10_000
_CONFIG_TIME: Final = re.compile(r"^Configuration data as of (\S+)", re.MULTILINE)


class Doctor:
    """Looks at what submitting and running need.

    Args:
        folder: where runs are to be kept.
        project: the root of the project.
        run: runs a program of Slurm.
        ask_torch: loads torch, elsewhere, and tells of it.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        project: Path,
        *,
        run: RunProgram = run_program,
        ask_torch: Callable[[], Ran] = ask_torch,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.project = project
        self.reached = True
        """Whether the controller answered; False only where there are programs to ask it with."""
        self._run = run
        self._ask_torch = ask_torch
        self._wall_clock = wall_clock

    def checks(self) -> Iterator[Check]:
        """Every finding, as soon as it is made."""
        yield from self._cluster()
        yield self._repository()
        yield from self._folder()
        yield from check_python(self._ask_torch)

    def _cluster(self) -> Iterator[Check]:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if len(missing) == len(PROGRAMS):
            remedy = "`mtf run` needs none; to submit, log in to a node that can; to try it here: mtf cluster up"
            yield Check("Slurm", "note", "not on this machine", remedy)
            return
        if missing:
            remedy = "log in to a node that submits jobs, or run sweeps here with `mtf run`"
            yield Check("Slurm's programs", "problem", f"{', '.join(missing)} not found", remedy)
            return
        yield Check("Slurm's programs", "ok", str(Path(shutil.which("sbatch") or "").parent))
        answer = self._ask("scontrol", "show", "config")
        if answer.status != 0:
            self.reached = False
            remedy = "see `scontrol ping`; what is submitted meanwhile waits for it"
            if "configuration source" in answer.err:
                remedy = "no cluster is configured here: set SLURM_CONF, or log in to a node of one"
            yield Check("controller", "problem", complaint(answer), remedy)
            return
        config = parse_config(answer.out)
        yield Check("controller", "ok", f"answers, Slurm {config.version or 'of an unknown version'}")
        yield from _limits(config)
        yield from self._clock(answer.out)
        yield self._partitions()
        yield self._accounting(config)

    def _ask(self, *words: str) -> Ran:
        try:
            return self._run(words, timeout_s=ASK_TIMEOUT_S)
        except ClusterUnreachableError as error:
            return Ran(-1, err=str(error))

    def _partitions(self) -> Check:
        answer = self._ask("sinfo", "--summarize", "--noheader", f"--format={PARTITION_FORMAT}")
        if answer.status != 0:
            return Check("partitions", "problem", complaint(answer))
        partitions = parse_partitions(answer.out)
        listed = ", ".join(
            f"{p.name}{' (default)' if p.is_default else '' if p.is_up else ' (down)'}" for p in partitions
        )
        if not any(partition.is_up for partition in partitions):
            return Check("partitions", "problem", f"none takes jobs: {listed or 'there are none'}", "ask the site")
        if not any(partition.is_default for partition in partitions):
            return Check("partitions", "note", f"{listed}; none is the default", "set slurm.partition")
        return Check("partitions", "ok", listed)

    def _accounting(self, config: ClusterConfig) -> Check:
        answer = self._ask("sacct", "-X", "--noheader", "--starttime=now-1minute", "--format=JobID")
        if answer.status == 0:
            return Check("accounting", "ok", "sacct answers")
        without = f"without it, what Slurm has forgotten after {config.min_job_age_s} s is told by the receipts alone"
        return Check("accounting", "note", f"sacct: {complaint(answer)}", without)

    def _clock(self, text: str) -> Iterator[Check]:
        found = _CONFIG_TIME.search(text)
        if found is None:
            return
        try:
            there = datetime.fromisoformat(found[1]).timestamp()
        except ValueError:
            return
        yield judge_clock("clock", "the controller's", there - self._wall_clock())

    def _folder(self) -> Iterator[Check]:
        place = next(path for path in [self.folder.absolute(), *self.folder.absolute().parents] if path.is_dir())
        try:
            with tempfile.TemporaryDirectory(prefix=".mtf-doctor-", dir=place) as scratch:
                yield Check("output folder", "ok", f"{place} can be written")
                yield from self._file_system(Path(scratch))
                yield from check_speed(Path(scratch))
        except OSError as error:
            said = f"{place} cannot be written: {error.strerror or error}"
            yield Check("output folder", "problem", said, "choose another one, or make room")
            return
        if (files := os.statvfs(place).f_favail) < SCARCE_FILES and os.statvfs(place).f_files:
            yield Check("free files", "problem", f"room for {files} more in {place}", "remove some: a run takes dozens")
        free = shutil.disk_usage(place).free / 1e9
        if free < SCARCE_GB:
            yield Check("free space", "problem", f"{free:.1f} GB in {place}", "checkpoints need room: clear some")
        else:
            yield Check("free space", "ok", f"{free:.0f} GB")

    def _file_system(self, scratch: Path) -> Iterator[Check]:
        """What receipts, claims and the launcher's lock rely on."""
        file, folder = scratch / "file", scratch / "claim"
        write_text(file, "1")
        yield judge_clock("file server's clock", "the file server's", file.stat().st_mtime - self._wall_clock())
        write_text(file, "2")
        folder.mkdir()
        try:
            folder.mkdir()
        except FileExistsError:
            yield Check("atomic files", "ok", "a rename replaces a file, a second claim is refused")
        else:
            yield Check("atomic files", "problem", "a folder could be made twice", "use another file system")
        directory = SweepDirectory(scratch)
        try:
            with hold(directory):
                locks = is_locked(directory)
        except SLURMError as error:
            yield Check("locks", "problem", str(error))
            return
        if locks:
            yield Check("locks", "ok", "flock works")
        else:
            yield Check("locks", "problem", "a lock (flock) keeps nobody out", "use another file system")

    def _repository(self) -> Check:
        code = describe_code(self.project)
        if code.commit is None:
            why = code.reason or "there is no commit yet"
            if shutil.which("git") is None:
                return Check("git", "problem", "not found", "install it: sweeps record and keep the code with it")
            return Check("git", "note", str(why), "the code of a sweep is recorded only from a repository")
        changes = ", with changes that are not committed" if code.dirty else ""
        return Check("git", "ok", f"{code.branch or 'detached'} at {code.commit[:10]}{changes}")


def _limits(config: ClusterConfig) -> Iterator[Check]:
    if config.max_array_size < 2:
        yield Check("MaxArraySize", "note", str(config.max_array_size), "no arrays here: every run is a job of its own")
    else:
        yield Check(
            "MaxArraySize", "ok", f"{config.max_array_size - 1} tasks an array, MaxJobCount {config.max_job_count}"
        )
    age = config.min_job_age_s
    if age < 60:
        remedy = "squeue forgets soon: what ends without a receipt may stay unknown unless sacct tells"
        yield Check("MinJobAge", "note", f"{age} s", remedy)
    else:
        yield Check("MinJobAge", "ok", f"{age} s")
    if config.requeue:
        yield Check("requeue", "ok", "preempted jobs are queued again")
    else:
        said = "JobRequeue=0: jobs that do not ask for it are not queued again"
        yield Check("requeue", "note", said, "ours ask for it (--requeue); a site may refuse that")


def judge_clock(name: str, whose: str, ahead_s: float) -> Check:
    """Whether another clock agrees with this machine's; seconds are cut off in what the other says."""
    if abs(ahead_s) <= CLOCKS_MAY_DIFFER_S:
        return Check(name, "ok", f"{whose} agrees")
    direction = "ahead of" if ahead_s > 0 else "behind"
    said = f"{whose} is {abs(ahead_s):.0f} s {direction} this machine's"
    return Check(name, "problem", said, "have the clocks set (NTP): whether a job was lost is told by its age")
