"""A stop that is asked for before the job's time limit, and what the environment says of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtf_trainer.preemption import StopFlag
from mtf_trainer.timelimit import TIME_LIMIT, SaveBounds, TimeLimit, job_end
from mtf_utils.rundir import Outcome, RunDirectory
from mtf_utils.sections import PreemptionConfig

TASK = Path(__file__).with_name("exact_task.py")


@pytest.mark.parametrize(
    ("text", "end"), [("1700000000", 1.7e9), ("", None), ("soon", None), ("nan", None), ("inf", None), ("0", None)]
)
def test_the_end_of_the_job(text: str, end: float | None) -> None:
    assert job_end({"SLURM_JOB_END_TIME": text}) == end
    assert job_end({}) is None


def test_the_lead_covers_the_save_and_the_longest_way_to_a_save_point() -> None:
    elapsed = iter([0.0, 1.0, 8.0, 9.0])
    limit = TimeLimit(StopFlag(), 1000.0, lambda: 20.0, clock=lambda: 900.0, elapsed=lambda: next(elapsed))
    assert limit.left_s() == 100.0
    assert limit.spare_s() == 100.0 - 5.0 - 30.0
    for _ in range(4):
        limit.save_point()
    assert limit.spare_s() == 100.0 - 5.0 - 30.0 - 14.0


def test_the_flag_is_set_when_nothing_is_left_to_spare() -> None:
    flag = StopFlag()
    limit = TimeLimit(flag, time.time() + 3600, lambda: 0.0)
    limit.start()
    assert not flag.requested
    limit.close()
    late = TimeLimit(flag, time.time() + 3, lambda: 0.0)
    late.start()
    end = time.monotonic() + 60
    while not flag.requested:
        assert time.monotonic() < end
    assert flag.signal_name == TIME_LIMIT


@pytest.mark.parametrize(
    ("elapsed_s", "estimate_s", "left_s"),
    [(0, 5, 60), (20, 5, 40), (54, 5, 6), (55, 5, 60), (60, 5, 60), (300, 5, 60), (20, None, 40), (300, None, 60)],
)
def test_the_grace_period_begins_anew_where_a_save_does_not_fit_into_it(
    elapsed_s: float, estimate_s: float | None, left_s: float
) -> None:
    now = iter([100.0, 100.0 + elapsed_s])
    flag = StopFlag(clock=lambda: next(now))
    flag.request("SIGUSR1")
    bounds = SaveBounds(PreemptionConfig(grace_period_seconds=60), flag, lambda: estimate_s)
    assert bounds.left_s() == left_s


LATE = """
import sys
from pathlib import Path
import exact_task
from mtf_trainer import PreemptionConfig, TrainingCallback

class Late(TrainingCallback):
    def on_batch_end(self, trainer, batch_idx, logs):
        if trainer.global_step == 2:
            import os, signal
            os.kill(os.getpid(), signal.SIGTERM)

trainer, train = exact_task.prepare(Path(sys.argv[1]), preemption=PreemptionConfig(grace_period_seconds=1e-6))
trainer.add_callback(Late())
train()
"""


def test_a_save_that_is_late_leaves_a_preempted_attempt(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    attempt = run.attempt(1)
    attempt.path.mkdir(parents=True)
    environ = {
        "MTF_RUN_DIR": str(run.path),
        "MTF_ATTEMPT": "1",
        "PYTHONPATH": f"{TASK.parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [sys.executable, "-c", LATE, str(run.path)]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "PreemptionTimeoutError: the checkpoint was not durable within 1e-06 s" in done.stderr
    receipt = attempt.finished()
    assert receipt is not None
    assert receipt.outcome is Outcome.PREEMPTED
    assert receipt.reason is not None
    assert receipt.reason.startswith("stopped by SIGTERM, and not saved in time: the checkpoint was not durable")
    assert "the last durable one is intact" in receipt.reason


def test_a_run_leaves_before_its_time_limit_and_goes_on_in_the_next_job(tmp_path: Path) -> None:
    def run(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TASK), str(folder)]
        return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=120)

    stopped = run(tmp_path / "limited", SLURM_JOB_END_TIME=str(int(time.time()) + 4))
    assert stopped.returncode == 75, stopped.stderr
    assert TIME_LIMIT in stopped.stderr
    assert run(tmp_path / "limited").returncode == 0
    assert run(tmp_path / "whole").returncode == 0
    digests = [(tmp_path / name / "digest.json").read_text() for name in ("limited", "whole")]
    assert digests[0] == digests[1]
