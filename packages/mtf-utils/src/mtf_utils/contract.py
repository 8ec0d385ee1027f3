"""What lies where in the folder of a sweep, who writes it, who reads it, and in which version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mtf_utils.records import Ask, FinishReceipt, GoalFile, Record, RunResultFile, StartReceipt, SweepFile

__all__ = ["CONTRACT", "FileContract"]


@dataclass(frozen=True)
class FileContract:
    """One file or folder of a run directory.

    Attributes:
        path: relative to the sweep's folder; `<name>`, `<n>` and `<token>` stand for what varies.
        writer: who writes it.
        readers: who reads it.
        version: version of its schema; None where the format has one of its own or needs none.
        schema: the record class of a JSON file; None for other formats.
        content: what it holds.
    """

    path: str
    writer: str
    readers: str
    content: str
    version: int | None = None
    schema: type[Record] | None = None


CONTRACT: Final = (
    FileContract("sweep.json", "launcher", "launcher, results", "what was asked", 1, SweepFile),
    FileContract("report.html", "launcher", "people", "the sweep to look at, where asked for"),
    FileContract(".lock", "launcher", "launcher", "held (flock) by the one launcher at work in this folder"),
    FileContract("submissions/<token>/intent.json", "launcher", "launcher", "which runs, as which jobs", 1),
    FileContract("submissions/<token>/<k>.sh", "launcher", "sbatch, people", "what sbatch gets for job k"),
    FileContract("submissions/<token>/<k>.task.sh", "launcher", "<k>.sh", "does the runs that share a task of job k"),
    FileContract("submissions/<token>/<k>.tasks", "launcher", "<k>.sh", "a line a task: its first attempt and its run"),
    FileContract(
        "submissions/<token>/<k>.sent",
        "launcher",
        "launcher",
        "when sbatch was called last; locked while it works",
    ),
    FileContract("submissions/<token>/<k>.job.json", "launcher", "launcher", "the id of job k, and who said it", 1),
    FileContract("submissions/<token>/<k>.refused", "launcher", "launcher, people", "why Slurm does not take job k"),
    FileContract("submissions/<token>/<k>.out", "Slurm", "people", "output of <k>.sh; the runs have logs of their own"),
    FileContract("submissions/<token>/cancelled/<name>", "launcher", "launcher, job.sh", "the run was withdrawn"),
    FileContract("submissions/<token>/given-up/<name>", "launcher", "launcher", "why the run is not tried again"),
    FileContract("code/<tree-hash>/", "launcher", "job.sh", "the code that runs, one copy per snapshot"),
    FileContract("runs/<name>/config.yaml", "launcher", "people", "the resolved experiment"),
    FileContract("runs/<name>/config.json", "launcher", "trainer, results", "the same, for the standard library"),
    FileContract("runs/<name>/job.sh", "launcher", "bash", "runs one attempt; the same file in every mode"),
    FileContract("runs/<name>/code.json", "launcher", "launcher, people", "which code the run belongs to", 1),
    FileContract("runs/<name>/code.diff", "launcher", "people", "how that code differs from its commit"),
    FileContract("runs/<name>/attempts/<n>/", "job.sh", "all", "the claim: an atomic mkdir; n counts from 1"),
    FileContract("runs/<name>/attempts/<n>/started.json", "job.sh", "launcher", "who runs it", 1, StartReceipt),
    FileContract(
        "runs/<name>/attempts/<n>/finished.json",
        "trainer (preempted), else job.sh",
        "job.sh, launcher, results",
        "how it ended",
        1,
        FinishReceipt,
    ),
    FileContract(
        "runs/<name>/asked/<n>.json",
        "launcher",
        "job.sh, launcher",
        "who asked for it again when: attempts before n do not count any more",
        1,
        Ask,
    ),
    FileContract(
        "runs/<name>/attempts/<n>/before.txt",
        "job.sh",
        "job.sh, launcher",
        "bytes of metrics and names of checkpoints when it started, if there were any: shows attempts without progress",
    ),
    FileContract(
        "runs/<name>/attempts/<n>/time-limit", "job.sh (in Slurm)", "job.sh, launcher", "its time was up: no preemption"
    ),
    FileContract(
        "runs/<name>/attempts/<n>/out-of-memory", "job.sh", "job.sh, launcher", "it ended for want of memory; the peak"
    ),
    FileContract(
        "runs/<name>/attempts/<n>/task-<rank>", "job.sh (under srun)", "job.sh", "the status of a task that was stopped"
    ),
    FileContract("runs/<name>/logs/attempt-<n>.log", "job.sh", "people", "output of the attempt"),
    FileContract("runs/<name>/checkpoints/", "trainer", "trainer", "checkpoint folders; own manifest version"),
    FileContract("runs/<name>/ledger.json", "trainer", "trainer, people", "what became of the attempts at training", 1),
    FileContract("runs/<name>/ledger.trail", "trainer", "trainer", "where training is, should it end without a word"),
    FileContract("runs/<name>/metrics.jsonl", "trainer", "results, people", "one record a line", 1),
    FileContract("runs/<name>/metrics.csv", "trainer", "people", "the same as a table, where asked for"),
    FileContract("runs/<name>/tensorboard/", "trainer", "TensorBoard", "the same as an event file, where asked for"),
    FileContract("runs/<name>/media/", "trainer", "people", "logged images; metrics.jsonl says when and what"),
    FileContract("runs/<name>/profile/", "trainer", "people", "traces of torch.profiler"),
    FileContract("runs/<name>/goal.json", "trainer", "displays", "how far training is to go", 1, GoalFile),
    FileContract("runs/<name>/result.json", "trainer", "results", "what training came to", 1, RunResultFile),
)
"""Every file of a sweep's folder: path, writer, readers, content, schema."""
