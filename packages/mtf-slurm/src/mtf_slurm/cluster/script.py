"""The text that sbatch gets: a template, built in or the user's own, filled in for one job; pure but for reading it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from mtf_config import SLURMConfig
from mtf_slurm.cluster.options import with_dependency
from mtf_slurm.cluster.templates import Template, Verbatim
from mtf_slurm.cluster.written import check_written, written_at
from mtf_slurm.errors import SLURMError
from mtf_slurm.setup_lines import bash_complaint

__all__ = ["BEGIN_OF_BODY", "JobScriptSpec", "SubmissionTemplate", "slurm_job_name", "task_line"]

_MAX_STEM: Final = 128
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_./:=@%+,&|!*()\[\]-]+")
# job_name and additional_args are there in another form
_NO_VALUES: Final = (
    "setup",
    "link",
    "template_path",
    "retries",
    "runs_per_job",
    "runs_at_once",
    "additional_args",
    "job_name",
)
_BODY: Final = "body"
_FOR_BASH: Final = re.compile(r"#!.*\b(ba|da|)sh\b")

BEGIN_OF_BODY: Final = "mtf_sweep_dir="
"""What the body of a script begins with; before it stands what the template makes."""


def slurm_job_name(stem: str, token: str, number: int) -> str:
    """The name under which Slurm knows a job, `<stem>-<token>.<number>`; no other job has it.

    Args:
        stem: what people call it; what no program could misread is kept.
        token: of the submission.
        number: of the job in the submission, from 0.
    """
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", stem)[:_MAX_STEM].strip("-")
    return f"{readable or 'run'}-{token}.{number}"


def task_line(first_attempt: int, name: str) -> str:
    """The line of `<k>.tasks` that stands for one task; its number, from 0, is the task's.

    Args:
        first_attempt: the number of the attempt that the job's first start claims.
        name: of the run.
    """
    return f"{first_attempt} {name}\n"


@dataclass(frozen=True, kw_only=True)
class JobScriptSpec:
    """One job of a submission.

    Attributes:
        job_name: see `slurm_job_name`.
        options: what its runs ask for, see `sbatch_options`.
        config: the section that the options come from, for templates that use its values.
        sweep_dir: the absolute path of the sweep's folder, as the compute nodes see it too.
        token: of the submission.
        number: of the job in the submission, from 0.
        tasks: how many tasks the array has; None for a job that is no array.
        throttle: how many tasks of the array may run at a time; None is no limit.
        is_shared: whether tasks have several runs; then the array has fewer tasks than runs.
    """

    job_name: str
    options: tuple[str, ...]
    config: SLURMConfig
    sweep_dir: Path
    token: str
    number: int
    tasks: int | None = None
    throttle: int | None = None
    is_shared: bool = False

    def words(self, after: str | None = None) -> tuple[str, ...]:
        """Every option of the job, for sbatch's command line.

        They are the ones of the script's `#SBATCH` lines: alone, those would give way to SBATCH_* variables.

        Args:
            after: a further condition for the start, such as `afterany:12`.
        """
        own = [f"--job-name={self.job_name}", f"--output={self._output()}"]
        if self.tasks is not None:
            own.append(f"--array=0-{self.tasks - 1}" + (f"%{self.throttle}" if self.throttle else ""))
        return (*own, *with_dependency(self.options, after))

    def _output(self) -> str:
        path = str(self.sweep_dir / "submissions" / self.token / f"{self.number}.out")
        if "\\" in path or not path.isprintable():
            raise SLURMError(f"{str(self.sweep_dir)!r}: sbatch takes no backslash and no control character; rename it")
        return path.replace("%", "%%")

    def body(self, *, is_built_in: bool = False) -> str:
        """What the script does: find the run of the task, and become its `job.sh`.

        Args:
            is_built_in: whether it goes into the built-in template: then the shell is bash, and as it was started.
        """
        values = {
            "mtf_sweep_dir": str(self.sweep_dir),
            "mtf_token": self.token,
            "mtf_number": str(self.number),
            "mtf_is_array": str(int(self.tasks is not None)),
            "mtf_is_shared": str(int(self.is_shared)),
            "mtf_is_built_in": str(int(is_built_in)),
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
        return "".join(lines) + _task_body().rstrip("\n")


class SubmissionTemplate:
    """A template of the text that sbatch gets, in Jinja2.

    It knows `job_name`, `options` (every option of the job, ready for a `#SBATCH` line), `body` (what the job does),
    and each field of `SLURMConfig` that asks something of Slurm, by its name. What is null cannot be written, nor what
    the shell would not take for a word in one of its lines: there, `{{ account | quote }}` makes any value one word.

    Args:
        template: the parsed text.
        is_built_in: whether it is not the user's own.
    """

    def __init__(self, template: Template, *, is_built_in: bool = False) -> None:
        self._template = template
        self._is_built_in = is_built_in

    @classmethod
    def built_in(cls) -> SubmissionTemplate:
        """The template that is used when the user has none."""
        return cls(_built_in(), is_built_in=True)

    @classmethod
    def read(cls, path: Path) -> SubmissionTemplate:
        """The user's own.

        Raises:
            SLURMError: it cannot be read or parsed, uses an unknown name, or has no `{{ body }}`; with its line.
        """
        try:
            source = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SLURMError(f"{path}: the template cannot be read: {why}") from error
        template = Template(source, name=str(path), known=tuple(_names()))
        if not template.uses(_BODY):
            raise SLURMError(f"{path}: there is no {{{{ body }}}}, without which the job would run nothing")
        return cls(template)

    def render(self, spec: JobScriptSpec) -> str:
        """The text of the script.

        Raises:
            SLURMError: the template fails for this job, or what comes out is no script that runs it as asked.
        """
        body = spec.body(is_built_in=self._is_built_in)
        values = dict(_fields(spec.config))
        options = [_line_word(word) for word in spec.words()]
        values |= {"job_name": spec.job_name, "options": options, _BODY: Verbatim(body)}
        text, inserted = self._template.render(values)
        source, name = self._template.source, self._template.name
        check_written(text, inserted, source=source, body=body, words=spec.words(), name=name)
        return text if text.endswith("\n") else text + "\n"

    def unreadable(self, script: str) -> str:
        """Why bash cannot read what the template has made of itself, with its line; empty if it can.

        Args:
            script: what `render` returned.
        """
        head = script.partition(BEGIN_OF_BODY)[0]
        found = bash_complaint(f"{head}\n:") if _FOR_BASH.match(script) else None
        if found is None:
            return ""
        number, words = found
        lines = head.rstrip().split("\n")
        number = min(number or len(lines), len(lines))  # what misses its end is the last one's
        line = lines[number - 1]
        place = written_at(self._template.name, self._template.source, number, line)
        return f"{place}: bash cannot read {line!r}: {words}"


def _fields(config: SLURMConfig) -> Iterator[tuple[str, Any]]:
    """What asks something of Slurm; the rest is job.sh's business, and may differ from run to run of an array."""
    for item in dataclasses.fields(config):
        if item.name not in _NO_VALUES:
            yield item.name, getattr(config, item.name)


def _names() -> list[str]:
    return [*(name for name, _ in _fields(SLURMConfig())), "job_name", "options", _BODY]


def _line_word(word: str) -> str:
    """A word for a `#SBATCH` line, where blanks separate, `#` ends the line, and a backslash takes away a meaning."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _built_in() -> Template:
    source = resources.files("mtf_slurm.cluster").joinpath("sbatch.sh.j2").read_text("utf-8")
    return Template(source, name="the built-in template", known=tuple(_names()))


@cache
def _task_body() -> str:
    return resources.files("mtf_slurm.cluster").joinpath("task_body.sh").read_text("utf-8")
