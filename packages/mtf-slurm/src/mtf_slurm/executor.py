"""Carries a plan out as one of the modes wants it: checks it, writes it, and runs, submits or only drafts it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm.cluster.answers import ClusterConfig
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.command_script import script_problems
from mtf_slurm.errors import ClusterUnreachableError, by_reason
from mtf_slurm.execute import (
    LOCK_WAIT_S,
    Executed,
    execute_locally,
    explain_write_errors,
    held,
    plan_only,
    submit,
)
from mtf_slurm.room import estimate_room
from mtf_slurm.setup_lines import check_setups
from mtf_slurm.sweep import SweepPlan, without_foreign, write_plan
from mtf_slurm.views import Display
from mtf_utils.rundir import SweepDirectory

if TYPE_CHECKING:
    from mtf_slurm.cluster.choosing import Draft, Templates
    from mtf_slurm.cluster.planning import SubmissionPlanner
    from mtf_slurm.cluster.submission import Launch

__all__ = ["Executor"]


@dataclass(frozen=True)
class Executor:
    """Carries plans out in one folder.

    Attributes:
        directory: the folder of the sweep.
        project_root: the folder that the runs work in.
        template: the user's template of the submission scripts, whatever experiments name; None is theirs.
        controller: the cluster.
        say: tells the user what takes long.
        submit_timeout_s: how long to wait for a cluster that does not answer, or takes no more jobs.
        display: shows the progress of local runs; None chooses by the terminal.
    """

    directory: SweepDirectory
    project_root: Path
    template: Path | None
    controller: Controller
    say: Callable[[str], None]
    submit_timeout_s: float
    display: Display | None = None

    def held(self, mode: ExecutionMode) -> contextlib.AbstractContextManager[None]:
        """Hold the folder; a submission to Slurm, which is over soon, waits for another one.

        Args:
            mode: how runs are to be executed.
        """
        return held(self.directory, wait_s=LOCK_WAIT_S if mode is ExecutionMode.SLURM else 0.0, say=self.say)

    def problems(
        self,
        configs: Mapping[str, ExperimentConfig],
        mode: ExecutionMode,
        command: Sequence[str],
        keep_code: Collection[str] = (),
    ) -> dict[str, str]:
        """Why runs cannot be executed as asked, by their names; nothing has to be written to find it.

        Args:
            configs: the experiments by the names of the runs.
            mode: how they are to be executed.
            command: its words, placeholders not filled in.
            keep_code: the names of runs that go on with code of their own.
        """
        found = [script_problems(self.directory, configs, command, self.project_root, keep_code), check_setups(configs)]
        if mode is not ExecutionMode.LOCAL:
            found.append({name: draft.problem for draft in self.drafts(configs) for name in draft.runs})
        told = {name: [problems[name] for problems in found if problems.get(name)] for name in configs}
        return {name: "; ".join(reasons) for name, reasons in told.items() if reasons}

    def drafts(self, configs: Mapping[str, ExperimentConfig]) -> list[Draft]:
        """What sbatch would get for some runs, by kinds of jobs, and what is wrong with it."""
        from mtf_slurm.cluster.choosing import draft_scripts

        return draft_scripts(self.directory, configs, self._templates())

    def carry_out(
        self,
        plan: SweepPlan,
        mode: ExecutionMode,
        max_concurrent_jobs: int | None,
        *,
        single: bool = False,
        asked: str = "",
        resume_across_code: bool = False,
    ) -> Executed | None:
        """Write a plan and execute it; the caller holds the folder. None if there is nothing to do.

        Runs that would continue checkpoints of other code are left out, unless that was asked for.

        Args:
            plan: of the folder.
            mode: how the runs are executed.
            max_concurrent_jobs: how many run at a time.
            single: whether it is one experiment, submitted by itself.
            asked: how the runs were asked for explicitly, so that their budgets begin anew; empty if they were not.
            resume_across_code: whether checkpoints that other code has made may be continued.
        """
        plan, foreign = without_foreign(self.directory, plan, resume_across_code=resume_across_code)
        for line in by_reason(foreign):
            self.say(f"left out: {line}")
        done = self._execute(plan, mode, max_concurrent_jobs, single, asked) if plan.names else None
        return done if not foreign else replace(done or Executed({}), foreign=foreign)

    def _execute(
        self, plan: SweepPlan, mode: ExecutionMode, max_concurrent_jobs: int | None, single: bool, asked: str
    ) -> Executed:
        names = plan.names
        if mode is ExecutionMode.LOCAL:
            self._write(plan)
            return execute_locally(
                self.directory,
                names,
                max_concurrent_jobs,
                single=single,
                display=self.display,
                remarks=plan.changes(),
                asked=asked,
            )
        planner = self._planner(plan)
        if mode is ExecutionMode.DRY_RUN:
            self._write(plan)
            self._tell_changes(plan)
            return plan_only(planner, names, self._most_tasks(), max_concurrent_jobs, single=single)
        launch = self._launch(planner)
        launch.reach()
        self._write(plan)
        self._tell_changes(plan)
        return submit(launch, names, max_concurrent_jobs, single=single, asked=asked)

    def _write(self, plan: SweepPlan) -> None:
        for problem in estimate_room(self.directory, plan).problems:
            self.say(f"warning: {self.directory.path}: {problem}")
        with explain_write_errors(self.directory):
            write_plan(self.directory, plan)

    def _tell_changes(self, plan: SweepPlan) -> None:
        for line in plan.changes():
            self.say(line)

    def _templates(self) -> Templates:
        from mtf_slurm.cluster.choosing import Templates  # loads Jinja2

        return Templates(self.project_root, self.template)

    def _planner(self, plan: SweepPlan) -> SubmissionPlanner:
        from mtf_slurm.cluster.planning import SubmissionPlanner

        return SubmissionPlanner(self.directory, self._templates(), plan.configs)

    def _most_tasks(self) -> int:
        """How many tasks an array may have; where no cluster tells, what is usual."""
        from mtf_slurm.cluster.planning import most_tasks

        try:
            settings = self.controller.settings()
        except ClusterUnreachableError:
            settings = ClusterConfig()
        return most_tasks(settings.max_array_size, settings.max_job_count)

    def _launch(self, planner: SubmissionPlanner) -> Launch:
        from mtf_slurm.cluster.patience import Patience
        from mtf_slurm.cluster.submission import Launch  # loads tenacity

        return Launch(planner, self.controller, self.say, Patience(timeout_s=self.submit_timeout_s))
