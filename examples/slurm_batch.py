"""Submit a batch of trainings to Slurm, look how they stand, wait for them, and tell what came of each.

    pip install model-training-framework scikit-learn
    mtf cluster up && eval "$(mtf cluster env)"      # where there is no Slurm: a throw-away one on this machine
    python examples/slurm_batch.py

Every experiment is submitted exactly once, however often this is called, and whatever becomes of the call. A job that
is preempted is queued again and goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from model_training_framework.config import ConfigurationManager, ExecutionMode, ExperimentConfig, SLURMConfig
from model_training_framework.slurm import GridSearchResult, JobStatus, SLURMLauncher

PROJECT = Path(__file__).resolve().parent / "compute_node_only"  # train.py and its configuration
SEEDS = range(4)


def describe_experiments() -> list[ExperimentConfig]:
    """The same training from four seeds; what they ask of the cluster is the same, so they become one job array."""
    base = ConfigurationManager(PROJECT, PROJECT).load_experiment("config.json")
    resources = SLURMConfig(time_limit="00:10:00", cpus_per_task=1, mem="2G")
    return [replace(base, experiment_name=f"digits-seed{seed}", seed=seed, slurm=resources) for seed in SEEDS]


def main() -> int:
    """Submit, wait, and report; 0 if every training finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("experiments"), help="the folder for the runs")
    output = parser.parse_args().output.resolve()

    launcher = SLURMLauncher(None, output, project_root=PROJECT)
    batch = launcher.submit_experiment_batch(describe_experiments(), ExecutionMode.SLURM, max_concurrent_jobs=2)
    for name, reason in batch.failed.items():
        print(f"{name} was not submitted: {reason}")
    for name in batch.successful:
        job_id = batch.job_ids[name]
        print(f"{name}: job {job_id}, {launcher.get_job_status(job_id).value}")

    runs = GridSearchResult.load(output / "single").wait(timeout_s=600)  # from any process, at any time
    for run in runs:
        done = run.status is JobStatus.COMPLETED
        outcome = f"val_accuracy {run.metrics['val_accuracy']:.4f}" if done else run.reason
        print(f"{run.name}: {run.status.value} after {run.attempts} attempt(s): {outcome}")
    return 0 if runs.is_complete and not batch.failed else 1


if __name__ == "__main__":
    sys.exit(main())
