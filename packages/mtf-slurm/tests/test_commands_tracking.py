"""The verbs that work on single runs: logs, explain, cancel; and status where Slurm is silent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import JobStatus
from mtf_slurm.submissions import JobFile, JobPlan, Submission, Submissions
from mtf_utils.cli import main
from mtf_utils.rundir import FinishReceipt, Outcome, SweepDirectory, now

LOCAL, DRY_RUN = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN


@pytest.fixture
def folder(launcher, make_search, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of a run that finished and one that failed."""
    monkeypatch.chdir(project)
    path = project / "out"
    launcher.submit_sweep(make_search({"custom_params.fail_at": [None, 1]}), path, LOCAL, 2)
    return path


@pytest.fixture
def silent_slurm(launcher, make_search, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of three runs in Slurm, which does not answer: one is only known to be submitted, two have ended."""
    monkeypatch.chdir(project)
    path = project / "silent"
    launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0, 3.0]}), path, DRY_RUN)
    directory = SweepDirectory(path)
    names = [run.name for run in directory.runs()]
    files = Submissions(directory)
    plan = JobPlan(start=0, count=3, job_name="tiny-token.0")
    submission = Submission(token="token", mode=ExecutionMode.SLURM, runs=names, jobs=[plan], created_at=now())
    files.publish(submission, {"0.tasks": "".join(f"1 {name}\n" for name in names)})
    files.sent_file(submission, 0).touch()
    files.note_job(submission, 0, JobFile(job_id="7", submitted_at=now(), how="answered"))
    for name, outcome in zip(names[1:], (Outcome.FINISHED, Outcome.FAILED), strict=True):
        attempt = directory.run(name).attempt(1)
        attempt.path.mkdir(parents=True)
        FinishReceipt(attempt=1, outcome=outcome, exit_status=0, reason="said so", finished_at=now()).write(
            attempt.finished_file
        )
    programs = project / "bin"
    programs.mkdir()
    for name in ("squeue", "sacct", "scontrol", "scancel"):
        programs.joinpath(name).write_text(
            f"#!/bin/sh\necho '{name}: error: Unable to contact controller' >&2\nexit 1\n"
        )
        programs.joinpath(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return path


def data_of(capsys: pytest.CaptureFixture[str], verb: str) -> dict:
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["verb"], envelope["version"]) == (verb, 1)
    return envelope["data"]


def test_logs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "out", "tiny-fa=1"]) == 0
    assert capsys.readouterr().out.endswith("ValueError: bad step 1\n")
    assert main(["logs", "out", "tiny-fa=1", "-n", "1", "--attempt", "1", "-f"]) == 0
    assert capsys.readouterr().out == "ValueError: bad step 1\n"
    assert main(["logs", "out", "tiny-fa=1", "-n", "1", "--json"]) == 0
    data = data_of(capsys, "logs")
    assert (data["attempt"], data["lines"]) == (1, ["ValueError: bad step 1"])
    assert Path(data["path"]).is_file()


def test_logs_of_what_has_not_started(launcher, make_search, project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    launcher.submit_sweep(make_search({}), project / "dry", DRY_RUN)
    assert main(["logs", "dry"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith(" has not started: NOT_SUBMITTED\n")
    assert main(["logs", "dry", "-f"]) == 0  # nothing will come
    assert "waiting" not in capsys.readouterr().err
    assert main(["logs", "dry", "--json"]) == 0


def test_explain_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "out", "tiny-fa=1"]) == 0
    text = capsys.readouterr().out
    for part in (
        "tiny-fa=1: FAILED",
        "because    ValueError: bad step 1",
        "mend what is wrong",
        "Traceback (most recent",
    ):
        assert part in text
    assert "attempt 1: started" in text
    assert main(["explain", "out", "tiny-fa=1", "--json"]) == 0
    data = data_of(capsys, "explain")
    assert (data["status"], data["attempts"][0]["finished"]["outcome"]) == ("FAILED", "failed")
    assert data["last_words"][-1] == "ValueError: bad step 1"
    assert main(["explain", "out", "tiny-fa=null"]) == 0
    text = capsys.readouterr().out
    assert "COMPLETED" in text
    assert "last lines" not in text


def test_explain_what_is_not_started_again(launcher, make_search, project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    search = make_search({"custom_params.x": [1.0]})
    result = launcher.submit_sweep(search, project / "out", LOCAL, command="bash -c 'exit 76'")
    name = result.runs[0].name
    assert main(["explain", "out", name]) == 0
    assert f"ask for it: mtf retry {result.output_dir} {name}" in capsys.readouterr().out
    launcher.submit_sweep(search, project / "out", LOCAL, command="true")
    assert result.refresh()[name].status is JobStatus.COMPLETED


def test_cancel_what_is_at_work_and_what_waits(
    launcher, make_search, project, tmp_path, in_background, wait_until, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(project)
    search = make_search({"custom_params.x": [1.0, 2.0]}, hold_at=1, gate=str(tmp_path / "gate"))
    call = in_background(lambda: launcher.submit_sweep(search, project / "out", LOCAL, 1))
    wait_until((project / "out/runs/tiny-x=1.0/held").exists)
    assert main(["cancel", "out", "tiny-x=1.0"]) == 0
    assert capsys.readouterr().out == "tiny-x=1.0: told to save and end\n1 of 1 run cancelled\n"
    assert main(["cancel", "out", "--all", "--json"]) == 0
    assert data_of(capsys, "cancel")["runs"]["tiny-x=2.0"]["cancelled"]
    result = call.result()
    assert {run.status.value for run in result} == {"CANCELLED"}
    assert main(["cancel", "out", "tiny-x=1.0"]) == 0
    assert capsys.readouterr().out == "tiny-x=1.0: was not active (CANCELLED)\n0 of 1 run cancelled\n"
    assert main(["explain", "out", "tiny-x=1.0"]) == 0
    text = capsys.readouterr().out
    assert "tiny-x=1.0: CANCELLED" in text
    assert "last lines" not in text


def test_where_slurm_is_silent_nothing_is_made_up(silent_slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "silent", "--json"]) == 3
    shown = capsys.readouterr()
    data = json.loads(shown.out)["data"]
    assert data["counts"] == {"COMPLETED": 1, "FAILED": 1, "UNKNOWN": 1}
    assert [run["may_change"] for run in data["runs"]] == [True, False, False]
    assert "Unable to contact controller" in data["cluster_error"]
    assert "Unable to contact controller" in shown.err
    assert main(["explain", "silent", "tiny-x=1.0"]) == 3
    text = capsys.readouterr().out
    assert "Slurm cannot be asked (squeue: error: Unable to contact controller); job 7_0 was submitted" in text
    assert "ask again when Slurm answers" in text
    assert main(["logs", "silent", "tiny-x=1.0"]) == 3
    assert "has not started: UNKNOWN" in capsys.readouterr().err


def test_what_cannot_be_asked_for_is_not_cancelled(silent_slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "silent", "--all"]) == 3
    shown = capsys.readouterr()
    assert "nothing was cancelled there, repeat it when Slurm answers" in shown.err
    assert not (silent_slurm / "submissions" / "token" / "cancelled").exists()
    assert main(["cancel", "silent", "tiny-x=2.0"]) == 0  # it has finished, whatever Slurm says


def test_what_may_be_in_slurm_is_not_run_here(silent_slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "silent", "--json"]) == 1
    shown = capsys.readouterr()
    runs = json.loads(shown.out)["data"]["runs"]
    assert "not run here: tiny-x=1.0, tiny-x=3.0: it may be in Slurm: Slurm cannot be asked (squeue: error" in shown.err
    assert shown.err.count("not run here") == 1  # the other one is complete
    assert [(run["status"], run["attempts"]) for run in runs] == [("UNKNOWN", 0), ("COMPLETED", 1), ("FAILED", 1)]
    notes = [path.read_text() for path in silent_slurm.glob("submissions/*/given-up/*")]
    assert len(notes) == 2
    assert all("it may be in Slurm" in note for note in notes)


def test_waiting_goes_on_until_slurm_answers(silent_slurm: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mtf_slurm import GridSearchResult
    from mtf_slurm.cluster.watch import Watch

    clock = [0.0]
    result = GridSearchResult(silent_slurm, watch=Watch(clock=lambda: clock[0]))

    def sleep(seconds: float) -> None:
        clock[0] += 60
        # it has forgotten the job by now
        silent_slurm.parent.joinpath("bin", "squeue").write_text("#!/bin/sh\nexit 0\n")
        silent_slurm.parent.joinpath("bin", "scontrol").write_text("#!/bin/sh\necho MinJobAge = 2 sec\n")

    result.wait(sleep=sleep)
    run = result["tiny-x=1.0"]
    assert (run.status.value, run.may_change) == ("UNKNOWN", False)
    assert "Slurm has forgotten job 7_0" in run.reason
    assert "Slurm cannot be asked (squeue: error" in caplog.text
    assert result.failures().keys() == {"tiny-x=1.0", "tiny-x=3.0"}


def test_a_submission_without_slurm_says_so(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(project))
    base = "{experiment_name: a, model: {name: m}, data: {dataset_name: d}, optimizer: {name: o}}"
    (project / "sweep.yaml").write_text(f"base: {base}\ngrids: [{{name: g, parameters: {{seed: [1, 2]}}}}]\n")
    for words in (["submit", "sweep.yaml"], ["run", "sweep.yaml", "-e", "slurm"]):
        assert main(words) == 3
        assert "Slurm's programs are not on this machine" in capsys.readouterr().err
    assert not (project / "experiments").exists()


def test_a_job_that_came_to_no_attempt_is_explained_by_its_own_words(
    silent_slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squeue = silent_slurm.parent / "bin" / "squeue"
    row = "7_0|7|FAILED|NonZeroExitCode|0|512|1G|N/A|N/A|1:00|tiny-token.0|"
    squeue.write_text(f"#!/bin/sh\necho '{row}'\n")
    out = silent_slurm / "submissions" / "token" / "0.out"
    assert main(["explain", "silent", "tiny-x=1.0"]) == 0
    assert "last lines of" not in capsys.readouterr().out
    out.write_text("slurmstepd: error: execve(): bad interpreter(/bin/tcsh): No such file or directory\n")
    assert main(["explain", "silent", "tiny-x=1.0"]) == 0
    text = capsys.readouterr().out
    assert f"because    the job ended with status 2, without a receipt; see {out}" in text
    assert f"  last lines of {out}:\n    slurmstepd: error: execve(): bad interpreter" in text
    assert main(["explain", "silent", "tiny-x=1.0", "--json"]) == 0
    assert data_of(capsys, "explain")["log"] == str(out)


def test_what_slurm_refused_is_explained(silent_slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = Submissions(SweepDirectory(silent_slurm))
    files.refuse(files.all()[-1], 0, "Slurm refuses it: no such partition")
    assert main(["explain", "silent", "tiny-x=1.0"]) == 0
    text = capsys.readouterr().out
    assert "NOT_SUBMITTED" in text
    assert "because    Slurm refuses it: no such partition" in text
    assert "change what it asks for" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["logs", "nowhere"], "there is no sweep here"),
        (["logs", "out"], "has 2 runs; name one: tiny-fa=null, tiny-fa=1"),
        (["explain", "out"], "has 2 runs; name one: tiny-fa=null, tiny-fa=1"),
        (["logs", "out", "tiny-fa=2"], "did you mean"),
        (["logs", "out", "tiny-fa=1", "--attempt", "7"], "no attempt 7; there are 1"),
        (["logs", "out", "tiny-fa=1", "-n", "-1"], "--lines -1: expected a number from 0"),
        (["logs", "out", "tiny-fa=1", "-f", "--json"], "do not go together"),
        (["explain", "out", "nothing"], "is no run of"),
        (["explain", "nowhere", "nothing"], "there is no sweep here"),
        (["cancel", "out"], "name the runs to cancel, or say --all"),
        (["cancel", "out", "tiny-fa=1", "--all"], "one of the two"),
        (["cancel", "out", "tiny-fa=2"], "is no run of"),
        (["status", "train.py"], "train.py"),
    ],
)
def test_mistakes_have_status_2_and_one_message(
    folder: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
