"""What became of a batch of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mtf_slurm.execute import Executed
from mtf_slurm.sweep import SweepPlan

__all__ = ["BatchSubmissionResult", "batch_result"]

_NO_ID: Final = "it may be in Slurm, but no id of its job is known; the same call, repeated, finds out"


@dataclass(frozen=True, kw_only=True)
class BatchSubmissionResult:
    """What became of a batch.

    Attributes:
        successful: the names of the experiments that were submitted, or were before and need not be again; in order.
        failed: why an experiment was not submitted, by its name; every name of the batch is either here or there.
        job_ids: the job id of each name in `successful`.
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
    failed |= done.refused | done.held | done.foreign
    job_ids = {name: done.job_ids[name] for name in plan.names if name in done.job_ids and name not in failed}
    nowhere = {name: _NO_ID for name in plan.names if name not in job_ids and name not in failed}
    return BatchSubmissionResult(successful=tuple(job_ids), failed=failed | nowhere, job_ids=job_ids)
