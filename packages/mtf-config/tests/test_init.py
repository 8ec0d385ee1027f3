"""`mtf init`: what it writes, what it refuses, and that the project is a valid one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mtf_config import ConfigurationManager, load_sweep
from mtf_config.project import project_files
from mtf_utils.cli import main
from mtf_utils.paths import validate_project_structure


def test_a_new_project_is_whole_and_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "a project"]) == 0
    said = capsys.readouterr().out
    project = tmp_path / "a project"
    assert validate_project_structure(project)
    assert "cd 'a project'" in said
    assert "mtf run sweep.yaml" in said
    sweep = load_sweep(project / "sweep.yaml", ConfigurationManager(project))
    assert len(list(sweep.search.points())) == 4
    for name in ("train.py", "tests/test_train.py"):
        compile((project / name).read_text(), name, "exec")


def test_the_digits_are_all_there() -> None:
    lines = gzip.decompress(project_files()["data/digits.csv.gz"]).decode().splitlines()
    rows = [list(map(int, line.split(","))) for line in lines]
    assert len(rows) == 1797
    assert {len(row) for row in rows} == {65}
    assert {row[-1] for row in rows} == set(range(10))
    assert all(0 <= value <= 16 for row in rows for value in row[:-1])
    assert b"CC BY 4.0" in project_files()["data/README.md"]


@pytest.mark.parametrize("there", ["train.py", ".gitignore", "configs/base.yaml"])
def test_nothing_is_overwritten(tmp_path: Path, there: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / there).write_text("mine")
    (tmp_path / "notes.txt").write_text("also mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(["init", str(tmp_path)]) == 2
    assert there in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / there).read_text() == "mine"


def test_a_folder_with_other_files_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["project"] == str(tmp_path)
    assert set(data["files"]) == {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and path.name != "notes.txt"
    }


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err
