"""From what somebody names, a folder or a sweep file or nothing at all, to the folder of a sweep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mtf_config import ConfigurationManager, ParameterGridSearch, SweepSpec, load_sweep
from mtf_config.identity import IDENTITY_FIELDS
from mtf_slurm.errors import SLURMError
from mtf_utils.names import nearest
from mtf_utils.paths import ProjectRootError, get_project_root
from mtf_utils.rundir import SweepDirectory, is_safe_name

__all__ = ["check_sweep_file", "find_run", "find_sweep", "root_of", "runs_folder"]

EXPERIMENTS: Final = "experiments"


def runs_folder(spec: SweepSpec, search: ParameterGridSearch, settings: Mapping[str, Any]) -> Path:
    """Where the runs of a sweep file go by default, relative to the project's root.

    Args:
        spec: what the file says.
        search: its experiments.
        settings: over its base; those that make other runs get a folder of their own.
    """
    if spec.name is None and spec.output_dir is None:
        from mtf_slurm.sweep import sweep_name  # here: whoever names a folder needs nothing of what plans sweeps

        return Path(EXPERIMENTS, sweep_name(search))  # has a hash of the base already
    place = Path(spec.output_dir or Path(EXPERIMENTS, str(spec.name)))
    others = {key: value for key, value in settings.items() if key.partition(".")[0] in IDENTITY_FIELDS}
    if not others:
        return place
    digest = hashlib.sha256(json.dumps(others, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return place.with_name(f"{place.name}-{digest}")


def root_of(file: Path) -> Path:
    """The root of the project that a file belongs to; its folder, if nothing looks like one."""
    try:
        return get_project_root(file.parent)
    except ProjectRootError:
        return file.parent


def find_sweep(named: Path | None) -> Path:
    """The folder of a sweep.

    Args:
        named: the folder; or the sweep file, whose folder is meant; None is the working directory if it is a sweep's,
            else the newest sweep of the project.

    Raises:
        SLURMError: there is none.
        ConfigurationError: the sweep file is not valid.
    """
    if named is None:
        return _newest()
    if _is_sweep(named):
        return named
    if named.is_file():
        check_sweep_file(named)
        root = root_of(named.absolute())
        sweep = load_sweep(named.absolute(), ConfigurationManager(root))
        return (root / runs_folder(sweep.spec, sweep.search, {})).absolute()
    raise SLURMError(f"{named}: there is no sweep here{_others(named)}")


def check_sweep_file(file: Path) -> None:
    """Refuse what nobody would read a sweep from.

    Raises:
        SLURMError: it is no YAML or JSON by its name.
    """
    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise SLURMError(f"{file} is neither the folder of a sweep nor a sweep file (YAML or JSON)")


def find_run(named: Path | None, run: str) -> tuple[Path, str]:
    """The folder of the sweep that a run belongs to, and the run's name.

    Args:
        named: the folder of the sweep, or its file; None is the newest sweep of the project with such a run.
        run: its name, or its folder.

    Raises:
        SLURMError: there is no such sweep.
    """
    path = Path(run)
    if path.is_dir() and path.absolute().parent.name == "runs" and _is_sweep(path.absolute().parents[1]):
        return path.absolute().parents[1], path.absolute().name
    if named is None and is_safe_name(run):
        for folder in sorted(_project_sweeps(), key=_last_used, reverse=True):
            if SweepDirectory(folder).run(run).path.is_dir():
                return folder, run
    return find_sweep(named), run


def _others(named: Path) -> str:
    """A hint: the sweep that may have been meant, or those that there are."""
    if (of := next((sweep for sweep in _project_sweeps() if _has_run(sweep, named)), None)) is not None:
        return f"; it is a run of {_shown(of)}, which is to be named first"
    beside = {path.name: path for path in (*_sweeps_in(named.parent), *_project_sweeps(), *_sweeps_in(named))}
    guess = nearest(named.name, beside)
    if guess:
        return f"; did you mean {_shown(beside[guess])}?"
    return f"; there are: {', '.join(sorted(map(_shown, beside.values()))[:5])}" if beside else ""


def _newest() -> Path:
    if _is_sweep(Path.cwd()):
        return Path.cwd()
    found = sorted(_project_sweeps(), key=_last_used)
    if not found:
        raise SLURMError(
            f"there is no sweep here (no sweep.json in {Path.cwd()}, none in the folders of {EXPERIMENTS}); name its "
            "folder, or run one: mtf run sweep.yaml"
        )
    return Path(_shown(found[-1]))


def _project_sweeps() -> Iterator[Path]:
    root = root_of(Path.cwd() / "any")
    yield from _sweeps_in(root / EXPERIMENTS)


def _sweeps_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if _is_sweep(path))


def _has_run(sweep: Path, named: Path) -> bool:
    run = SweepDirectory(sweep).run(named.name).path if is_safe_name(named.name) else None
    return run is not None and run.is_dir() and (named == Path(named.name) or named.absolute() == run.absolute())


def _is_sweep(folder: Path) -> bool:
    return SweepDirectory(folder).sweep_file.is_file()


def _last_used(folder: Path) -> float:
    """When it was planned or submitted last."""
    times = [path.stat().st_mtime for path in (folder / "sweep.json", folder / "submissions") if path.exists()]
    return max(times, default=0.0)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
