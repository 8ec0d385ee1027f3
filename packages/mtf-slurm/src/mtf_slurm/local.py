"""Run the runs of a folder on this machine, N at a time, until each is over."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from mtf_slurm.budgets import hold_of
from mtf_slurm.configurations import objection
from mtf_slurm.decisions import Decision, Step, decide
from mtf_slurm.errors import LaunchInterrupted, SLURMError, by_reason
from mtf_slurm.evidence import Witness
from mtf_slurm.interrupts import Interrupts, listening
from mtf_slurm.policy import Cause, Hold
from mtf_slurm.processes import visible_gpus
from mtf_slurm.slots import Slots
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import Submission, Submissions
from mtf_slurm.task import Task
from mtf_slurm.views import Display, RunView, view_run
from mtf_slurm.wording import counted
from mtf_utils.rundir import RunDirectoryError, SweepDirectory

__all__ = ["LocalRunner"]

logger = logging.getLogger(__name__)

SHOW_EVERY_S: Final = 0.5
REASONS_TOLD: Final = 10


class LocalRunner:
    """Carries out a local submission: starts `job.sh` of its runs, N at a time, and again where that is due.

    A run that was preempted, or killed in a way that nothing can catch, is started again at once; one that failed is
    not, until it is submitted again. An attempt still at work from a launcher that was killed is waited for.

    The caller holds the folder's lock. SIGINT, SIGTERM and SIGHUP let every run save and end; a second SIGINT kills.

    Args:
        directory: the folder of the sweep.
        submission: the runs and their token.
        max_concurrent: how many run at a time; None: as many as there are GPUs, and one if there are none.
        display: shows the progress; None shows nothing.
        gpus: the GPUs to deal out; None finds those that this process may use.
        poll_s: seconds between two looks at the processes.
        clock: a monotonic clock, in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        directory: SweepDirectory,
        submission: Submission,
        *,
        max_concurrent: int | None = None,
        display: Display | None = None,
        gpus: Sequence[str] | None = None,
        poll_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if max_concurrent is not None and max_concurrent < 1:
            raise SLURMError(f"max_concurrent_jobs={max_concurrent}: expected a number from 1, or None")
        self.directory = directory
        self.submission = submission
        devices = list(visible_gpus() if gpus is None else gpus)
        self._display = display
        self._poll_s, self._clock, self._sleep = poll_s, clock, sleep
        self._marks = Submissions(directory)
        sweep = directory.sweep()
        self._identities = {run["name"]: run["identity"] for run in sweep.runs} if sweep else {}
        # of the whole sweep, not of what is left of it: the number of threads changes results in their last digits
        most = 1 if submission.single else max(1, len(self._identities))
        self._slots = Slots(min(max_concurrent or max(1, len(devices)), most), devices)
        self._tasks = [Task(directory.run(name)) for name in submission.runs]
        self._witness = replace(Witness.look(directory, names=submission.runs), launcher_at_work=True)
        self._interrupts = Interrupts()
        self._shown_at = float("-inf")
        self.refused: dict[str, str] = {}
        """Runs that could not be started at all, and why."""
        self.held: dict[str, str] = {}
        """Runs that were left out because their budgets were used up, or they refuse themselves, and why."""
        self._left: dict[str, str] = {}
        self.unnoted = self._witness.unnoted
        """Why runs were given up, by token and name, where the disk took no note of it."""

    def run(self) -> None:
        """Work until every run is over.

        Raises:
            LaunchInterrupted: the launcher was told to stop; every run has ended, and a repeated call continues.
        """
        with listening(self._interrupts):
            try:
                while self._turn():
                    self._sleep(self._poll_s)
            except BaseException:
                # nobody will look after them: let them save and end; a repeated call continues
                self._pass_on_stop()
                raise
            finally:
                self._close()
        if self._interrupts.requested and (left := self._unfinished()):
            signal_name = self._interrupts.signal_name
            message = (
                f"stopped by {signal_name}: {len(left)} of {counted(len(self._tasks), 'run')} unfinished; "
                f"repeat the same call with {self.directory.path} to continue"
            )
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"{message}\n")  # Python says nothing of an exception that carries a status
            raise LaunchInterrupted(message, unfinished=left, output_dir=self.directory.path, signal_name=signal_name)

    def _turn(self) -> bool:
        """One round of work; whether there is more to wait for."""
        for task in self._tasks:
            if task.active and task.has_ended():
                self._slots.give_back(task.name)
                self._settle(task)
            elif task.active and task.has_just_begun() and self._marks.is_cancelled(self.submission, task.name):
                # who cancels a run leaves a mark, and then tells it if it has made its claim: one of the two is seen
                task.terminate()
        if self._interrupts.requested:
            self._stop()
            waiting = False
        else:
            waiting = self._start_due()
        self._show()
        return waiting or any(task.active for task in self._tasks)

    def _settle(self, task: Task) -> None:
        """Take note of how an attempt ended; what follows is decided when its turn comes."""
        reason = task.close()
        if reason is not None and not task.run.attempt(task.attempt).started_file.exists():
            self._give_up(task, reason)  # the command never ran

    def _start_due(self) -> bool:
        """Start what may start now; whether something waits for its turn."""
        waiting = False
        for task in self._tasks:
            if task.over or task.active:
                continue
            if self._slots.free or not task.seen:
                task.seen = True
                self._act(task, self._decide(task))
            waiting = waiting or not task.over
        return waiting

    def _decide(self, task: Task) -> Decision:
        try:
            evidence = self._witness.evidence(task.name)
        except RunDirectoryError as error:
            return Decision(Step.GIVE_UP, str(error))
        return decide(evidence, hold_of(task.run, evidence))

    def _act(self, task: Task, decision: Decision) -> None:
        if decision.step is Step.ADOPT:
            self._adopt(task)
        elif decision.step is Step.START and self._slots.free:
            self._start(task)
        elif decision.step is Step.DONE:
            task.finish()
        elif decision.hold is not None:
            self._hold(task, decision.hold)
        elif decision.step is Step.GIVE_UP:
            self._give_up(task, decision.reason)

    def _start(self, task: Task) -> None:
        if reason := objection(task.run, self._identities[task.name]):
            self._give_up(task, reason)
            return
        slot = self._slots.take(task.name)
        try:
            task.start(self._slots.environment(slot) | {"MTF_TOKEN": self.submission.token})
        except OSError as error:
            self._slots.give_back(task.name)
            self._give_up(task, f"job.sh cannot be started: {error}")

    def _adopt(self, task: Task) -> None:
        task.adopt()
        self._slots.take(task.name, gpu=task.adopted_gpu())
        self._say(f"{task.name}: attempt {task.attempt} is still at work, waiting for it")

    def _give_up(self, task: Task, reason: str) -> None:
        if not task.tried and task.name not in self.held:
            self._left[task.name] = reason
        task.finish()
        if not any(attempt.started_file.exists() for attempt in task.run.attempts()):
            self.refused[task.name] = reason
        try:
            self._marks.give_up(self.submission, task.name, reason)
        except OSError as error:
            self.unnoted[self.submission.token, task.name] = reason
            logger.warning("%s: %s (this cannot be noted on disk: %s)", task.name, reason, error.strerror)

    def _hold(self, task: Task, hold: Hold) -> None:
        if not task.tried:
            self.held[task.name] = hold.reason
        if hold.cause in (Cause.FAILURE, Cause.OUT_OF_MEMORY, Cause.ITSELF):
            task.finish()  # the receipt says it all
        else:
            self._give_up(task, hold.reason)

    def _stop(self) -> None:
        if self._interrupts.announce():
            running = sum(task.active for task in self._tasks)
            self._say(f"{self._interrupts.signal_name}: {running} runs save and end; Ctrl-C again kills them")
            self._pass_on_stop()
        elif self._interrupts.escalate():
            self._say("killing the runs")
            for task in self._tasks:
                if task.active:
                    task.kill()

    def _unfinished(self) -> list[str]:
        left = [task for task in self._tasks if not task.over]
        return [task.name for task in left if self._decide(task).step not in (Step.DONE, Step.HOLD)]

    def _pass_on_stop(self) -> None:
        for task in self._tasks:
            if task.active:
                task.terminate()

    def _say(self, text: str) -> None:
        if self._display is not None:
            self._display.say(text)

    def _show(self) -> None:
        if self._display is not None and self._clock() - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = self._clock()
            self._display.update([self._view(task) for task in self._tasks])

    def _close(self) -> None:
        """Show how it ended: from now on nothing is started without being asked."""
        if self._display is None:
            return
        self._witness = replace(self._witness, launcher_at_work=False)
        for task in self._tasks:
            task.changed = True
        self._display.update([self._view(task) for task in self._tasks])
        reasons = by_reason(self._left)
        for line in reasons[:REASONS_TOLD]:
            self._say(f"not run here: {line}")
        if len(reasons) > REASONS_TOLD:
            self._say(f"not run here: {len(reasons) - REASONS_TOLD} more, for reasons like these")
        self._display.close()

    def _view(self, task: Task) -> RunView:
        if task.view is None or task.changed:
            view = view_run(self._witness, task.run)
            if task.active and view.status is JobStatus.UNKNOWN:
                view = replace(view, status=JobStatus.PENDING, reason="")  # about to write its receipt
            task.view, task.changed = view, task.active
        return task.view
