"""The facade, as its documentation shows it, with a training script that needs no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import model_training_framework
from model_training_framework import ModelTrainingFramework
from model_training_framework.config import (
    ConfigurationError,
    ConfigurationManager,
    ExecutionMode,
    ExperimentConfig,
    NamingStrategy,
    ParameterGrid,
)
from model_training_framework.slurm import JobStatus, JobSubmissionError, SLURMError, SLURMLauncher
from model_training_framework.utils import ProjectRootError
from mtf_slurm.testing import LocalCluster, is_available

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

TRAIN = """
import json, os, sys
config = json.load(open(sys.argv[2]))
rate = config["training"]["learning_rate"]
if rate > 1:
    raise RuntimeError(f"diverged at {rate}")
with open(os.environ["MTF_RUN_DIR"] + "/metrics.jsonl", "a") as file:
    file.write(json.dumps({"event": "epoch", "epoch": 1, "step": 9, "val_loss": rate * 2, "time": 0}) + "\\n")
"""

BASE = """
experiment_name: digits
model: {name: cnn}
training: {epochs: 2}
data: {dataset_name: digits}
optimizer: {name: adamw}
"""

KEYS = {
    "experiment_name": "digits",
    "model": {"name": "cnn"},
    "training": {"epochs": 2},
    "data": {"dataset_name": "digits"},
    "optimizer": {"name": "adamw"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "train.py").write_text(TRAIN)
    (root / "configs" / "base.yaml").write_text(BASE)
    return root


@pytest.fixture
def framework(project: Path) -> ModelTrainingFramework:
    return ModelTrainingFramework(project_root=project)


def rates(*values: float) -> ParameterGrid:
    grid = ParameterGrid("rates", "learning rates")
    grid.add_parameter("training.learning_rate", list(values))
    return grid


@pytest.mark.parametrize(
    "base",
    [
        {"base_config": KEYS},
        {"base_config": "base.yaml"},
        {"base_config": Path("base.yaml")},
        {"base_config": ExperimentConfig.from_dict(KEYS)},
        {"base_config_path": "base.yaml"},
    ],
    ids=["keys", "file", "path", "experiment", "base_config_path"],
)
def test_every_form_of_the_base_comes_to_the_same_runs(framework: ModelTrainingFramework, base: dict) -> None:
    result = framework.run_grid_search([rates(0.1, 0.2)], **base, execution_mode=ExecutionMode.LOCAL)
    assert result.counts == {JobStatus.COMPLETED: 2}
    assert [run.metrics["val_loss"] for run in result] == [0.2, 0.4]
    # the same names, which are hashes of the identity, and nothing left to do
    assert [run.name for run in result] == [
        run.name for run in framework.run_grid_search([rates(0.1, 0.2)], KEYS, None, ExecutionMode.DRY_RUN)
    ]
    assert result.best("val_loss").parameters == {"training.learning_rate": 0.1}


@pytest.mark.parametrize("argument", ["base_config", "base_config_path"])
def test_a_mistake_in_the_file_of_the_base_is_reported_with_its_place(
    framework: ModelTrainingFramework, project: Path, argument: str
) -> None:
    file = project / "configs" / "base.yaml"
    file.write_text(BASE.replace("training: {epochs: 2}", "training:\n  epochs: two"))
    with pytest.raises(ConfigurationError, match=re.escape(f"{file}:5:11: training.epochs: expected an integer")):
        framework.run_grid_search([rates(0.1)], **{argument: "base.yaml"}, execution_mode=ExecutionMode.DRY_RUN)


def test_positional_arguments_are_those_of_the_documentation(framework: ModelTrainingFramework, tmp_path: Path) -> None:
    result = framework.run_grid_search([rates(0.1)], None, "base.yaml", ExecutionMode.LOCAL, tmp_path / "out", 3)
    assert result.output_dir == tmp_path / "out"
    assert result.is_complete


def test_the_default_folder_is_found_again_and_grows_with_the_grid(
    framework: ModelTrainingFramework, project: Path
) -> None:
    first = framework.run_grid_search([rates(0.1)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert first.output_dir.parent == project / "experiments"
    assert first.output_dir.name.startswith("rates-")
    grown = framework.run_grid_search([rates(0.1, 0.3)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert grown.output_dir == first.output_dir
    assert [run.attempts for run in grown] == [1, 1]


def test_a_changed_grid_runs_what_is_new_and_names_what_is_orphaned(
    framework: ModelTrainingFramework, capfd: pytest.CaptureFixture[str]
) -> None:
    first = framework.run_grid_search([rates(0.1, 0.2, 5.0)], KEYS, execution_mode=ExecutionMode.LOCAL)
    names = {run.parameters["training.learning_rate"]: run.name for run in first}
    receipts = {rate: (first[name].path / "attempts/1/finished.json").stat() for rate, name in names.items()}
    capfd.readouterr()
    changed = framework.run_grid_search([rates(0.2, 0.4)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert changed.output_dir == first.output_dir
    assert [run.parameters["training.learning_rate"] for run in changed] == [0.2, 0.4]
    assert [run.attempts for run in changed] == [1, 1]
    assert changed.counts == {JobStatus.COMPLETED: 2}  # and the one that failed is neither counted nor tried again
    assert changed.orphaned == (names[0.1], names[5.0])
    assert [(run.status, run.attempts) for run in changed.orphans] == [(JobStatus.COMPLETED, 1), (JobStatus.FAILED, 1)]
    said = capfd.readouterr().err
    assert f"no longer a part of the sweep, and left alone: {names[0.1]}, {names[5.0]}\n" in said
    assert f"added to the sweep: {changed.runs[1].name}\n" in said
    sweep = json.loads((first.output_dir / "sweep.json").read_text())
    assert [run["name"] for run in sweep["runs"] if run.get("orphaned")] == [names[0.1], names[5.0]]
    for rate, receipt in receipts.items():
        again = (first[names[rate]].path / "attempts/1/finished.json").stat()
        assert (again.st_ino, again.st_mtime_ns) == (receipt.st_ino, receipt.st_mtime_ns)


IN_ANOTHER_PROCESS = """
import json, sys
from model_training_framework import ModelTrainingFramework
from model_training_framework.config import ExecutionMode, ParameterGrid
grid = ParameterGrid("rates")
grid.add_parameter("training.learning_rate", [0.1, 0.2])
framework = ModelTrainingFramework(sys.argv[1])
framework.run_grid_search([grid], json.loads(sys.argv[2]), None, ExecutionMode.LOCAL, sys.argv[3], 2)
"""


def test_a_sweep_that_another_process_started_is_found_and_waited_for(
    framework: ModelTrainingFramework, project: Path, tmp_path: Path
) -> None:
    gate, folder = tmp_path / "gate", tmp_path / "out"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    (project / "train.py").write_text(wait + TRAIN)
    with pytest.raises(SLURMError, match="there is no sweep here"):
        framework.load_results(folder)
    words = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(project), json.dumps(KEYS), str(folder)]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for _ in range(2):
            assert b"RUNNING" in process.stderr.readline()
        result = framework.load_results(str(folder))
        assert result.counts == {JobStatus.RUNNING: 2}
        assert all(run.log is not None and run.log.parent == run.path / "logs" for run in result)
        gate.touch()
        assert result.wait(60).counts == {JobStatus.COMPLETED: 2}
    assert result.best("val_loss").metrics == {"val_loss": 0.2}


def test_failures_are_reported_and_tried_again(framework: ModelTrainingFramework, project: Path) -> None:
    result = framework.run_grid_search([rates(0.1, 5.0)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert list(result.failures().values()) == ["RuntimeError: diverged at 5.0"]
    (project / "train.py").write_text(TRAIN.replace("> 1", "> 9"))
    again = framework.run_grid_search([rates(0.1, 5.0)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert sorted(run.attempts for run in again) == [1, 2]
    assert again.is_complete


def test_dry_run_writes_and_starts_nothing(framework: ModelTrainingFramework) -> None:
    result = framework.run_grid_search([rates(0.1)], KEYS, execution_mode=ExecutionMode.DRY_RUN)
    (run,) = result
    assert (run.status, run.attempts) == (JobStatus.NOT_SUBMITTED, 0)
    assert (run.path / "job.sh").exists()


def test_names_and_commands_can_be_chosen(framework: ModelTrainingFramework, project: Path) -> None:
    (project / "other.py").write_text("import sys; print(sys.argv[1:])")
    result = framework.run_grid_search(
        [rates(0.1)],
        KEYS,
        execution_mode=ExecutionMode.LOCAL,
        command="{python} other.py 'a b' {name}",
        naming_strategy=NamingStrategy.DESCRIPTIVE,
    )
    (run,) = result
    assert run.name == "digits-lr=0.1"
    assert run.log.read_text() == "['a b', 'digits-lr=0.1']\n"


@pytest.mark.parametrize(("base", "found"), [({}, "neither"), ({"base_config": KEYS, "base_config_path": "x"}, "both")])
def test_one_base_is_needed(framework: ModelTrainingFramework, base: dict, found: str) -> None:
    with pytest.raises(ConfigurationError, match=f"one of the two; found {found}"):
        framework.run_grid_search([rates(0.1)], **base)


@pytest.mark.parametrize("grids", [[], rates(0.1)])
def test_a_list_of_grids_is_needed(framework: ModelTrainingFramework, grids: object) -> None:
    with pytest.raises(ConfigurationError, match="expected a list with at least one ParameterGrid"):
        framework.run_grid_search(grids, KEYS)  # type: ignore[arg-type]


def test_the_cluster_is_the_default_and_says_that_it_is_not_there(
    framework: ModelTrainingFramework, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(SLURMError, match="Slurm's programs are not on this machine"):
        framework.run_grid_search([rates(0.1)], KEYS)
    assert not (project / "experiments").exists()


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_a_sweep_on_a_cluster(
    slurm_cluster: Callable[..., LocalCluster],
    framework: ModelTrainingFramework,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with slurm_cluster() as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        result = framework.run_grid_search([rates(0.1, 0.2, 3.0)], KEYS, max_concurrent_jobs=2)
        assert all(run.job_id for run in result)
        assert result.wait(60).counts == {JobStatus.COMPLETED: 2, JobStatus.FAILED: 1}
        assert result.best("val_loss").metrics == {"val_loss": 0.2}
        assert list(result.failures().values()) == ["RuntimeError: diverged at 3.0"]
        launcher = framework.get_slurm_launcher()
        assert [launcher.get_job_status(run.job_id) for run in result] == [run.status for run in result]
        # asked for again: what failed is submitted anew, and only that
        again = framework.run_grid_search([rates(0.1, 0.2, 3.0)], KEYS).wait(60)
        assert [run.attempts for run in again] == [1, 1, 2]


def test_a_wrong_key_names_the_place_in_the_file(framework: ModelTrainingFramework, project: Path) -> None:
    (project / "configs" / "base.yaml").write_text(BASE.replace("optimizer: {name: adamw}", "optimizer: {nme: adamw}"))
    with pytest.raises(ConfigurationError, match="nme"):
        framework.run_grid_search([rates(0.1)], "base.yaml", execution_mode=ExecutionMode.LOCAL)
    with pytest.raises(ConfigurationError, match=r"missing\.yaml"):
        framework.run_grid_search([rates(0.1)], "missing.yaml", execution_mode=ExecutionMode.LOCAL)


def test_a_taken_name_is_refused(framework: ModelTrainingFramework, tmp_path: Path) -> None:
    def plan(rate: float) -> None:
        framework.run_grid_search(
            [rates(rate)],
            KEYS,
            execution_mode=ExecutionMode.DRY_RUN,
            output_dir=tmp_path / "out",
            naming_strategy=NamingStrategy.SEQUENTIAL,
        )

    plan(0.1)
    with pytest.raises(JobSubmissionError, match="digits-000"):
        plan(0.2)


@pytest.mark.parametrize(("name", "says"), [("missing", "does not exist"), ("train.py", "is not a folder")])
def test_a_bad_project_root_is_one_clear_error(project: Path, name: str, says: str) -> None:
    with pytest.raises(ProjectRootError, match=f"project_root: .*{name} {says}"):
        ModelTrainingFramework(project / name)


def test_its_parts(framework: ModelTrainingFramework, project: Path) -> None:
    manager, launcher = framework.get_config_manager(), framework.get_slurm_launcher()
    assert isinstance(manager, ConfigurationManager)
    assert isinstance(launcher, SLURMLauncher)
    assert manager.config_dir == project / "configs"
    assert framework.get_config_manager() is manager
    result = framework.run_grid_search([rates(0.1)], KEYS, execution_mode=ExecutionMode.LOCAL)
    assert launcher.get_job_status(result.runs[0].job_id) is JobStatus.COMPLETED


def test_another_config_dir(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (project / "configs" / "base.yaml").rename(tmp_path / "elsewhere" / "mine.yaml")
    framework = ModelTrainingFramework(str(project), config_dir=str(tmp_path / "elsewhere"))
    result = framework.run_grid_search([rates(0.1)], "mine.yaml", execution_mode=ExecutionMode.DRY_RUN)
    assert json.loads((result.runs[0].path / "config.json").read_text())["training"]["epochs"] == 2


def test_modules_are_reached_by_attribute_and_slips_are_errors() -> None:
    assert model_training_framework.config.ParameterGrid is ParameterGrid
    assert {"ModelTrainingFramework", "trainer", "slurm"} <= set(dir(model_training_framework))
    assert model_training_framework.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'tainer'"):
        _ = model_training_framework.tainer


def test_the_facade_itself_loads_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, model_training_framework as m; m.__version__; print(*(n for n in sys.modules if n[:3] == 'mtf'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
