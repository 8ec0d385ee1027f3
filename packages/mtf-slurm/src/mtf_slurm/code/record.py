"""What is written down about the code of a run, and where a job finds it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from mtf_utils.rundir import Record
from mtf_utils.settings import about

__all__ = ["CODE", "CodeFile", "Workplace", "workplace"]

CODE: Final = "code"
"""The folder of a sweep that holds the copies."""


@dataclass(kw_only=True)
class CodeFile(Record):
    """`runs/<name>/code.json`, and `code` of `sweep.json`: where the code comes from. Written by the launcher."""

    isolated: bool = field(metadata=about("Whether jobs run a snapshot; else they run what lies in the project."))
    project_root: str = field(metadata=about("The project's folder at the time of the submission."))
    reason: str | None = field(default=None, metadata=about("Why it is not isolated."))
    tree: str | None = field(default=None, metadata=about("Hash of the snapshot's content; names its copy."))
    place: str = field(default="", metadata=about("The project's folder inside the copy; empty if it is the same."))
    python_path: list[str] = field(
        default_factory=list,
        metadata=about("Folders of the copy that stand for those of editable installs, relative to the copy."),
    )
    commit: str | None = field(default=None, metadata=about("What was checked out; null without a commit."))
    branch: str | None = field(default=None, metadata=about("The branch; null when detached."))
    dirty: bool | None = field(default=None, metadata=about("Whether anything was not committed."))
    remote: str | None = field(default=None, metadata=about("Where the repository comes from, without credentials."))
    files: int | None = field(default=None, metadata=about("How many files the snapshot has.", minimum=0))
    size: int | None = field(default=None, metadata=about("Their bytes.", minimum=0))
    warnings: list[str] = field(default_factory=list, metadata=about("What was to be known about the snapshot."))


@dataclass(frozen=True)
class Workplace:
    """Where a job works, relative to the folder of its sweep.

    Attributes:
        project_root: what `MTF_PROJECT_ROOT` says, and where the command is run.
        python_path: what `PYTHONPATH` begins with.
    """

    project_root: str
    python_path: tuple[str, ...]


def workplace(code: CodeFile) -> Workplace | None:
    """Where a job with that code works; None in the project itself.

    The copy's own folders come first: an editable install would import the project as it is by then.
    """
    if not code.isolated or code.tree is None:
        return None
    copy = PurePosixPath(CODE, code.tree)
    root = copy / code.place
    paths = dict.fromkeys(str(path) for path in (root, root / "src", *(copy / more for more in code.python_path)))
    return Workplace(str(root), tuple(paths))
