"""What became of a batch of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtf_slurm.execute import Executed
from mtf_slurm.sweep import SweepPlan

__all__ = ["BatchSubmissionResult", "batch_result"]


@dataclass(frozen=True, kw_only=True)
class BatchSubmissionResult:
    """What became of a batch.

    Attributes:
        successful: the names whose experiments were all submitted, in order.
        failed: why an experiment could not be submitted, by its name; no such name is in `successful`, not even where
            another experiment of that name was submitted.
        job_ids: the job id of every submitted experiment, by its name.
    """

    successful: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    job_ids: Mapping[str, str] = field(default_factory=dict)


def batch_result(plan: SweepPlan, done: Executed | None, problems: Mapping[str, str]) -> BatchSubmissionResult:
    """What became of a planned batch.

    Args:
        plan: of the experiments that could be planned.
        done: what became of them; None if there were none.
        problems: why others could not be planned, by their names.
    """
    failed = dict(plan.conflicts) | dict(problems)
    if done is None:
        return BatchSubmissionResult(failed=failed)
    left_out = done.refused | done.held
    submitted = tuple(name for name in plan.names if name not in left_out)
    return BatchSubmissionResult(
        successful=tuple(name for name in submitted if name not in failed),
        failed=failed | left_out,
        job_ids={name: done.job_ids[name] for name in submitted if name in done.job_ids},
    )
