"""The verbs, through the dispatcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtf_slurm.cluster.commands import CLUSTER, DOCTOR
from mtf_slurm.commands import PLAN, RESULTS, RUN, SUBMIT
from mtf_slurm.status_command import STATUS
from mtf_slurm.tracking_commands import CANCEL, EXPLAIN, LOGS
from mtf_utils.cli import main

SWEEP = """
name: sizes
base:
  experiment_name: tiny
  model: {name: counter}
  data: {dataset_name: none}
  optimizer: {name: none}
  checkpoint: {monitor: val_loss, mode: max}
  custom_params: {x: 1.0}
grids:
  - name: grid
    parameters:
      custom_params.x: [1.0, 2.0]
      custom_params.fail_at: [null, 1]
naming: descriptive
execution: local
limits: {max_concurrent_jobs: 2}
"""


@pytest.fixture
def sweep(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = project / "sweep.yaml"
    file.write_text(SWEEP)
    (project / "pyproject.toml").touch()
    monkeypatch.chdir(project)
    return file


def test_plan_run_status_results(sweep: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "sweep.yaml"]) == 0
    planned = capsys.readouterr().out
    assert "4 runs, 4 of them new" in planned
    assert not (project / "experiments").exists()

    assert main(["run", "sweep.yaml"]) == 1  # two of the runs fail
    shown = capsys.readouterr()
    assert "2 completed, 2 failed" in shown.out
    assert "ValueError: bad step 1" in shown.out
    assert "tiny-x=2.0-fa=null: COMPLETED" in shown.err

    folder = str(project / "experiments" / "sizes")
    assert main(["status", folder]) == 0
    assert "2 completed, 2 failed" in capsys.readouterr().out

    assert main(["results", folder, "--csv", "table.csv"]) == 0
    ranked = capsys.readouterr()
    lines = [line.split() for line in ranked.out.splitlines()]
    assert lines[0][:2] == ["name", "val_loss"]
    assert [line[1:3] for line in lines[1:]] == [["tiny-x=2.0-fa=null", "0.666667"], ["tiny-x=1.0-fa=null", "0.333333"]]
    assert "tiny-x=1.0-fa=1, tiny-x=2.0-fa=1: ValueError: bad step 1" in ranked.err
    assert len((project / "table.csv").read_text().splitlines()) == 5


def test_json(sweep: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "sweep.yaml", "--json", "--output-dir", "out"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["verb"], plan["version"], len(plan["data"]["new"])) == ("plan", 1, 4)
    assert main(["run", "sweep.yaml", "--json", "-o", "out", "-j", "1"]) == 1
    run = json.loads(capsys.readouterr().out)
    assert run["data"]["counts"] == {"COMPLETED": 2, "FAILED": 2}
    assert run["data"]["output_dir"] == str(project / "out")
    assert main(["status", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == run["data"]
    assert main(["results", "out", "--json", "--mode", "min", "-n", "1"]) == 0
    results = json.loads(capsys.readouterr().out)["data"]
    assert results["ranking"] == {"metric": "val_loss", "mode": "min", "runs": ["tiny-x=1.0-fa=null"]}
    assert results["mode"] == "local"


def test_a_sweep_is_continued_by_its_folder(sweep: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "sweep.yaml", "-o", "out"])
    (project / "train.py").write_text((project / "train.py").read_text().replace("fail_at", "mended"))
    capsys.readouterr()
    assert main(["run", "out"]) == 0
    assert "4 completed" in capsys.readouterr().out


def test_runs_are_executed_where_the_file_says_unless_told_otherwise(
    sweep: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "sweep.yaml", "-o", "out", "--execution", "dry_run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["counts"] == {"NOT_SUBMITTED": 4}
    sweep.write_text(SWEEP.replace("execution: local", "execution: dry_run"))
    assert main(["run", "sweep.yaml", "-o", "other"]) == 0
    assert "4 not submitted" in capsys.readouterr().out
    assert main(["run", "sweep.yaml", "-o", "other", "-e", "local", "--json"]) == 1  # two of the runs fail
    assert json.loads(capsys.readouterr().out)["data"]["counts"] == {"COMPLETED": 2, "FAILED": 2}
    sweep.write_text(SWEEP.replace("execution: local\n", ""))
    assert main(["run", "sweep.yaml", "-o", "third", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["data"]["counts"] == {"COMPLETED": 2, "FAILED": 2}


def test_each_problem_of_a_plan_has_its_line(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep.parent / "site.j2").write_text("#!/bin/bash\necho hi\n#SBATCH --partition=gpu\n{{ body }}\necho bye\n")
    assert main(["plan", "sweep.yaml", "--template", "site.j2"]) == 2
    shown = capsys.readouterr().out
    assert "site.j2: 'echo bye' would never run: {{ body }} does not return; move it up\n" in shown
    assert "\n" + str(sweep.parent / "site.j2") + ":3: '#SBATCH --partition=gpu' comes after a command" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "nowhere"], "there is no sweep here"),
        (["results", "nowhere"], "there is no sweep here"),
        (["run", "sweep.yml"], "did you mean 'sweep.yaml'"),
        (["results", "planned", "-n", "0"], "--top 0: expected a number from 1"),
        (["results", "planned", "-n", "-1"], "--top -1: expected a number from 1"),
        (["submit", "planned"], "planned is a folder: name the sweep file. What is missing"),
        (["plan", "planned"], "without its file by: mtf retry planned"),
        (["run", "train.py"], "neither the folder of a sweep nor a sweep file"),
        (["run", "one.yaml"], "expected a sweep, found one experiment"),
        (["results", "."], "there is no sweep here; there are: experiments/sizes, planned"),
        (["results", "tiny-x=1.0-fa=1"], "it is a run of experiments/sizes, which is to be named first"),
        (["clean", "--apply"], "--apply removes only what is named: mtf clean "),
        (["run", "sweep.yaml", "--template", "x"], "--template x: there is no such file"),
        (["run", "sweep.yaml", "--template", "train.py"], "--template train.py: runs on this machine get no script"),
        (["run", "planned", "--template", "train.py"], "--template train.py: runs on this machine get no script"),
        (["run", ".", "-e", "dry_run"], "--execution dry_run: a folder is continued on this machine"),
        (["run", "sweep.yaml", "--project-root", "no"], "project_root: there is no folder"),
    ],
)
def test_mistakes_have_status_2_and_one_message(
    sweep: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "sweep.yaml", "-o", "planned", "-e", "dry_run"])
    main(["run", "sweep.yaml", "-e", "dry_run"])
    (sweep.parent / "one.yaml").write_text("experiment_name: one\nmodel: {name: m}\n")
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "sweep.yaml", "-j", "0"], "argument -j/--jobs: 0: expected a number from 1\n"),
        (["run"], "the following arguments are required: SWEEP\n"),
        (["cancel", "--all"], "the following arguments are required: DIR\n"),
        (["retry"], "the following arguments are required: DIR\n"),
    ],
)
def test_only_what_is_needed_is_asked_for(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(says)


def test_what_is_left_out_and_which_sweep_it_is_are_told(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sweep.yaml", "custom_params.y=1"]) == 1
    (folder,) = (sweep.parent / "experiments").iterdir()
    capsys.readouterr()
    assert main(["status", "--where", "x=1.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 4 runs shown; 2 completed, 2 failed" in lines
    place = f"in {folder.relative_to(sweep.parent)}"
    assert lines[-1] == place
    assert main(["status", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 completed, 2 failed" in lines
    assert place not in lines
    assert main(["results", "--csv", "table.csv"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == place
    assert "written to table.csv\n" in shown.err


def test_clean_finds_the_sweep_as_others_do(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "sweep.yaml", "-e", "dry_run"])
    for words in ([], ["sweep.yaml"], ["sweep.yaml", "--apply"]):
        capsys.readouterr()
        assert main(["clean", *words]) == 0
        assert capsys.readouterr().out == "nothing to remove\n"


def test_results_before_there_are_any(sweep: Path, launcher, make_search, project, capsys) -> None:
    from mtf_config import ExecutionMode

    launcher.submit_sweep(make_search({}), project / "out", ExecutionMode.DRY_RUN)
    assert main(["results", "out"]) == 2
    assert "no run has finished yet" in capsys.readouterr().err
    assert main(["results", "out", "--metric", "nothing", "--all"]) == 2


@pytest.mark.parametrize("command", [PLAN, RUN, SUBMIT, STATUS, LOGS, EXPLAIN, CANCEL, RESULTS, CLUSTER, DOCTOR])
def test_every_verb_says_what_it_does(command) -> None:
    assert command.help
    assert command.help[0].islower()


@pytest.mark.parametrize("content", [None, "{}", "garbage"])
def test_results_do_without_a_bad_run(sweep: Path, project: Path, capsys, content: str | None) -> None:
    main(["run", "sweep.yaml", "-o", "out"])
    files = [project / "out" / "runs" / f"tiny-x={x}" / "config.json" for x in ("1.0-fa=null", "1.0-fa=1")]
    for file in files:
        file.unlink() if content is None else file.write_text(content)
    capsys.readouterr()
    assert main(["results", "out", "--json"]) == 0
    ranking = json.loads(capsys.readouterr().out)["data"]["ranking"]
    assert (ranking["metric"], ranking["mode"]) == ("val_loss", "max")
    assert ranking["runs"] == ["tiny-x=2.0-fa=null", "tiny-x=1.0-fa=null"]
    for file in project.glob("out/runs/*/config.json"):
        file.unlink()
    assert main(["results", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["ranking"]["mode"] == "max"  # as the base says
    plan = project / "out" / "sweep.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"base": {}}))
    assert main(["results", "out"]) == 2
    assert "name the --metric" in capsys.readouterr().err
    assert main(["results", "out", "--metric", "val_loss"]) == 0
