"""The code of a submission: taken when it is asked for, laid into the sweep's folder before anything runs."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from mtf_slurm.code.checkout import check_out
from mtf_slurm.code.contents import measure_tree, named
from mtf_slurm.code.editable import Editable, editable_folders, editables, site_folders
from mtf_slurm.code.links import check_links, link_inputs
from mtf_slurm.code.provenance import describe, diff_to, is_dirty
from mtf_slurm.code.record import CODE, CodeFile
from mtf_slurm.code.repository import NoRepositoryError, Repository
from mtf_slurm.code.snapshots import Snapshot, has_file, has_folder, take_snapshot
from mtf_slurm.code.users import note_user
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.git import GitManager
from mtf_utils.atomic import write_bytes
from mtf_utils.rundir import RunDirectory, SweepDirectory

__all__ = ["Code", "code_file_of", "describe_code", "lay_code", "take_code", "write_code_of_run"]

_NO_ENTRY: Final = re.compile("[:\ud800-\udfff]")
"""What PYTHONPATH, or the file that tells of it, cannot hold."""

_ENVIRONMENT: Final = frozenset({"site-packages", "dist-packages"})
"""Folders of what is installed, which may well lie in the checkout."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Code:
    """The code of a submission.

    Attributes:
        record: what is written down about it.
        snapshot: None if runs work in the project itself.
        diff: what differs from the commit.
    """

    record: CodeFile
    snapshot: Snapshot | None = None
    diff: bytes = b""


def take_code(project_root: Path, manager: GitManager | None = None, *, sweeps: Collection[Path] = ()) -> Code:
    """Take a snapshot of the code of a project.

    Args:
        project_root: the absolute path of the folder that runs work in.
        manager: of the repository; None finds the one around the project.
        sweeps: folders of the sweeps that it is for, whose files are no code; those of other sweeps are recognised by
            their `sweep.json`.

    Returns:
        The code; not isolated, with the reason, where there is no repository that has the project.

    Raises:
        GitOperationError: there is one, and git refuses to use it or the snapshot fails.
    """
    try:
        repository = manager.repository if manager else Repository.find(project_root)
    except NoRepositoryError as error:
        return Code(_in_place(project_root, str(error)))
    place = _place(project_root, repository)
    if place is None:
        return _not_isolated(project_root, f"the project is not a part of the repository {repository.root}", repository)
    snapshot = take_snapshot(repository, sweeps=sweeps)
    if not has_folder(snapshot, place):
        return _not_isolated(project_root, f"git ignores all of it in {repository.root}, or it is empty", repository)
    for folder in sweeps:
        for owner, tree in ((repository, snapshot.tree), *snapshot.submodules):
            note_user(owner, tree, folder)
    record = _record(project_root, place, snapshot)
    for warning in record.warnings:
        _log.warning("%s: %s", repository.root, warning)
    return Code(record, snapshot, diff_to(repository, snapshot.tree))


def describe_code(project_root: Path, manager: GitManager | None = None, *, sweeps: Collection[Path] = ()) -> CodeFile:
    """What is known of the code without taking a snapshot, for a plan that writes nothing.

    Args:
        project_root: see `take_code`.
        manager: see `take_code`.
        sweeps: see `take_code`.

    Raises:
        GitOperationError: git refuses, or a snapshot would have too many new files.
    """
    try:
        repository = manager.repository if manager else Repository.find(project_root)
    except NoRepositoryError as error:
        return _in_place(project_root, str(error))
    described = _in_place(project_root, "no snapshot was asked for", repository)
    files, size = measure_tree(repository, sweeps=sweeps)
    return replace(described, files=files, size=size)


def _not_isolated(project_root: Path, reason: str, repository: Repository) -> Code:
    _log.warning("%s: runs work in the project itself, not in a snapshot: %s", project_root, reason)
    return Code(_in_place(project_root, reason, repository))


def _in_place(project_root: Path, reason: str, repository: Repository | None = None) -> CodeFile:
    known = describe(repository) | {"dirty": is_dirty(repository)} if repository else {}
    return CodeFile(isolated=False, project_root=str(project_root), reason=reason, **known)


