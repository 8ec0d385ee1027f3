"""One run under the local launcher: its process, and what is remembered from attempt to attempt."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import IO

from mtf_slurm.processes import environment_of, is_alive, kill_group, kill_remains
from mtf_slurm.views import RunView
from mtf_utils.rundir import RunDirectory, StartReceipt

__all__ = ["Task"]


class Task:
    """One run.

    Attributes:
        run: its folder.
        attempt: the number of the attempt at work, or of the last one.
        tried: whether this launcher has made an attempt, or adopted one.
        seen: whether its evidence was looked at.
        over: whether this launcher has nothing more to do with it.
        view: how it was shown last; `changed` says that this may be outdated.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.name = run.name
        self.attempt = max((attempt.number for attempt in run.attempts()), default=0)
        self.tried = self.seen = self.over = False
        self.view: RunView | None = None
        self.changed = True
        self._begun = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: StartReceipt | None = None
        self._complaint: IO[bytes] | None = None

    def finish(self) -> None:
        """Have nothing more to do with it."""
        self.over = self.changed = True

    @property
    def active(self) -> bool:
        """Whether an attempt is at work."""
        return self._process is not None or self._adopted is not None

    def start(self, variables: dict[str, str]) -> None:
        """Start the next attempt with these variables added to the environment.

        Raises:
            OSError: bash cannot be started.
        """
        attempts = self.run.attempts()
        if attempts and (receipt := attempts[-1].started()) is not None and attempts[-1].finished() is None:
            kill_remains(self.run, receipt)
        self.attempt = max((attempt.number for attempt in attempts), default=0) + 1
        # a restart count of the allocation that the launcher itself runs in says nothing about this run
        environ = {key: value for key, value in os.environ.items() if key != "SLURM_RESTART_COUNT"}
        environ |= variables | {"MTF_FIRST_ATTEMPT": str(self.attempt), "MTF_JOB_ID": ""}
        complaint = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                ["bash", str(self.run.job_script)],
                cwd=self.run.path,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaint,
                start_new_session=True,  # a Ctrl-C at the terminal is for the launcher
            )
        except OSError:
            complaint.close()
            raise
        self._complaint = complaint
        self.tried = self.changed = True

    def adopt(self) -> None:
        """Wait for the attempt that another launcher left at work."""
        last = self.run.attempts()[-1]
        self.attempt = last.number
        self._adopted = last.started()
        self.tried = self.changed = True

    def adopted_gpu(self) -> str | None:
        """The GPU of the adopted attempt, if it can be seen."""
        return environment_of(self._adopted.pid).get("CUDA_VISIBLE_DEVICES") if self._adopted else None

    def has_ended(self) -> bool:
        """Whether the process of the attempt is gone; what a killed one left behind is ended too."""
        if self._process is None:
            return self._adopted is None or not is_alive(self.run, self._adopted)
        if self._process.poll() is None:
            return False
        if not self.run.attempt(self.attempt).finished_file.exists():
            kill_group(self._process.pid)
        return True

    def has_just_begun(self) -> bool:
        """Whether the attempt has written its start receipt since this was asked last; true once for each."""
        if self._begun == self.attempt or not self.run.attempt(self.attempt).started_file.exists():
            return False
        self._begun = self.attempt
        return True

    def close(self) -> str | None:
        """Take note of the attempt's end; returns what `job.sh` complained of, None if it did not fail by itself."""
        complaint = None
        if self._process is not None and self._complaint is not None:
            self._complaint.seek(0)
            text = self._complaint.read().decode("utf-8", "replace").strip()
            self._complaint.close()
            if self._process.returncode > 0:
                complaint = text or f"job.sh ended with status {self._process.returncode}"
        self._process = self._adopted = self._complaint = None
        self.changed = True
        return complaint

    def terminate(self) -> None:
        """Ask the attempt at work to save and end; `job.sh` passes it on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid(), signal.SIGTERM)

    def kill(self) -> None:
        """End the attempt at work at once, with everything that it started."""
        kill_group(self._pid())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid(), signal.SIGKILL)

    def _pid(self) -> int:
        process = self._process or self._adopted
        assert process is not None  # zero would mean our own process group
        return process.pid
