"""What a sweep came to, read from its folder."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobStatus, SLURMError
from mtf_slurm.lock import hold
from mtf_slurm.results import BRISK_S
from mtf_slurm.submissions import Submissions
from mtf_utils.rundir import FinishReceipt, Outcome, RunResultFile, SweepDirectory, now


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "experiments" / "sweep"


def finish(folder: Path, name: str, metrics: dict, best: dict | None = None) -> None:
    """As a run that has finished leaves its folder."""
    run = SweepDirectory(folder).run(name)
    run.attempt(1).path.mkdir(parents=True)
    FinishReceipt(attempt=1, outcome=Outcome.FINISHED, exit_status=0, finished_at=now()).write(
        run.attempt(1).finished_file
    )
    RunResultFile(
        epoch=2, global_step=10, metrics=metrics, best=best, checkpoint="checkpoints/last", seed=1, finished_at=now()
    ).write(run.result_file)


@pytest.fixture
def result(launcher, make_search, folder) -> GridSearchResult:
    search = make_search({"custom_params.x": [1.0, 2.0, 3.0, 4.0]})
    launcher.submit_sweep(search, folder, ExecutionMode.DRY_RUN)
    finish(folder, "tiny-x=1.0", {"val_loss": 0.5, "acc": 0.7})
    best = {"metric": "val_loss", "value": 0.2, "epoch": 1, "global_step": 5}
    finish(folder, "tiny-x=2.0", {"val_loss": 0.3, "acc": 0.6}, best)
    finish(folder, "tiny-x=3.0", {"val_loss": None, "acc": 0.9})
    run = SweepDirectory(folder).run("tiny-x=4.0")
    run.metrics_file.write_text('{"event": "train", "epoch": 0, "step": 3, "val_loss": 0.1, "lr": 1, "time": 5}\n{"epo')
    return GridSearchResult.load(folder)


def test_runs_say_what_they_came_to(result: GridSearchResult, folder: Path) -> None:
    run = result["tiny-x=2.0"]
    assert (run.status, run.attempts, run.epoch, run.global_step) == (JobStatus.COMPLETED, 1, 2, 10)
    assert (run.metrics, run.best["value"]) == ({"val_loss": 0.3, "acc": 0.6}, 0.2)
    assert run.parameters == {"custom_params.x": 2.0}
    assert run.path == folder / "runs" / "tiny-x=2.0"
    assert run.checkpoint == run.path / "checkpoints" / "last"
    unfinished = result["tiny-x=4.0"]
    assert (unfinished.status, unfinished.global_step) == (JobStatus.NOT_SUBMITTED, 3)
    assert unfinished.metrics == {"val_loss": 0.1, "lr": 1}
    with pytest.raises(KeyError, match=r"did you mean 'tiny-x=2\.0'"):
        result["tiny-x=2.O"]


def test_leaderboard(result: GridSearchResult) -> None:
    assert [run.name for run in result.leaderboard("val_loss")] == ["tiny-x=2.0", "tiny-x=1.0"]
    assert [run.name for run in result.leaderboard("acc", "max", top=2)] == ["tiny-x=3.0", "tiny-x=1.0"]
    assert result.leaderboard("val_loss", unfinished=True)[0].name == "tiny-x=4.0"
    assert result.best("acc", "max").name == "tiny-x=3.0"
    with pytest.raises(SLURMError, match="did you mean 'val_loss'"):
        result.best("val_los")
    with pytest.raises(SLURMError, match="there are: acc, val_loss"):
        result.best("f1")
    with pytest.raises(SLURMError, match="expected 'min' or 'max'"):
        result.best("acc", "maximum")  # type: ignore[arg-type]


def test_a_result_without_its_receipt_is_not_complete(result: GridSearchResult, folder: Path) -> None:
    SweepDirectory(folder).run("tiny-x=2.0").attempt(1).finished_file.unlink()
    result.refresh()
    run = result["tiny-x=2.0"]
    assert run.status is not JobStatus.COMPLETED
    assert (run.checkpoint, run.best, run.metrics) == (None, None, {})
    assert result.best("val_loss").name == "tiny-x=1.0"


def test_tables(result: GridSearchResult, tmp_path: Path) -> None:
    with result.to_csv(tmp_path / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [run.name for run in result]
    assert table[1]["custom_params.x"] == "2.0"
    assert (table[1]["val_loss"], table[2]["val_loss"], table[3]["acc"]) == ("0.3", "", "")
    data = json.loads(result.to_json(tmp_path / "all.json").read_text())
    assert data == json.loads(json.dumps(result.to_dict()))
    assert data["counts"] == {"COMPLETED": 3, "NOT_SUBMITTED": 1}
    assert data["runs"][1]["best"]["epoch"] == 1


def test_a_metric_that_is_called_like_a_column_keeps_its_own(launcher, make_search, folder, tmp_path) -> None:
    launcher.submit_sweep(make_search({"seed": [1]}), folder, ExecutionMode.DRY_RUN)
    (name,) = (run.name for run in GridSearchResult.load(folder))
    finish(folder, name, {"seed": 5.0, "status": 6.0})
    text = GridSearchResult.load(folder).to_csv(tmp_path / "t.csv").read_text().splitlines()
    assert text[0].startswith("name,status,attempts,epoch,global_step,seed,metric.seed,metric.status,")
    assert text[1].startswith(f"{name},COMPLETED,1,2,10,1,5.0,6.0,")


def test_to_dataframe_says_what_to_install(result: GridSearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SLURMError, match="pip install pandas"):
        result.to_dataframe()


def test_to_dataframe(result: GridSearchResult) -> None:
    pytest.importorskip("pandas")
    table = result.to_dataframe()
    assert list(table["name"]) == [run.name for run in result]
    assert list(table["custom_params.x"]) == [1.0, 2.0, 3.0, 4.0]
    assert table["val_loss"].dtype == float
    assert table.loc[table["val_loss"].idxmin(), "name"] == "tiny-x=4.0"
    assert table["val_loss"].isna().tolist() == [False, False, True, False]


def test_wait_ends_when_nothing_is_active(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0]}), folder, ExecutionMode.DRY_RUN)
    directory = SweepDirectory(folder)
    names = [run.name for run in directory.runs()]
    naps: list[float] = []
    ends = {1: names[0], 3: names[1]}  # after which nap a run is over
    with hold(directory):  # a launcher is at work
        Submissions(directory).add(ExecutionMode.LOCAL, names)
        result = GridSearchResult.load(folder)
        assert result.counts == {JobStatus.PENDING: 2}

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) in ends:
                finish(folder, ends[len(naps)], {})

        assert result.wait(poll_s=30.0, sleep=sleep).is_complete
    assert naps == [30.0, BRISK_S, 30.0]  # soon again after an end, then at leisure


@pytest.mark.parametrize("wrong", ["5", True, -1, float("nan"), []])
def test_times_of_a_wrong_type_are_errors(launcher, make_search, folder, wrong) -> None:
    result = launcher.submit_sweep(make_search({}), folder, ExecutionMode.LOCAL)
    with pytest.raises(SLURMError, match=r"timeout_s=.*: expected a number of seconds, 0 or more"):
        result.wait(wrong)
    with pytest.raises(SLURMError, match=r"poll_s=.*: expected a number of seconds, 0 or more"):
        result.wait(poll_s=wrong)


def test_names_of_a_wrong_type_are_errors(launcher, make_search, folder) -> None:
    result = launcher.submit_sweep(make_search({}), folder, ExecutionMode.LOCAL)
    with pytest.raises(SLURMError, match=r"names='tiny': expected a list of the names of runs, or None"):
        result.cancel("tiny")
    with pytest.raises(SLURMError, match=r"names\[0\]=3: expected the name of a run"):
        result.cancel([3])


def test_wait_has_a_limit(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({}), folder, ExecutionMode.DRY_RUN)
    directory = SweepDirectory(folder)
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    with hold(directory):
        Submissions(directory).add(ExecutionMode.LOCAL, [run.name for run in directory.runs()])
        with pytest.raises(TimeoutError, match="is still active after 5"):
            GridSearchResult.load(folder).wait(5, clock=lambda: time[0], sleep=sleep)
    assert time[0] == 5.0


def test_nothing_is_waited_for_without_a_launcher(launcher, make_search, folder) -> None:
    launcher.submit_sweep(make_search({}), folder, ExecutionMode.DRY_RUN)
    Submissions(SweepDirectory(folder)).add(
        ExecutionMode.LOCAL, [run.name for run in SweepDirectory(folder).runs()]
    )  # its launcher was killed
    assert GridSearchResult.load(folder).wait(timeout_s=0).counts == {JobStatus.NOT_SUBMITTED: 1}
