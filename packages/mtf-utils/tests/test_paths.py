"""Where the project is and what it lacks."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from mtf_utils import (
    ProjectRootError,
    ensure_directory_exists,
    get_project_root,
    project_structure_problems,
    validate_project_structure,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "configs" / "model").mkdir(parents=True)
    (root / "configs" / "model" / "small.yaml").write_text("name: small\n")
    (root / "src" / "deep").mkdir(parents=True)
    return root


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git", ".git/", "configs/"])
def test_the_root_is_found_from_below(marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = (tmp_path / "project").resolve()
    below = root / "a" / "b"
    below.mkdir(parents=True)
    script = below / "train.py"
    script.touch()
    path = root / marker
    path.mkdir() if marker.endswith("/") else path.touch()
    assert get_project_root(root) == get_project_root(str(below)) == get_project_root(script) == root
    monkeypatch.chdir(below)
    assert get_project_root() == get_project_root("..") == root


def test_the_nearest_root_wins(project: Path) -> None:
    (project / "src" / "pyproject.toml").touch()
    assert get_project_root(project / "src" / "deep") == (project / "src").resolve()


def test_no_root_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").touch()  # a file of that name marks nothing
    monkeypatch.setattr("mtf_utils.paths._MARKERS", ("no-such-marker", "configs/"))
    with pytest.raises(ProjectRootError, match=r"no-such-marker, configs/") as caught:
        get_project_root(tmp_path)
    assert str(tmp_path.resolve()) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_a_start_that_does_not_exist_is_named(project: Path) -> None:
    with pytest.raises(ProjectRootError, match="nowhere does not exist"):
        get_project_root(project / "nowhere")


def test_a_complete_project(project: Path) -> None:
    assert validate_project_structure(project) is True
    assert project_structure_problems(str(project)) == []


def test_what_is_missing_is_listed_and_logged(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (project / "configs" / "model" / "small.yaml").rename(project / "configs" / "small.txt")
    (project / "experiments").touch()
    with caplog.at_level(logging.DEBUG, "mtf_utils.paths"):
        assert validate_project_structure(project) is False
    problems = project_structure_problems(project)
    assert [re.search(r"configs holds no|experiments is not", problem) is not None for problem in problems] == [
        True
    ] * 2
    assert caplog.messages == [f"not a complete project: {problem}" for problem in problems]


def test_a_root_or_configs_that_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "configs").touch()
    assert "configs is not a folder" in project_structure_problems(tmp_path)[0]
    assert project_structure_problems(tmp_path / "gone") == [f"{tmp_path / 'gone'} is not a folder"]


def test_folders_are_created_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert ensure_directory_exists(str(folder)) == folder
    (folder / "kept").touch()
    assert ensure_directory_exists(folder) == folder
    assert (folder / "kept").exists()


@pytest.mark.parametrize("below", ["", "more", "more/still"])
def test_a_file_in_the_way_is_named(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match=f"{re.escape(str(file))} is a file; move it"):
        ensure_directory_exists(file / below)


def test_a_broken_link_in_the_way_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone" / "far")
    with pytest.raises(NotADirectoryError, match="is a broken link"):
        ensure_directory_exists(link)