def _place(project_root: Path, repository: Repository) -> PurePosixPath | None:
    root, top = project_root.resolve(), repository.root.resolve()
    return PurePosixPath(root.relative_to(top)) if root.is_relative_to(top) else None


def _record(project_root: Path, place: PurePosixPath, snapshot: Snapshot) -> CodeFile:
    top = snapshot.repository.root
    known = describe(snapshot.repository)
    # not by `git status`, which looks at no file that it was told to take for unchanged, and at every sweep
    committed = snapshot.repository.run("rev-parse", f"{known['commit']}^{{tree}}") if known["commit"] else None
    installed = editables(top, site_folders(), os.environ.get("PYTHONPATH", ""))
    folders = [path for path in editable_folders(installed) if _stands_in(snapshot, path)]
    return CodeFile(
        isolated=True,
        project_root=str(project_root),
        tree=snapshot.tree,
        place="" if place == PurePosixPath() else str(place),
        python_path=[str(path) for path in folders],
        files=snapshot.files,
        size=snapshot.size,
        warnings=[*snapshot.warnings, *_live(snapshot, installed, {place, place / "src", *folders})],
        dirty=snapshot.tree != committed,
        **known,
    )


def _stands_in(snapshot: Snapshot, path: PurePosixPath) -> bool:
    return not _NO_ENTRY.search(str(path)) and has_folder(snapshot, path)


def _live(snapshot: Snapshot, installed: Sequence[Editable], paths: Collection[PurePosixPath]) -> Iterator[str]:
    """Warnings about what jobs would import from the checkout, because no folder of the snapshot has it."""
    for each in installed:
        if each.folder in paths or not _ENVIRONMENT.isdisjoint(each.place.parts):
            continue
        modules = [each.module] if each.module is not None else _modules_in(snapshot.repository.root / each.place)
        if missing := [name for name in modules if not any(_has_module(snapshot, path, name) for path in paths)]:
            yield (
                f"{named(missing)} cannot come from the snapshot: installed in editable mode from {str(each.place)!r}, "
                "which is ignored by git or has another name than the package; jobs import it from the checkout, as it "
                "is by then. Install it otherwise (a plain folder of its name, not strict), or without --editable"
            )


def _has_module(snapshot: Snapshot, path: PurePosixPath, name: str) -> bool:
    place = path.joinpath(*name.split("."))
    return has_folder(snapshot, place) or has_file(snapshot, place.with_name(f"{place.name}.py"))


def _modules_in(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        packages = [path for path in sorted(folder.iterdir()) if path.suffix == ".py" or path.is_dir()]
        return list(dict.fromkeys(path.stem for path in packages if path.stem.isidentifier()))
    return []


def lay_code(directory: SweepDirectory, code: Code, links: Sequence[str]) -> None:
    """Put the code where the jobs of a sweep look for it; the caller holds the folder.

    Args:
        directory: the folder of the sweep.
        code: of the submission.
        links: the `slurm.link` of all its runs.

    Raises:
        JobSubmissionError: a linked input is missing or misplaced, or the folder's path does not fit into PYTHONPATH.
        GitOperationError: the snapshot cannot be checked out, or somebody changed the copy that is there.
        OSError: the folder cannot be written.
    """
    if code.snapshot is None:
        return
    if ":" in str(directory.path):
        raise JobSubmissionError(f"{directory.path}: no path with a colon fits into PYTHONPATH; choose another folder")
    project_root = Path(code.record.project_root)
    check_links(project_root, links)
    copy = check_out(code.snapshot, directory.path / CODE)
    link_inputs(copy / code.record.place, project_root, links)


def write_code_of_run(run: RunDirectory, code: Code) -> None:
    """Write down in the folder of a run which code it runs, and how that differs from the commit."""
    if code_file_of(run) == code.record:
        return
    if code.diff:
        write_bytes(run.code_diff, code.diff)
    else:
        run.code_diff.unlink(missing_ok=True)
    code.record.write(run.code_file)  # last: what it tells of is there


def code_file_of(run: RunDirectory) -> CodeFile | None:
    """What is written down about the code of a run; None if nothing is.

    Raises:
        RunDirectoryError: the file cannot be read.
    """
    return CodeFile.read(run.code_file)
