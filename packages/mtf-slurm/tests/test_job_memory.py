"""job.sh knows, without Slurm, that the kernel has killed its command for want of memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from control_groups import HUNGRY, LIMIT_MB, enter, memory_group
from job_folders import Counter, Script, Slurm

from mtf_config import RetryConfig
from mtf_slurm.evidence import read_attempts
from mtf_slurm.judgement import judge
from mtf_slurm.policy import Cause, causes
from mtf_slurm.status import Evidence, JobStatus

KILLED = "import os; os.kill(os.getpid(), 9)"
A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HUNGRY!r}], check=True)"
FIGURE = re.compile(r"up to ([0-9]+)M in use")


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def end_of(script: Script) -> tuple[JobStatus, str, Cause]:
    """What is said of a run after its only attempt."""
    evidence = Evidence(attempts=read_attempts(script.run))
    verdict = judge(evidence)
    return verdict.status, verdict.reason, causes(evidence)[1]


def test_a_command_that_the_kernel_killed_for_want_of_memory(script: Script) -> None:
    with memory_group("few") as group:
        script.write(HUNGRY, setup=(enter(group),))
        assert script.execute()[0] == 1
    status, reason, cause = end_of(script)
    assert (status, cause) == (JobStatus.OUT_OF_MEMORY, Cause.OUT_OF_MEMORY)
    assert (script.receipt().outcome, script.receipt().exit_status) == ("failed", 137)
    found = re.fullmatch(rf"out of memory \({FIGURE.pattern}\)", reason)
    assert found is not None, reason
    assert LIMIT_MB - 8 <= int(found[1]) <= LIMIT_MB
    assert FIGURE.fullmatch(read_attempts(script.run)[0].peak_memory)


def test_what_was_killed_before_or_by_hand_is_not_taken_for_it(script: Script) -> None:
    with memory_group("few") as group:
        before = f"({enter(group)}; {sys.executable} -c '{HUNGRY}') || true"
        script.write(KILLED, setup=(enter(group), before))
        assert script.execute()[0] == 1
    status, reason, cause = end_of(script)
    assert (status, cause) == (JobStatus.FAILED, Cause.NODE_FAILURE)
    assert reason == "killed by SIGKILL, by hand or for want of memory"


@pytest.mark.parametrize(
    ("name", "status", "cause"),
    [
        ("few", JobStatus.FAILED, Cause.FAILURE),
        ("job_79/step_batch", JobStatus.FAILED, Cause.FAILURE),
        ("job_80/step_batch", JobStatus.OUT_OF_MEMORY, Cause.OUT_OF_MEMORY),
    ],
)
def test_a_process_of_the_command_counts_where_no_other_job_is(
    script: Script, name: str, status: JobStatus, cause: Cause
) -> None:
    with memory_group(name) as group:
        script.write(A_CHILD, setup=(enter(group),))
        assert script.execute(SLURM_JOB_ID="80")[0] == 1
    assert end_of(script)[::2] == (status, cause)
    assert script.receipt().exit_status == 1


def test_the_job_does_not_try_it_again_with_as_little(script: Script) -> None:
    slurm = Slurm(script)
    slurm.answer("squeue", "echo RUNNING None 1:00:00")
    slurm.answer("scontrol", "exit 0")
    with memory_group("job_80/step_batch") as group:
        script.write(A_CHILD, setup=(enter(group),), retries=RetryConfig(failure=5))
        assert slurm.execute()[0] == 1
    assert slurm.asked() == []


def test_nobody_counts(script: Script) -> None:
    """As in a container without its own view of control groups: what is known is said as before."""
    script.write(KILLED)
    namespace = ["unshare", "--mount", "bash", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec bash "$0"']
    done = subprocess.run([*namespace, script.run.job_script], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (1, "")
    assert end_of(script)[:2] == (JobStatus.FAILED, "killed by SIGKILL, by hand or for want of memory")
    assert script.run.log_file(1).read_text() == ""


def test_looking_takes_no_program(script: Script, tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    script.run.attempts_dir.mkdir()  # as the launcher leaves it
    script.run.logs_dir.mkdir()
    with memory_group("few") as group:
        script.write(HUNGRY, setup=(enter(group),))
        script.execute(PATH=str(counter.programs))
    assert counter.seen() == ["bash", "mkdir", "sync", "mv"]
