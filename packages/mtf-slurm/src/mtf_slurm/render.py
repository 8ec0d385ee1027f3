"""The text of `job.sh`: what runs one attempt of a run, the same file in every mode. Pure functions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from mtf_config import RetryConfig
from mtf_config.command_words import word_problems
from mtf_slurm.code.record import Workplace
from mtf_slurm.errors import JobSubmissionError
from mtf_utils.envref import EnvReference, split_env

__all__ = ["DEFAULT_COMMAND", "ENDS_SRUN", "JobScript", "render_job", "signal_names", "split_command"]

DEFAULT_COMMAND: Final = ("{python}", "train.py", "--config", "{config}")
"""The command of a run when nothing else is asked for."""

ENDS_SRUN: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
"""The signals that srun takes as its own end instead of passing them on to its tasks."""

_PARTS: Final = ("job_functions.sh", "job_budgets.sh", "job_memory.sh", "job_body.sh")

# the folder of a run may be moved as a whole: what lies in it is found when the script runs
_WHEN_RUN: Final = {"config": "MTF_CONFIG", "run_dir": "MTF_RUN_DIR"}
_NO_TEXT: Final = re.compile("[\ud800-\udfff]")  # what stands for bytes that are no UTF-8
_PLACEHOLDER: Final = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True, kw_only=True)
class JobScript:
    """What a `job.sh` is made of.

    Attributes:
        name: the experiment.
        project_root: the absolute path that the command runs in.
        command: its words; `{python}`, `{config}`, `{run_dir}` and `{name}` are filled in, `{{name}}` means `{name}`.
        python: the interpreter.
        setup: shell lines to run first (`slurm.setup`).
        signals: the signals that announce a preemption, as in `SIGTERM`; they are passed on to the command.
        deterministic: whether to ask cuBLAS for repeatable results.
        nodes: on how many machines it runs.
        tasks: how many processes of it work side by side; inside Slurm, srun starts more than one.
        max_preemptions: after more preemptions its job is not requeued; None is no limit.
        retries: the same for other ends.
        warning_s: how long before the time limit the job is told.
        checkpoints: the folder of the checkpoints, relative to the run's; `${env:NAME}` is looked up when it runs.
        place: where the code lies in the folder of the sweep; None runs what is in the project.
    """

    name: str
    project_root: Path
    command: tuple[str, ...] = DEFAULT_COMMAND
    python: str
    setup: tuple[str, ...] = ()
    signals: tuple[str, ...] = ("SIGTERM", "SIGUSR1")
    deterministic: bool = True
    nodes: int = 1
    tasks: int = 1
    max_preemptions: int | None = None
    retries: RetryConfig = field(default_factory=RetryConfig)
    warning_s: int = 0
    checkpoints: str = "checkpoints"
    place: Workplace | None = None


def split_command(command: str | Sequence[str]) -> tuple[str, ...]:
    """The words of a command, with the placeholders still in them.

    Args:
        command: a line, split as a shell would and not otherwise interpreted, or the words themselves.

    Raises:
        JobSubmissionError: there is no word, a quote is not closed, or a placeholder is unknown.
    """
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise JobSubmissionError(f"command {command!r}: {error}; close the quote, or pass a list") from error
    elif isinstance(command, Iterable):
        words = list(command)
    else:
        raise JobSubmissionError(f"command={command!r}: expected a line such as '{{python}} train.py', or its words")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise JobSubmissionError(f"command: expected strings without NUL characters, found {word!r}")
        for wrong in word_problems(word):
            raise JobSubmissionError(f"command: {wrong}")
    if not words or not words[0]:
        raise JobSubmissionError(f"command {command!r}: expected a program to run, such as '{{python}} train.py'")
    return tuple(words)


def render_job(job: JobScript) -> str:
    """The text of the script. Every value is quoted: the shell interprets none but the lines of `setup`."""
    root = str(job.project_root)
    if ":" in root:
        raise JobSubmissionError(f"project root {root!r}: no path with a colon fits into PYTHONPATH; rename the folder")
    if _NO_TEXT.search(root):
        raise JobSubmissionError(f"project root {root!r}: the path is not UTF-8, as scripts are; rename the folder")
    for value in (job.name, root, job.python, job.checkpoints, *job.setup):
        if "\0" in value:
            raise JobSubmissionError(f"{value!r}: a script cannot hold a NUL character")
    if "SIGURG" in job.signals:
        raise JobSubmissionError("preemption.signals: 'SIGURG' wakes the job script itself; choose another signal")
    words = " ".join(_render_word(word, job) for word in job.command)
    return (
        "#!/usr/bin/env bash\n"
        "# Runs one attempt of the run in whose folder it lies; `bash job.sh` does it by hand.\n"
        f"mtf_name={shlex.quote(job.name)}\n"
        f"mtf_project_root={shlex.quote(root)}\n"
        f"mtf_code={shlex.quote(job.place.project_root if job.place else '')}\n"
        f"mtf_python_path=({shlex.join(job.place.python_path if job.place else ())})\n"
        f"mtf_deterministic={int(job.deterministic)}\n"
        f"mtf_signals={shlex.quote(' '.join(signal_names(job.signals)))}\n"
        f"mtf_instead_of_term={_instead_of_term(job)}\n"
        f"mtf_nodes={job.nodes}\n"
        f"mtf_tasks={job.tasks}\n"
        f"mtf_max_preemptions={_limit(job.max_preemptions)}\n"
        f"mtf_max_timeouts={_limit(job.retries.timeout)}\n"
        f"mtf_max_node_failures={_limit(job.retries.node_failure)}\n"
        f"mtf_max_failures={_limit(job.retries.failure)}\n"
        f"mtf_max_stalled={job.retries.without_progress}\n"
        f"mtf_warning_s={job.warning_s}\n"
        f"mtf_look_for_checkpoints() {{ {_render_folder(job.checkpoints)}; }}\n"
        f"mtf_setup={shlex.quote(chr(10).join(job.setup))}\n"
        f'mtf_command() {{ exec -- "$@" {words}; }}\n'
        f"{_rest()}"
    )


def signal_names(signals: Iterable[str]) -> list[str]:
    """The signals that a script passes on, without SIG, when a run is told of preemptions by these."""
    names = dict.fromkeys(name.removeprefix("SIG") for name in ("SIGTERM", "SIGUSR1", *signals))
    names.pop("INT", None)  # has a treatment of its own
    return list(names)


def _limit(value: int | None) -> str:
    return "" if value is None else str(value)


def _instead_of_term(job: JobScript) -> str:
    """The signal that asks the tasks of srun to save: the first configured one that srun passes on as it is."""
    return next((name.removeprefix("SIG") for name in job.signals if name not in ENDS_SRUN), "USR1")


def _render_word(word: str, job: JobScript) -> str:
    """One word of the command for the shell: literal parts in quotes, parts known when it runs as variables."""
    values = {"python": job.python, "name": job.name}
    parts: list[str] = []
    literal, end = "", 0
    word = word.replace("$${env:", "${env:")
    for match in _PLACEHOLDER.finditer(word):
        literal += word[end : match.start()]
        end = match.end()
        if match[1] is not None:
            literal += f"{{{match[1]}}}"
        elif match[2] in values:
            literal += values[match[2]]
        else:
            parts += [shlex.quote(literal)] if literal else []
            parts.append(f'"${_WHEN_RUN[match[2]]}"')
            literal = ""
    literal += word[end:]
    if literal or not parts:
        parts.append(shlex.quote(literal))
    return "".join(parts)


def _render_folder(written: str) -> str:
    """Puts the path of a folder into `mtf_text`, as the command will have it: references are looked up by then."""
    lines = ["mtf_text="]
    for part in split_env(written):
        if isinstance(part, EnvReference):
            lines.append(f'if [[ -n ${{{part.name}+set}} ]]; then mtf_text+="${part.name}"')
            lines += [f"else mtf_text+={shlex.quote(part.default)}"] if part.default else []
            lines.append("fi")
        else:
            lines.append(f"mtf_text+={shlex.quote(part)}")
    return "; ".join(lines)


@cache
def _rest() -> str:
    """What is the same for every run: the functions, and what is done with them."""
    files = resources.files("mtf_slurm")
    return "".join(files.joinpath(name).read_text("utf-8") for name in _PARTS)
