"""What is found after a submission: which jobs Slurm has had, which runs started how often."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mtf_slurm.testing import LocalCluster

DEADLINE_S = 180.0


@dataclass
class Findings:
    """Of one folder.

    Attributes:
        experiments: how many were to be submitted.
        doubled: experiments that Slurm had more than one job for, with the ids.
        lost: experiments that no attempt was made of.
        restarted: experiments that ran again after they had ended.
        interrupted: experiments that a crash of the controller ended while they ran, and that went on in a new attempt.
        unfinished: experiments without a receipt of success.
        fenced: starts that found that they were not to run: a controller that was restarted starts jobs again that it
            does not know to be over.
    """

    experiments: int
    doubled: dict[str, list[str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    fenced: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every experiment had one job and ran once, to its end."""
        return not (self.doubled or self.lost or self.restarted or self.unfinished)

    def __str__(self) -> str:
        return (
            f"{self.experiments} experiments, {len(self.doubled)} with more than one job, {len(self.lost)} lost, "
            f"{len(self.restarted)} started twice, {len(self.unfinished)} unfinished; {self.fenced} starts by Slurm "
            f"fenced off, {len(self.interrupted)} ended by a crash and continued"
            + (
                f": {self.doubled} {self.lost[:5]} {self.restarted[:5]} {self.unfinished[:5]}"
                if not self.is_good
                else ""
            )
        )


def examine(cluster: LocalCluster, folder: Path, names: Iterable[str]) -> Findings:
    """Compare what Slurm has had and what the runs left with what was asked for."""
    names = list(names)
    single = folder / "out" / "single"
    found = Findings(len(names))
    jobs = jobs_of(cluster, single)
    for name in names:
        attempts = sorted((single / "runs" / name / "attempts").glob("[0-9]*"))
        if len(jobs.get(name, [])) > 1:
            found.doubled[name] = jobs[name]
        if not attempts:
            found.lost.append(name)
        ended = [(attempt / "finished.json").exists() for attempt in attempts]
        if sum(ended) > 1:
            found.restarted.append(name)
        if not all(ended) and any(ended):
            found.interrupted.append(name)
        if not any(_is_success(attempt / "finished.json") for attempt in attempts):
            found.unfinished.append(name)
    for output in single.glob("submissions/*/*.out"):
        found.fenced += output.read_text("utf-8", "replace").count("nothing to do")
    return found


def jobs_of(cluster: LocalCluster, single: Path) -> dict[str, list[str]]:
    """The ids of the jobs and tasks that Slurm has had for each run, whether they are over or not."""
    runs: dict[str, list[str]] = {}
    for intent in single.glob("submissions/*/intent.json"):
        for number, job in enumerate(json.loads(intent.read_text())["jobs"]):
            tasks = (intent.parent / f"{number}.tasks").read_text().splitlines()
            runs[job["job_name"]] = [line.partition(" ")[2] for line in tasks]
    words = ["squeue", "--noheader", "--array", "--states=all", "--Format=JobArrayID:|,State:|,Name:|"]
    jobs: dict[str, list[str]] = {}
    for line in cluster.run(words).stdout.splitlines():
        job_id, _, name = line.strip().removesuffix("|").split("|")
        index = int(job_id.partition("_")[2] or 0)
        if name in runs:
            jobs.setdefault(runs[name][index], []).append(job_id)
    return jobs


def wait_until_started(folder: Path, names: Iterable[str], deadline_s: float = DEADLINE_S) -> list[str]:
    """Wait until every run has a finish receipt; returns the ones that have none when the time is up."""
    runs = folder / "out" / "single" / "runs"
    left = list(names)
    end = time.monotonic() + deadline_s
    while left and time.monotonic() < end:
        left = [name for name in left if not any((runs / name / "attempts").glob("*/finished.json"))]
        time.sleep(0.1)
    return left


def peak(folder: Path) -> tuple[int, Counter[str]]:
    """The largest number of runs at work at a time, by the spans that they noted, and how many noted one."""
    events: list[tuple[int, int]] = []
    for span in (folder / "out" / "single" / "runs").glob("*/span"):
        start, end = map(int, span.read_text().split())
        events += [(start, 1), (end, -1)]
    at_work = most = 0
    for _, change in sorted(events, key=lambda event: (event[0], event[1])):
        at_work += change
        most = max(most, at_work)
    return most, Counter(runs=len(events) // 2)


def _is_success(receipt: Path) -> bool:
    return receipt.exists() and json.loads(receipt.read_text())["outcome"] == "finished"
