"""`mtf status`: which runs, in which order, in which groups; and which sweep is meant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.selection import Row, Selection, group_by
from mtf_slurm.status import JobStatus
from mtf_utils.cli import main

SWEEP = """
name: sizes
base:
  experiment_name: tiny
  model: {name: counter}
  data: {dataset_name: none}
  optimizer: {name: none}
  custom_params: {x: 1.0, fail_at: null}
grids:
  - name: grid
    parameters:
      custom_params.x: [3.0, 1.0, 2.0]
      custom_params.fail_at: [null, 1]
naming: descriptive
limits: {max_concurrent_jobs: 4}
"""


@pytest.fixture
def sweep(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A sweep of six runs, of which three failed, in the working directory."""
    (project / "sweep.yaml").write_text(SWEEP)
    (project / "pyproject.toml").touch()
    monkeypatch.chdir(project)
    assert main(["run", "sweep.yaml"]) == 1
    capsys.readouterr()
    return project / "experiments" / "sizes"


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["status", *words]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:7] if line.startswith("tiny")]


def test_runs_are_chosen_and_sorted(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines_of(capsys)) == 6
    assert lines_of(capsys, "--state", "failed") == [f"tiny-x={x}-fa=1" for x in ("3.0", "1.0", "2.0")]
    assert lines_of(capsys, "--match", "*x=1.0*") == ["tiny-x=1.0-fa=null", "tiny-x=1.0-fa=1"]
    assert lines_of(capsys, "--where", "x=2", "--where", "custom_params.fail_at=null") == []
    assert lines_of(capsys, "--where", "x=2.0", "--where", "fail_at=null") == ["tiny-x=2.0-fa=null"]
    by_x = ["--sort", "x", "--where", "fail_at=null"]
    assert lines_of(capsys, *by_x) == [f"tiny-x={x}-fa=null" for x in ("1.0", "2.0", "3.0")]
    assert lines_of(capsys, *by_x, "--reverse", "-n", "1") == ["tiny-x=3.0-fa=null"]
    assert lines_of(capsys, "--sort", "val_loss", "-n", "3") == [f"tiny-x={x}-fa=null" for x in ("1.0", "2.0", "3.0")]


def test_groups(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--group", "fail_at", "--metric", "val_loss"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["null", "3", "3", "completed", "0.33333", "1"]
    assert rows[2] == ["1", "3", "3", "failed"]
    assert main(["status", "--group", "state", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [(group["value"], len(group["runs"])) for group in data["groups"]] == [("COMPLETED", 3), ("FAILED", 3)]


def test_json_has_the_chosen_runs_in_order(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--sort", "x", "--state", "completed", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [run["parameters"]["custom_params.x"] for run in data["runs"]] == [1.0, 2.0, 3.0]
    assert data["counts"] == {"COMPLETED": 3, "FAILED": 3}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sort", "val_los"], "--sort val_los: no run has that; did you mean 'val_loss'?"),
        (["--sort", "fa"], "did you mean 'custom_params.fail_at'?"),
        (["--where", "y=1"], "there are: custom_params.x, custom_params.fail_at"),
        (["--where", "x"], "expected KEY=VALUE"),
        (["--group", "stat"], "did you mean 'state'?"),
        (["--metric", "val_los"], "did you mean 'val_loss'?"),
        (["--state", "runing"], "did you mean 'running'?"),
        (["--top", "0"], "expected a number from 1"),
        (["--watch", "--json"], "do not go together"),
        (["--watch", "--interval", "0"], "expected 0.1 seconds or more"),
        (["experiments/sizs"], "did you mean experiments/sizes?"),
        (["train.py"], "neither the folder of a sweep nor a sweep file"),
    ],
)
def test_mistakes(sweep: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", *words]) == 2
    shown = capsys.readouterr()
    assert (says in shown.err, shown.out) == (True, ""), shown.err


def test_which_sweep_is_meant(sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    (sweep.parents[1] / "other.yaml").write_text(
        SWEEP.replace("sizes", "newer").replace("fail_at: [null, 1]", "y: [1]")
    )
    assert main(["run", "other.yaml", "custom_params.fail_at=null"]) == 0
    (newer,) = [path for path in sweep.parent.iterdir() if path.name.startswith("newer-")]
    os.utime(sweep / "sweep.json", (1, 1))
    os.utime(sweep / "submissions", (1, 1))
    capsys.readouterr()

    def told(*words: str) -> dict[str, Any]:
        assert main([*words, "--json"]) == 0
        data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
        return data

    assert told("status")["output_dir"] == str(newer)
    assert told("status", "sweep.yaml")["output_dir"] == str(sweep)
    assert told("explain", "tiny-x=1.0-fa=1")["path"] == str(sweep / "runs" / "tiny-x=1.0-fa=1")
    assert told("explain", str(sweep / "runs" / "tiny-x=1.0-fa=1"))["status"] == "FAILED"
    assert told("explain", "sweep.yaml", "tiny-x=1.0-fa=1")["status"] == "FAILED"
    assert told("logs", "tiny-x=1.0-fa=1")["run"] == "tiny-x=1.0-fa=1"
    assert told("logs", "experiments/sizes", "tiny-x=1.0-fa=1")["attempt"] == 1
    monkeypatch.chdir(sweep)
    assert told("status")["output_dir"] == str(sweep)
    monkeypatch.chdir(sweep.parents[2])
    assert main(["status"]) == 2
    assert "run one: mtf run sweep.yaml" in capsys.readouterr().err


rows = st.lists(
    st.builds(
        Row,
        name=st.text("ab", min_size=1, max_size=3),
        status=st.sampled_from(JobStatus),
        parameters=st.fixed_dictionaries({"p": st.one_of(st.none(), st.booleans(), st.integers(), st.text("xy"))}),
        metrics=st.dictionaries(st.just("m"), st.one_of(st.none(), st.floats())),
    ),
    max_size=8,
)


@given(rows, st.sampled_from(["", "p", "m", "name", "state"]), st.booleans())
def test_selecting_loses_and_adds_nothing(found: list[Row], sort: str, reverse: bool) -> None:
    shown = Selection(sort=sort, reverse=reverse).apply(found)
    assert sorted(map(id, shown)) == sorted(map(id, found))
    numbers = [row.metrics["m"] for row in shown if row.metrics.get("m") is not None and sort == "m"]
    finite = [number for number in numbers if number == number]
    assert finite == sorted(finite, reverse=reverse)


@given(rows, st.sampled_from(["p", "name", "state"]))
def test_groups_share_out_the_runs(found: list[Row], key: str) -> None:
    if not found:
        return
    groups = group_by(found, key)
    assert sorted(id(row) for group in groups for row in group.rows) == sorted(map(id, found))
    assert len({group.name for group in groups}) == len(groups)
