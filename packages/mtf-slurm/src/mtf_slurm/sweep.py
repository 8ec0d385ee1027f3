"""Plan a sweep: check what is asked against what is there, then write `sweep.json` and the folders of the runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from mtf_config import ExperimentConfig, ParameterGridSearch, RetryConfig, SweepPoint, run_identity
from mtf_config.identity import IDENTITY_FIELDS
from mtf_config.naming import slug
from mtf_config.writer import dump_yaml
from mtf_slurm.budgets import ask_for, has_checkpoints
from mtf_slurm.cluster.options import node_count, task_count, warning_s
from mtf_slurm.code.isolation import Code, code_file_of, lay_code, write_code_of_run
from mtf_slurm.code.record import CodeFile, workplace
from mtf_slurm.configurations import taken_by
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.render import JobScript, render_job
from mtf_slurm.room import Estimate
from mtf_slurm.wording import listed
from mtf_utils.atomic import write_text
from mtf_utils.rundir import Outcome, RunDirectory, RunDirectoryError, SweepDirectory, SweepFile, now

__all__ = [
    "FOREIGN",
    "SweepPlan",
    "SweepRequest",
    "code_change",
    "lone_point",
    "plan_sweep",
    "refuse_conflicts",
    "sweep_name",
    "without_foreign",
    "write_plan",
]


SYNCS_AT_ONCE: Final = 16
NAMED: Final = 20
"""How many names a line lists; all of them are in `sweep.json`."""
CHANGED: Final = "submitted with other code or settings"
FOREIGN: Final = (
    "its checkpoints were made by other code; --resume-across-code (resume_across_code=True) continues them with the "
    "code as it is now, and `mtf retry` with --same-code (same_code=True) goes on with the code that made them"
)


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What is asked for.

    Attributes:
        name: of the sweep.
        points: the runs.
        project_root: the folder that they work in.
        command: the words of the command, placeholders not filled in.
        base: the base configuration as written.
        grids: the grids as written.
        naming: the naming strategy.
        code: the code that the runs are to run.
        keep_code: the names of runs that go on with the code that is written down in their folders.
        additive: whether runs that are not asked for this time stay a part of the sweep.
    """

    name: str
    points: Sequence[SweepPoint]
    project_root: Path
    command: tuple[str, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    grids: Sequence[Mapping[str, Any]] = ()
    naming: str = ""
    code: Code
    keep_code: Collection[str] = ()
    additive: bool = False


@dataclass(frozen=True)
class SweepPlan:
    """What a request comes to in a folder.

    Attributes:
        sweep: the content of `sweep.json` to be.
        jobs: what each `job.sh` is made of, by the name of the run.
        configs: the experiments by the name of the run.
        code: the code of the runs that begin with it, and the inputs that have to be linked to it.
        kept_code: the names of runs that keep the code they have.
        new: the names of runs that were not there before.
        added: the names of runs that were no part of the sweep; none if the whole sweep is new.
        orphaned: the names of runs that are there and not asked for any more.
        conflicts: why a run cannot be planned, by its name.
        estimate: how much room it will take; None if nobody asked.
    """

    sweep: SweepFile
    jobs: Mapping[str, JobScript]
    configs: Mapping[str, ExperimentConfig]
    code: Code
    kept_code: frozenset[str]
    new: tuple[str, ...]
    added: tuple[str, ...]
    orphaned: tuple[str, ...]
    conflicts: Mapping[str, str]
    estimate: Estimate | None = None

    @property
    def links(self) -> tuple[str, ...]:
        """The inputs that runs need beside the code."""
        listed = (config.slurm.link for config in self.configs.values() if config.slurm)
        return tuple(dict.fromkeys(link for links in listed for link in links))

    def script(self, name: str) -> str:
        """The text of a run's `job.sh`, made when it is asked for: those of a large sweep would fill the memory."""
        return render_job(self.jobs[name])

    @property
    def names(self) -> tuple[str, ...]:
        """The runs that are asked for and can be planned, in order."""
        return tuple(self.configs)

    def changes(self) -> list[str]:
        """What is different from the sweep that the folder had before, as lines for a person; none if nothing is."""
        lines = []
        if self.added:
            lines.append(f"added to the sweep: {listed(self.added, NAMED)}")
        if self.orphaned:
            lines.append(f"no longer a part of the sweep, and left alone: {listed(self.orphaned, NAMED)}")
        return lines


def sweep_name(search: ParameterGridSearch) -> str:
    """The name of the folder of a sweep: that of its grids, and a hash of what they vary.

    A grid that is changed stays in its folder; another base, whose runs would all be others, gets one of its own.
    """
    base = {key: value for key, value in search.base_config.items() if key in IDENTITY_FIELDS}
    text = json.dumps([base, search.naming_strategy.value], sort_keys=True)
    return f"{slug('-'.join(grid.name for grid in search.grids))}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def lone_point(config: ExperimentConfig) -> SweepPoint:
    """An experiment that is submitted by itself, as a point of no grid."""
    return SweepPoint(config.experiment_name, "", {}, config, run_identity(config))


def plan_sweep(directory: SweepDirectory, request: SweepRequest) -> SweepPlan:
    """Work out what a request means for a folder, without writing anything.

    Raises:
        RunDirectoryError: a name is not safe, or `sweep.json` cannot be read.
        JobSubmissionError: a script cannot be rendered.
    """
    existing = directory.sweep()
    before = {run["name"]: run for run in existing.runs} if existing else {}
    taking_part = {name for name, run in before.items() if not run.get("orphaned")}
    folders = {name.casefold(): name for name in before}
    entries: dict[str, dict[str, Any]] = {}
    configs: dict[str, ExperimentConfig] = {}
    conflicts: dict[str, str] = {}
    for point in request.points:
        run = directory.run(point.name)
        if (other := folders.setdefault(point.name.casefold(), point.name)) != point.name:
            # also where it would do: folders are copied to file systems where it does not
            conflicts[point.name] = (
                f"there is {other!r}, whose folder would be the same where the file system does not tell capital "
                "letters from small ones"
            )
            continue
        known = entries.get(point.name) or before.get(point.name)
        identity = known["identity"] if known else _folder_identity(run)
        if identity not in (None, point.identity):
            conflicts[point.name] = taken_by(run, point.config)
            continue
        configs[point.name] = point.config
        entries[point.name] = {
            "name": point.name,
            "identity": point.identity,
            "grid": point.grid,
            "parameters": dict(point.parameters),
        }
    left = {name: run for name, run in before.items() if name not in entries}
    if not request.additive:
        left = {name: run | {"orphaned": True} for name, run in left.items()}
    runs = [*left.values(), *entries.values()] if request.additive else [*entries.values(), *left.values()]
    kept = {name: code for name in request.keep_code if (code := code_file_of(directory.run(name)))}
    jobs = {name: _job(config, request, kept.get(name, request.code.record)) for name, config in configs.items()}
    for job in jobs.values():
        render_job(job)  # now is the time to say that one cannot be
    return SweepPlan(
        sweep=_sweep_file(request, runs, existing),
        jobs=jobs,
        configs=configs,
        code=request.code,
        kept_code=frozenset(kept),
        new=tuple(name for name in configs if name not in before),
        added=() if request.additive or not before else tuple(name for name in configs if name not in taking_part),
        orphaned=tuple(run["name"] for run in runs if run.get("orphaned")),
        conflicts=conflicts,
    )


def refuse_conflicts(directory: SweepDirectory, conflicts: Mapping[str, str]) -> None:
    """Raise if there are conflicts.

    Raises:
        JobSubmissionError: some names are taken by other runs.
    """
    if conflicts:
        raise JobSubmissionError(
            f"{directory.path}: {_taken(len(conflicts))} ({listed(sorted(conflicts), 5)}: "
            f"{next(iter(conflicts.values()))}); choose another output folder or other names (hash-based names never "
            "clash)",
            reasons=conflicts,
        )


def _taken(count: int) -> str:
    return "a name is taken by another run" if count == 1 else f"{count} names are taken by other runs"


def write_plan(directory: SweepDirectory, plan: SweepPlan) -> None:
    """Write `sweep.json` and the folders of the runs; the caller holds the folder's lock.

    Files that would not change are left alone; what the runs have written is not touched.

    Raises:
        GitOperationError: the code cannot be laid into the folder.
        JobSubmissionError: a linked input is not there.
        OSError: something cannot be written; repeating the call completes it.
    """
    lay_code(directory, plan.code, plan.links)
    plan.sweep.write(directory.sweep_file)
    # A file system syncs many files in hardly more time than one.
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
        for _ in pool.map(lambda name: _write_run(directory.run(name), plan), plan.configs):
            pass


def _write_run(run: RunDirectory, plan: SweepPlan) -> None:
    for folder in (run.attempts_dir, run.logs_dir):  # job.sh makes those that are missing, at the cost of a program
        folder.mkdir(parents=True, exist_ok=True)
    data = plan.configs[run.name].to_dict()
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    script = plan.script(run.name)
    if _is_begun(run) and not (_reads(run.config_json, text) and _reads(run.job_script, script)):
        # noted first: should this be cut off here, the next call finds the change again
        ask_for(run, CHANGED, **({} if run.name in plan.kept_code else code_change(run, plan.code.record)))
    _replace(run.config_json, text)
    _replace(run.config_yaml, dump_yaml(data))
    if run.name not in plan.kept_code:
        write_code_of_run(run, plan.code)
    _replace(run.job_script, script, mode=0o777)


def code_change(run: RunDirectory, code: CodeFile) -> dict[str, str]:
    """Which snapshot's checkpoints other code is about to continue, as fields of an `Ask`; empty if that is not so."""
    before = code_file_of(run)
    if before is None or not before.tree or not code.tree or before.tree == code.tree or not has_checkpoints(run):
        return {}
    return {"code_before": before.tree, "code_after": code.tree}


def without_foreign(
    directory: SweepDirectory, plan: SweepPlan, *, resume_across_code: bool
) -> tuple[SweepPlan, dict[str, str]]:
    """A plan without the runs whose checkpoints other code has made, and why each of them is left out.

    Args:
        directory: the folder of the sweep.
        plan: for it.
        resume_across_code: whether such checkpoints may be continued; then nothing is left out.
    """
    if resume_across_code:
        return plan, {}
    new = (name for name in plan.configs if name not in plan.kept_code)
    left = {name: FOREIGN for name in new if code_change(directory.run(name), plan.code.record)}
    return replace(plan, configs={name: plan.configs[name] for name in plan.configs if name not in left}), left


def _is_begun(run: RunDirectory) -> bool:
    """Whether the run has attempts that could count against its budgets."""
    attempts = run.attempts()
    if not attempts or run.counts_from() > attempts[-1].number:
        return False
    with contextlib.suppress(RunDirectoryError):  # whoever decides about the run is told
        receipt = attempts[-1].finished()
        return receipt is None or receipt.outcome is not Outcome.FINISHED
    return False


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


def _replace(path: Path, text: str, *, mode: int = 0o666) -> None:
    if not _reads(path, text):
        write_text(path, text, mode=mode)


def _job(config: ExperimentConfig, request: SweepRequest, code: CodeFile) -> JobScript:
    return JobScript(
        name=config.experiment_name,
        project_root=request.project_root,
        place=workplace(code),
        command=request.command,
        python=sys.executable,
        setup=tuple(config.slurm.setup) if config.slurm else (),
        signals=tuple(config.preemption.signals),
        deterministic=config.deterministic,
        nodes=node_count(config.slurm),
        tasks=task_count(config.slurm),
        max_preemptions=config.preemption.max_preemptions,
        retries=(config.slurm.retries if config.slurm else None) or RetryConfig(),
        warning_s=warning_s(config.slurm, config.preemption),
        checkpoints=config.checkpoint.checkpoint_dir,
    )


def _sweep_file(request: SweepRequest, runs: list[dict[str, Any]], existing: SweepFile | None) -> SweepFile:
    return SweepFile(
        name=request.name,
        base=dict(request.base),
        grids=[dict(grid) for grid in request.grids],
        naming=request.naming,
        command=list(request.command),
        runs=runs,
        code=request.code.record.to_dict(),
        versions=_versions(),
        created_at=existing.created_at if existing else now(),
    )


def _folder_identity(run: RunDirectory) -> str | None:
    """The identity of a run that has a folder although `sweep.json` does not know it; None if there is no folder."""
    try:
        text = run.config_json.read_text("utf-8")
    except FileNotFoundError:
        return None
    try:
        return run_identity(ExperimentConfig.from_dict(json.loads(text)))
    except ValueError:
        return "unreadable"


def _versions() -> dict[str, str]:
    packages: Iterable[str] = ("mtf-utils", "mtf-config", "mtf-slurm")
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python} | {package: metadata.version(package) for package in packages}
