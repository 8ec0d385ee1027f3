"""Plan a submission to Slurm and render what it consists of, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mtf_config import ExecutionMode, ExperimentConfig, SLURMConfig
from mtf_slurm.cluster.batches import Pack, Request, group_runs, plan_jobs, split_job
from mtf_slurm.cluster.choosing import Templates
from mtf_slurm.cluster.lanes import Holder
from mtf_slurm.cluster.options import sbatch_options
from mtf_slurm.cluster.script import slurm_job_name, task_line
from mtf_slurm.cluster.sending import job_spec
from mtf_slurm.cluster.sharing import render_shared
from mtf_slurm.submissions import Ended, Submission, Submissions
from mtf_utils.rundir import SweepDirectory, now

__all__ = ["SubmissionPlanner", "most_tasks"]

_ARRAYS_AT_ONCE: Final = 2
"""How many of the largest arrays the controller has room for."""


@dataclass(frozen=True)
class SubmissionPlanner:
    """Plans the submissions of one folder.

    Attributes:
        directory: the folder of the sweep, where the runs have their folders.
        templates: of the scripts.
        configs: experiments by the name of the run; those of others are read from their folders.
    """

    directory: SweepDirectory
    templates: Templates
    configs: Mapping[str, ExperimentConfig] = field(default_factory=dict)

    def plan(
        self,
        names: Sequence[str],
        *,
        mode: ExecutionMode,
        max_tasks: int,
        limit: int | None = None,
        holders: Sequence[Holder] = (),
        single: bool = False,
        ended: Sequence[Ended] = (),
        memory: Mapping[str, str] | None = None,
    ) -> tuple[Submission, dict[str, str]]:
        """A submission of some runs and the files that go with it; writes nothing.

        Args:
            names: of the runs.
            mode: SLURM or DRY_RUN.
            max_tasks: how many tasks an array may have.
            limit: how many tasks of the folder may be at work at a time; None is no bound.
            holders: the jobs of the folder that are not over.
            single: whether it is one experiment, submitted by itself.
            ended: how last attempts of these runs had ended.
            memory: what runs ask for instead of the memory of their configuration, by name.

        Raises:
            JobSubmissionError: what a run asks for cannot be asked.
            SLURMError: a script cannot be rendered.
        """
        token = Submissions(self.directory).new_token()
        runs, jobs = plan_jobs(
            group_runs(self._request(name, single) for name in names),
            name_job=lambda stem, number: slurm_job_name(stem, token, number),
            max_tasks=max_tasks,
            limit=limit,
            holders=holders,
            single=single,
        )
        submission = Submission(
            token=token,
            mode=mode,
            runs=runs,
            single=single,
            jobs=jobs,
            max_concurrent_jobs=limit,
            created_at=now(),
            ended=list(ended),
            memory=dict(memory or {}),
        )
        return submission, self._files(submission)

    def split(self, submission: Submission, number: int) -> Submission | None:
        """Cut an array in two that the cluster does not take, and record that.

        Returns:
            The submission as it is from now on; None if the job cannot be cut.
        """
        if submission.jobs[number].tasks < 2:
            return None

        def rename(job_name: str, index: int) -> str:
            return f"{job_name.rpartition('.')[0]}.{index}"

        data = submission.to_dict()
        data["jobs"] = [job.to_dict() for job in split_job(submission.jobs, number, rename)]
        cut = Submission.from_dict(data)
        Submissions(self.directory).replace(cut, self._files(cut, first=number))
        return cut

    def _request(self, name: str, single: bool) -> Request:
        config = self.config(name)
        stem = (config.slurm.job_name if config.slurm else None) or (name if single else self.directory.path.name)
        options, template = sbatch_options(config.slurm, config.preemption), self.templates.path_for(config)
        return Request(name, options, stem, template, Pack.of(config.slurm))

    def config(self, name: str) -> ExperimentConfig:
        """The experiment of a run."""
        if name in self.configs:
            return self.configs[name]
        return ExperimentConfig.from_dict(json.loads(self.directory.run(name).config_json.read_text("utf-8")))

    def _files(self, submission: Submission, first: int = 0) -> dict[str, str]:
        """What goes with a submission by the names of the files, from one of its jobs on."""
        files: dict[str, str] = {}
        for number in range(first, len(submission.jobs)):
            names = submission.runs_of(number)
            config = self.config(names[0]).slurm or SLURMConfig()
            spec = job_spec(self.directory, submission, number, config)
            files[f"{number}.sh"] = self.templates.get(submission.jobs[number].template).render(spec)
            if submission.jobs[number].is_shared:
                signals = (name for run in names for name in self.config(run).preemption.signals)
                files[f"{number}.task.sh"] = render_shared(submission.jobs[number], number, signals)
            files[f"{number}.tasks"] = "".join(task_line(self._next_attempt(name), name) for name in names)
        return files

    def _next_attempt(self, name: str) -> int:
        """Behind every attempt that was claimed: a late or doubled start of an earlier job cannot take it."""
        return 1 + max((attempt.number for attempt in self.directory.run(name).attempts()), default=0)


def most_tasks(max_array_size: int, max_job_count: int) -> int:
    """How many tasks an array may have, by the controller's configuration."""
    return min(max_array_size, max(1, max_job_count // _ARRAYS_AT_ONCE))
