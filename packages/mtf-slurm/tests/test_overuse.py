"""What is made of what the daemon of a node writes into the output of a job, as that of 22.05.8 wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtf_slurm import JobStatus
from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.overuse import TAIL_BYTES, for_want_of_memory, may_have_been, read_overuse

SAID = """\
slurmstepd-node1: error: StepId=12.batch exceeded memory limit (331501568 > 104857600), being killed
slurmstepd-node1: error: Exceeded job memory limit
slurmstepd-node1: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-30T22:54:55 ***
slurmstepd-node1: error: StepId=12.batch exceeded memory limit (341501568 > 104857600), being killed
0: slurmstepd-node2: error: StepId=7.0 exceeded memory limit (328294400 > 104857600), being killed
StepId=8.0 exceeded memory limit, said a run
"""


def ended(number: str, state: JobStatus = JobStatus.FAILED, signal: int | None = 9) -> TaskState:
    return TaskState("4_7", "grid.0", state, "JobLaunchFailure", "squeue", number=number, signal=signal, memory="100M")


def test_a_job_is_told_by_its_own_number(tmp_path: Path) -> None:
    (tmp_path / "out").write_text(SAID)
    said = [read_overuse(tmp_path / "missing"), read_overuse(tmp_path / "out")]
    task = for_want_of_memory(ended("12"), said)
    assert (task.state, task.source, task.memory) == (JobStatus.OUT_OF_MEMORY, "slurmstepd", "100M")
    assert task.reason == "StepId=12.batch exceeded memory limit (341501568 > 104857600)"
    assert task.peak_memory == "326M"
    assert for_want_of_memory(ended("7"), said).state is JobStatus.OUT_OF_MEMORY
    for other in ("1", "2", "8", "127", ""):
        assert for_want_of_memory(ended(other), said) == ended(other)


def test_the_end_of_a_long_output_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x\n" * TAIL_BYTES + SAID)
    assert set(read_overuse(tmp_path / "out")) == {"12", "7"}


@pytest.mark.parametrize(
    ("task", "killed", "may"),
    [
        (ended("1"), False, True),
        (ended("1", signal=None), True, True),  # its command was killed, and the job ended by itself
        (ended("1", signal=None), False, False),
        (ended("1", JobStatus.CANCELLED), True, False),
        (ended("1", JobStatus.RUNNING), True, False),
    ],
)
def test_what_slurm_says_otherwise_stands(task: TaskState, killed: bool, may: bool) -> None:
    assert may_have_been(task, killed) is may
