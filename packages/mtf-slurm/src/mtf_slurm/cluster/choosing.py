"""Which template the script of a run's job is made from, and whether anything is wrong with what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mtf_config import ExperimentConfig, SLURMConfig
from mtf_slurm.cluster.batches import Pack, Request, group_runs
from mtf_slurm.cluster.options import sbatch_options
from mtf_slurm.cluster.script import BEGIN_OF_BODY, JobScriptSpec, SubmissionTemplate, slurm_job_name
from mtf_slurm.errors import JobSubmissionError, SLURMError
from mtf_utils.rundir import SweepDirectory

__all__ = ["Draft", "Templates", "draft_scripts"]

_NO_TOKEN: Final = "token"  # noqa: S105 - stands where a submission has its own


@dataclass(frozen=True)
class Templates:
    """The templates of a launcher's submissions; each file is read once.

    Attributes:
        project_root: where relative paths begin that no file has anchored.
        chosen: the one that the caller named; it wins over what experiments say.
    """

    project_root: Path
    chosen: Path | None = None
    _read: dict[str, SubmissionTemplate] = field(default_factory=dict)

    def path_for(self, config: ExperimentConfig) -> str:
        """The template of an experiment; empty for the built-in one."""
        named = self.chosen or (config.slurm.template_path if config.slurm else None)
        return "" if named is None else str(self.project_root / Path(named).expanduser())

    def get(self, path: str) -> SubmissionTemplate:
        """The template of that path.

        Raises:
            SLURMError: it cannot be read or parsed, or uses names that there are not.
        """
        if not path:
            return SubmissionTemplate.built_in()
        if path not in self._read:
            self._read[path] = SubmissionTemplate.read(Path(path))
        return self._read[path]


@dataclass(frozen=True)
class Draft:
    """What sbatch would get for some runs, but for names that only a submission has.

    Attributes:
        template: the path of the template; empty for the built-in one.
        text: the script; empty if there is a problem.
        problem: why there cannot be one; empty if there can.
        runs: their names.
    """

    template: str
    text: str
    problem: str
    runs: tuple[str, ...]

    @property
    def head(self) -> str:
        """The part of the script that the template makes; the rest is the same everywhere."""
        return self.text.partition(BEGIN_OF_BODY)[0].rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The draft as plain data."""
        return {
            "template": self.template or None,
            "runs": list(self.runs),
            "text": self.text or None,
            "problem": self.problem or None,
        }


def draft_scripts(
    directory: SweepDirectory, configs: Mapping[str, ExperimentConfig], templates: Templates
) -> list[Draft]:
    """Draft the scripts of runs, one for all that ask for the same; nothing is written, and nothing raised.

    Args:
        directory: the folder of the sweep.
        configs: the experiments by the names of their runs.
        templates: of the scripts.
    """
    requests: list[Request] = []
    problems: dict[tuple[str, str], list[str]] = {}
    for name, config in configs.items():
        path, stem = templates.path_for(config), (config.slurm.job_name if config.slurm else None) or ""
        try:
            options = sbatch_options(config.slurm, config.preemption)
        except JobSubmissionError as error:
            problems.setdefault((path, str(error)), []).append(name)
        else:
            requests.append(Request(name, options, stem, path, Pack.of(config.slurm)))
    drafts = [Draft(path, "", problem, tuple(names)) for (path, problem), names in problems.items()]
    for group in group_runs(requests):
        spec = JobScriptSpec(
            job_name=slurm_job_name(group.stem or directory.path.name, _NO_TOKEN, 0),
            options=group.options,
            config=configs[group.names[0]].slurm or SLURMConfig(),
            sweep_dir=directory.path,
            token=_NO_TOKEN,
            number=0,
            tasks=group.tasks,
            is_shared=group.pack.runs > 1,
        )
        drafts.append(_draft(group.template, spec, templates, group.names))
    return drafts


def _draft(path: str, spec: JobScriptSpec, templates: Templates, names: tuple[str, ...]) -> Draft:
    try:
        template = templates.get(path)
        text = template.render(spec)
        problem = template.unreadable(text) if path else ""
    except SLURMError as error:
        text, problem = "", str(error)
    return Draft(path, "" if problem else text, problem, names)
