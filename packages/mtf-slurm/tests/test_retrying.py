"""Runs that are tried again: by their budgets, by name, after a change; with which code. On this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtf_config import ExecutionMode, ParameterGridSearch
from mtf_slurm import GridSearchResult, JobStatus, JobSubmissionError, SLURMLauncher
from mtf_slurm.budgets import ask_for, has_checkpoints
from mtf_slurm.reports import status_lines
from mtf_utils.cli import main
from mtf_utils.rundir import RunDirectory, SweepDirectory

LOCAL = ExecutionMode.LOCAL
STEP = "    step += 1\n"
PREEMPTED_EACH_STEP = "    step += 1\n    stop.append(15)\n"


class Bench:
    """A project in a repository, so that a change of its code is noticed, and a sweep of it."""

    def __init__(self, repo: Any, train: str, make_search: Callable[..., ParameterGridSearch], display: Any) -> None:
        self.repo, self.train, self.display, self._make_search = repo, train, display, make_search
        self.write(train)
        repo.commit()
        self.folder = repo.path / "experiments" / "sweep"
        self.launcher = SLURMLauncher(None, self.folder.parent, project_root=repo.path, display=display)

    def write(self, train: str) -> None:
        self.repo.write("train.py", train)

    def mend(self) -> None:
        self.write(self.train.replace("fail_at", "mended").replace('p.get("exit")', "None"))

    def search(self, values: dict[str, Any] | None = None, *, slurm: Any = None, **params: Any) -> ParameterGridSearch:
        search = self._make_search(values or {}, **params)
        return search if slurm is None else self._with(search, slurm)

    @staticmethod
    def _with(search: ParameterGridSearch, slurm: Any) -> ParameterGridSearch:
        again = ParameterGridSearch({**search.base_config, "slurm": slurm})
        again.set_naming_strategy(search.naming_strategy)
        for grid in search.grids:
            again.add_grid(grid)
        return again

    def submit(self, *args: Any, resume_across_code: bool = False, **params: Any) -> GridSearchResult:
        search = self.search(*args, **params)
        return self.launcher.submit_sweep(search, self.folder, LOCAL, resume_across_code=resume_across_code)

    @property
    def run(self) -> RunDirectory:
        (run,) = SweepDirectory(self.folder).runs()
        return run

    def trees(self) -> list[str]:
        """Which code each attempt of the one run belonged to, as its log tells."""
        return [self.run.log_file(attempt.number).read_text() for attempt in self.run.attempts()]


@pytest.fixture
def bench(
    make_repository: Callable[[Path], Any],
    make_search: Callable[..., ParameterGridSearch],
    project: Path,
    tmp_path: Path,
    display: Any,
) -> Bench:
    return Bench(make_repository(tmp_path / "repo"), (project / "train.py").read_text(), make_search, display)


def attempts(result: GridSearchResult) -> list[int]:
    return [run.attempts for run in result]


def test_a_failed_run_is_left_out_until_its_code_changes(bench: Bench) -> None:
    values = {"custom_params.fail_at": [None, 1]}
    bench.submit(values)
    again = bench.submit(values)
    assert attempts(again) == [1, 1]
    failed = next(run for run in again if run.status is JobStatus.FAILED)
    assert failed.held == "failed once, and slurm.retries.failure is 0"
    shown = "\n".join(status_lines(again))
    assert f"{failed.name}: failed once, and slurm.retries.failure is 0" in shown
    assert f"to ask: mtf retry {bench.folder} RUN" in shown
    bench.mend()
    mended = bench.submit(values, resume_across_code=True)
    assert mended.is_complete
    assert sorted(attempts(mended)) == [1, 2]
    (ask,) = SweepDirectory(bench.folder).run(failed.name).asks()
    assert (ask.attempt, ask.how) == (2, "submitted with other code or settings")
    assert "@" in ask.by
    # it has continued from the checkpoint that the other code had made
    assert ask.code_before != ask.code_after
    assert ask.code_after == SweepDirectory(bench.folder).sweep().code["tree"]


def test_a_failed_run_is_left_out_until_its_settings_change(bench: Bench) -> None:
    bench.submit(fail_at=1)
    assert attempts(bench.submit(fail_at=1)) == [1]
    assert attempts(bench.submit(fail_at=1, slurm={"cpus_per_task": 2})) == [2]
    assert attempts(bench.submit(fail_at=1, slurm={"cpus_per_task": 2})) == [2]


def test_asking_by_name_begins_new_budgets_and_is_recorded(bench: Bench) -> None:
    bench.submit(fail_at=1)
    done = bench.launcher.retry(bench.folder, [bench.run.name])
    assert done.retried == (bench.run.name,)
    assert attempts(done.result) == [2]
    assert [(ask.attempt, ask.how) for ask in bench.run.asks()] == [(2, "asked for by name")]
    by_budget = bench.launcher.retry(bench.folder)
    assert by_budget.retried == ()
    assert by_budget.left_out == {bench.run.name: "failed once, and slurm.retries.failure is 0"}
    assert attempts(by_budget.result) == [2]


def test_what_was_asked_for_before_a_crash_is_still_asked_for(bench: Bench) -> None:
    bench.submit(fail_at=1)
    ask_for(bench.run, "asked for by name")  # and then nothing more happened
    assert attempts(bench.submit(fail_at=1)) == [2]
    assert len(bench.run.asks()) == 1


def test_failures_are_repeated_as_often_as_allowed(bench: Bench) -> None:
    (run,) = bench.submit(fail_at=1, slurm={"retries": {"failure": 2}})
    assert (run.attempts, run.status) == (3, JobStatus.FAILED)
    assert run.reason == "ValueError: bad step 1"
    assert run.held == "failed 3 times, and slurm.retries.failure is 2"


def test_a_limit_on_preemptions_holds_until_it_is_raised_or_somebody_asks(bench: Bench) -> None:
    bench.train = bench.train.replace(STEP, PREEMPTED_EACH_STEP)
    bench.write(bench.train)
    one = {"preemption": {"max_preemptions": 1}}
    for _ in range(2):
        (run,) = bench.submit(steps=12, **one)
        assert (run.status, run.attempts) == (JobStatus.PREEMPTED, 2)
        assert run.reason == run.held == "preempted 2 times, and preemption.max_preemptions is 1"
    asked = bench.launcher.retry(bench.folder, [run.name])
    assert attempts(asked.result) == [4]
    raised = bench.submit(steps=12, preemption={"max_preemptions": 2})
    assert attempts(raised) == [7]
    assert [ask.attempt for ask in bench.run.asks()] == [3, 5]
    assert bench.submit(steps=12, preemption={"max_preemptions": None}).is_complete


def test_runs_that_come_to_nothing_are_left_out_until_somebody_asks(bench: Bench) -> None:
    for _ in range(2):
        (run,) = bench.submit(exit=75)
        assert (run.status, run.attempts) == (JobStatus.PREEMPTED, 3)
        assert run.held == "3 attempts in a row ended without progress; see the logs"
    assert attempts(bench.launcher.retry(bench.folder, [run.name]).result) == [6]
    fewer = bench.submit(exit=75, slurm={"retries": {"without_progress": 2}})
    assert attempts(fewer) == [8]
    bench.mend()
    assert bench.submit(exit=75, slurm={"retries": {"without_progress": 2}}).is_complete


def test_a_crash_of_the_launcher_forgets_no_attempt_that_came_to_nothing(bench: Bench) -> None:
    bench.submit(exit=75, slurm={"retries": {"without_progress": 5}})
    for number in (4, 5):  # as if it had been killed after the third
        attempt = bench.run.attempt(number)
        for path in attempt.path.iterdir():
            path.unlink()
        attempt.path.rmdir()
    (run,) = bench.submit(exit=75, slurm={"retries": {"without_progress": 5}})
    assert run.attempts == 5


def test_a_run_that_refuses_itself_can_be_asked_for(bench: Bench) -> None:
    for _ in range(2):
        (run,) = bench.submit(exit=76)
        assert (run.status, run.attempts) == (JobStatus.FAILED, 1)
    bench.mend()
    assert bench.launcher.retry(bench.folder, [run.name]).result.is_complete


def note_version(bench: Bench, version: str) -> str:
    return bench.train.replace("stop = []\n", f"stop = []\nprint('version {version}', flush=True)\n")


def test_the_same_code_is_that_of_the_last_attempt(bench: Bench) -> None:
    bench.write(note_version(bench, "one"))
    bench.submit(fail_at=1)
    bench.write(note_version(bench, "two"))
    done = bench.launcher.retry(bench.folder, [bench.run.name], same_code=True)
    assert ["version one" in text for text in bench.trees()] == [True, True]
    assert len(done.code[bench.run.name]) == 40
    assert bench.run.asks()[-1].code_after is None
    directory = SweepDirectory(bench.folder)
    assert {path.name for path in (directory.path / "code").iterdir()} == set(done.code.values())


def test_other_code_continues_a_checkpoint_only_when_told_to(bench: Bench) -> None:
    bench.write(note_version(bench, "one"))
    bench.submit(fail_at=1)
    bench.write(note_version(bench, "two"))
    name = bench.run.name
    refused = bench.launcher.retry(bench.folder, [name])
    assert (refused.retried, attempts(refused.result)) == ((), [1])
    assert "--same-code" in refused.left_out[name]
    assert "--resume-across-code" in refused.left_out[name]
    assert bench.run.asks() == []
    bench.launcher.retry(bench.folder, [name], resume_across_code=True)
    assert ["version two" in text for text in bench.trees()] == [False, True]
    (ask,) = bench.run.asks()
    assert ask.how == "asked for by name, across code"
    assert ask.code_before != ask.code_after


def test_a_submission_continues_checkpoints_of_other_code_only_when_told_to(bench: Bench) -> None:
    values = {"custom_params.fail_at": [1, 2]}
    bench.submit(values)
    bench.mend()
    assert attempts(bench.submit(values)) == [1, 1]
    (said,) = [text for text in bench.display.said if "other code" in text]
    names = ", ".join(run.name for run in GridSearchResult.load(bench.folder))
    assert said.startswith(f"left out: {names}: its checkpoints were made by other code")
    assert "--resume-across-code" in said
    assert bench.submit(values, resume_across_code=True).is_complete


def test_an_experiment_by_itself_continues_checkpoints_of_other_code_only_when_told_to(bench: Bench) -> None:
    (point,) = bench.search(fail_at=1).points()
    job_id = bench.launcher.submit_experiment(point.config, LOCAL)
    assert bench.launcher.get_job_status(job_id) is JobStatus.FAILED
    bench.mend()
    with pytest.raises(JobSubmissionError, match="--resume-across-code"):
        bench.launcher.submit_experiment(point.config, LOCAL)
    batch = bench.launcher.submit_experiment_batch([point.config], LOCAL)
    assert "--resume-across-code" in batch.failed[point.name]
    job_id = bench.launcher.submit_experiment(point.config, LOCAL, resume_across_code=True)
    assert bench.launcher.get_job_status(job_id) is JobStatus.COMPLETED


def test_without_names_other_code_counts_as_asking_as_it_does_for_a_submission(bench: Bench) -> None:
    bench.submit({"custom_params.exit": [3, None], "custom_params.fail_at": [0, 1]})
    runs = {run.name: run for run in GridSearchResult.load(bench.folder) if run.held}
    kept = bench.launcher.retry(bench.folder)
    assert (kept.retried, list(kept.left_out)) == ((), list(runs))
    bench.mend()
    assert bench.launcher.retry(bench.folder, same_code=True).retried == ()
    crossing = {name for name in runs if has_checkpoints(SweepDirectory(bench.folder).run(name))}
    assert 0 < len(crossing) < len(runs)
    planned = bench.launcher.retry(bench.folder, dry_run=True)
    done = bench.launcher.retry(bench.folder)
    assert planned.retried == done.retried == tuple(name for name in runs if name not in crossing)
    assert set(done.left_out) == crossing
    assert all("--resume-across-code" in reason for reason in done.left_out.values())
    rest = bench.launcher.retry(bench.folder, resume_across_code=True)
    assert set(rest.retried) == crossing
    assert rest.result.is_complete
    (how,) = {ask.how for name in crossing for ask in SweepDirectory(bench.folder).run(name).asks()}
    assert how == "submitted again, across code"


def test_without_a_checkpoint_there_is_nothing_to_cross(bench: Bench) -> None:
    bench.write(note_version(bench, "one"))
    bench.submit(exit=3)
    bench.write(note_version(bench, "two"))
    bench.launcher.retry(bench.folder, [bench.run.name])
    assert ["version two" in text for text in bench.trees()] == [False, True]


def test_a_copy_of_the_code_that_is_gone_is_said(bench: Bench) -> None:
    bench.submit(fail_at=1)
    tree = SweepDirectory(bench.folder).sweep().code["tree"]
    bench.folder.joinpath("code", tree).rename(bench.folder / "elsewhere")
    done = bench.launcher.retry(bench.folder, [bench.run.name], same_code=True)
    assert done.left_out == {
        bench.run.name: f"the copy of its code, code/{tree}, is gone; try it again without --same-code"
    }


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_has_finished_is_left_alone_and_a_dry_run_changes_nothing(bench: Bench) -> None:
    bench.submit({"custom_params.fail_at": [None, 1]})
    before = contents(bench.folder)
    names = [run.name for run in GridSearchResult.load(bench.folder)]
    done = bench.launcher.retry(bench.folder, names, dry_run=True)
    assert contents(bench.folder) == before
    assert len(done.retried) == 1
    assert list(done.left_out.values()) == ["it has finished"]
    assert done.job_ids == {}
    with pytest.raises(KeyError, match="is no run of"):
        bench.launcher.retry(bench.folder, ["tiny"])


def test_the_description_of_the_sweep_stays_as_it_was(bench: Bench) -> None:
    bench.submit({"custom_params.fail_at": [None, 1, 2]})
    before = SweepDirectory(bench.folder).sweep().to_dict()
    failed = [run.name for run in GridSearchResult.load(bench.folder) if run.status is JobStatus.FAILED]
    bench.launcher.retry(bench.folder, failed[:1])
    assert SweepDirectory(bench.folder).sweep().to_dict() == before


SWEEP = """
base:
  experiment_name: tiny
  model: {name: counter}
  data: {dataset_name: none}
  optimizer: {name: none}
  custom_params: {fail_at: 1}
  slurm: {retries: {timeout: 4, failure: 0}}
