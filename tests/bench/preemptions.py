"""Real trainings on a real Slurm, stopped again and again: every one must end as if nothing had happened.

    python tests/bench/preemptions.py --runs 20 --stops 3 --grace 0
    python tests/bench/preemptions.py --runs 20 --stops 3 --time-limit 2 --nodes 11

Every training waits at an event of its own, chosen by the seed. Then jobs of the partition `high` take the nodes; with
`--time-limit` its time ends: it stops at the warning (`--signal`), or with `--until-limit` at the limit itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mtf_config import SLURMConfig
from mtf_slurm.cluster.options import sbatch_options, warning_s
from mtf_slurm.cluster.script import JobScriptSpec, SubmissionTemplate, slurm_job_name, task_line
from mtf_slurm.render import JobScript, render_job
from mtf_slurm.testing import ClusterSettings, LocalCluster
from mtf_utils.rundir import Attempt, RunDirectory, SweepDirectory
from mtf_utils.sections import PreemptionConfig

TOKEN = "0123abcd"
TRAINING = Path(__file__).parent / "preempting" / "training.py"
DEADLINE_S = 240.0
UNDISTURBED = "undisturbed"


class Campaign:
    """The runs of one campaign on one cluster."""

    def __init__(self, cluster: LocalCluster, folder: Path, options: argparse.Namespace) -> None:
        self.cluster, self.options = cluster, options
        limit = f"{options.time_limit}:00" if options.time_limit else None
        self.slurm, self.preemption = SLURMConfig(exclusive=True, time_limit=limit), PreemptionConfig()
        self.sweep = SweepDirectory(folder)
        self.folder = folder / "submissions" / TOKEN
        self.folder.mkdir(parents=True)
        self.reference = self._add(UNDISTURBED, stops=0)
        self.runs = [self._add(f"run-{number}", stops=options.stops) for number in range(options.runs)]

    def _add(self, name: str, *, stops: int) -> RunDirectory:
        run = self.sweep.run(name)
        run.path.mkdir(parents=True)
        words = ("{python}", str(TRAINING), str(self.options.seed), str(stops))
        job = JobScript(
            name=name,
            project_root=TRAINING.parent,
            python=sys.executable,
            command=(*words, "SIGTERM") if self.options.until_limit else words,
            warning_s=warning_s(self.slurm, self.preemption),
        )
        run.job_script.write_text(render_job(job))
        return run

    def submit(self) -> str:
        """One array of all runs, as many at a time as there are nodes."""
        spec = JobScriptSpec(
            job_name=slurm_job_name("preempted", TOKEN, 0),
            options=sbatch_options(self.slurm, self.preemption),
            config=self.slurm,
            sweep_dir=self.sweep.path,
            token=TOKEN,
            number=0,
            tasks=len(self.runs) + 1,
            throttle=self.options.nodes,
        )
        names = [run.name for run in (self.reference, *self.runs)]
        (self.folder / "0.tasks").write_text("".join(task_line(1, name) for name in names))
        text = SubmissionTemplate.built_in().render(spec)
        return self.cluster.run(["sbatch", "--parsable", *spec.words()], text_in=text).stdout.strip()

    def run(self) -> None:
        """Until every run has ended."""
        job = self.submit()
        while active := self._states(job):
            if not self.options.time_limit and "RUNNING" in active and not self._busy(job):
                self._preempt()
            time.sleep(0.2)

    def _states(self, job: str) -> Counter[str]:
        words = ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T"]
        done = self.cluster.run(words, check=False)
        if done.returncode and "Invalid job id" not in done.stderr:
            raise RuntimeError(done.stderr)
        return Counter(done.stdout.split())

    def _busy(self, job: str) -> bool:
        """Whether some run at work is not waiting to be preempted."""
        words = ["squeue", "--noheader", "--array", f"--jobs={job}", "--states=RUNNING,COMPLETING", "--format=%K"]
        names = [UNDISTURBED, *(run.name for run in self.runs)]
        for index in self.cluster.run(words, check=False).stdout.split():
            run = self.sweep.run(names[int(index)])
            attempts = run.attempts()
            if not attempts or not (run.path / f"waits-{attempts[-1].number}").exists() or attempts[-1].finished():
                return True
        return False

    def _preempt(self) -> None:
        """Take every node for a moment."""
        wanted = ["--partition=high", "--exclusive", f"--nodes={self.options.nodes}", "--output=/dev/null"]
        words = ["sbatch", "--parsable", *wanted]
        job = self.cluster.run(words, text_in="#!/bin/sh\nsleep 0.1\n").stdout.strip()
        _wait(lambda: "COMPLETED" in self.cluster.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"]).stdout)

    def report(self) -> int:
        """Print what came of it; the number of runs that are not what they should be."""
        wanted = _digest(self.reference)
        if not wanted:
            raise RuntimeError(f"the undisturbed run has failed:\n{self.reference.log_file(1).read_text()}")
        ends, faults = Counter[str](), 0
        for run in self.runs:
            outcomes = [_outcome(attempt) for attempt in run.attempts()]
            ends.update(outcomes[:-1])
            found = _digest(run)
            differing = sorted(part for part in wanted if found.get(part) != wanted[part])
            if differing or not self._as_expected(outcomes):
                faults += 1
                print(f"{run.name}: {', '.join(outcomes)}; differs in {', '.join(differing) or 'nothing'}")
                print(run.log_file(len(outcomes)).read_text()[-2000:])
        events = Counter(path.read_text() for run in self.runs for path in run.path.glob("waits-*"))
        print(f"stops: {_counts(ends)}; while waiting at: {_counts(events)}")
        same = len(self.runs) - faults
        print(f"bit-identical after {self.options.stops} or more stops each: {same} of {len(self.runs)} runs")
        return faults

    def _as_expected(self, outcomes: list[str]) -> bool:
        """A run may be stopped once more than asked for, while it starts."""
        *stops, last = outcomes or [""]
        kind = "time limit" if self.options.time_limit else "preempted"
        return last == "finished" and set(stops) <= {kind} and len(stops) >= self.options.stops


def _outcome(attempt: Attempt) -> str:
    """How an attempt ended; one that was stopped for want of time has left a note of that beside its receipt."""
    receipt = attempt.finished()
    outcome = receipt.outcome.value if receipt else "none"
    return "time limit" if outcome == "preempted" and attempt.time_limit_file.exists() else outcome


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def _digest(run: RunDirectory) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((run.path / "digest.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster does not get on")
        time.sleep(0.1)


def main() -> int:
    """Run the campaign; 1 if a run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--stops", type=int, default=3, help="of each run")
    parser.add_argument("--nodes", type=int, default=4, help="so many runs are at work at a time")
    parser.add_argument(
        "--time-limit", type=int, default=0, metavar="MINUTES", help="stop the runs by this, not by jobs"
    )
    parser.add_argument("--until-limit", action="store_true", help="with --time-limit: let the warning pass")
    parser.add_argument("--grace", type=int, default=0, help="GraceTime of the partition, seconds")
    parser.add_argument("--user-signal", action="store_true", help="set preempt_send_user_signal")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    settings = ClusterSettings(
        nodes=options.nodes, grace_s=options.grace, send_user_signal=options.user_signal, kill_wait_s=60
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtf-") as folder, LocalCluster(settings) as cluster:
        campaign = Campaign(cluster, Path(folder) / "sweep", options)
        campaign.run()
        faults = campaign.report()
    print(f"{time.monotonic() - began:.0f} s")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