grids:
  - name: grid
    parameters: {custom_params.x: [1.0]}
"""


def test_budgets_on_the_command_line(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.repo.path)
    bench.repo.write("sweep.yaml", SWEEP)
    assert main(["run", "sweep.yaml", "-o", str(bench.folder), "--retries", "failure=1,node_failure=null"]) == 1
    assert attempts(GridSearchResult.load(bench.folder)) == [2]
    written = json.loads(bench.run.config_json.read_text())["slurm"]["retries"]
    assert (written["failure"], written["node_failure"], written["timeout"]) == (1, None, 4)
    for wrong, said in {
        "failures=1": "did you mean failure?",
        "failure": "expected KEY=N",
        "failure=-1": "0",
        "timeout=often": "expected",
    }.items():
        assert main(["run", "sweep.yaml", "--retries", wrong]) == 2
        assert said in capsys.readouterr().err
    assert main(["run", str(bench.folder), "--retries", "failure=1"]) == 2


def test_the_verb(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def mtf(*words: str, status: int = 0) -> str:
        assert main(list(words)) == status
        return capsys.readouterr().out

    bench.submit({"custom_params.fail_at": [None, 1]})
    folder = str(bench.folder)
    name = next(run.name for run in GridSearchResult.load(folder) if run.status is JobStatus.FAILED)
    shown = mtf("explain", folder, name)
    assert "held back  failed once, and slurm.retries.failure is 0" in shown
    assert f"or ask for it: mtf retry {folder} {name}" in shown
    assert "budgets    failure 1 of 0" in shown
    assert "0 of 2 runs tried again" in mtf("retry", folder)
    assert f"{name}: would be tried again, code " in mtf("retry", folder, "--failed", "--dry-run")
    assert "0 of 2 runs would be tried again" in mtf("retry", folder, "--oom", "--timeout", "--dry-run")
    assert "1 of 2 runs tried again" in mtf("retry", folder, name, status=1)
    assert "asked for  2" in mtf("explain", folder, name)
    data = json.loads(mtf("retry", folder, "--failed", "--json", status=1))["data"]
    assert [entry["name"] for entry in data["retried"]] == [name]
    assert data["left_out"] == {}
    assert [run.attempts for run in GridSearchResult.load(folder) if run.name == name] == [3]
    assert f"{name}: would be tried again" in mtf("retry", folder, "--same-code", "--dry-run", name)
    assert f"{name}: would be tried again" in mtf("retry", "--same-code", folder, "--dry-run", name, "-j", "1")
    assert main(["retry", folder, "--same-code", "--resume-across-code"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert main(["retry", folder, f"{name}x"]) == 2
    assert f"did you mean {name!r}?" in capsys.readouterr().err
