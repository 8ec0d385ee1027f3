"""The public names: each can be imported, is one object wherever it is offered, and has the documented signature.

This file also runs where the built wheels are installed, so it reads nothing of the checkout.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

FACADE = "model_training_framework"
FACES = {
    f"{FACADE}.utils": "mtf_utils",
    f"{FACADE}.config": "mtf_config",
    f"{FACADE}.trainer": "mtf_trainer",
    f"{FACADE}.slurm": "mtf_slurm",
}

DOCUMENTED = {
    FACADE: "ModelTrainingFramework",
    f"{FACADE}.utils": "setup_logging get_logger get_project_root validate_project_structure ensure_directory_exists "
    "Result Success Error",
    f"{FACADE}.config": "ExperimentConfig ModelConfig TrainingConfig DataConfig OptimizerConfig SchedulerConfig "
    "SLURMConfig LoggingConfig CheckpointConfig PreemptionConfig PerformanceConfig ParameterGrid ParameterGridSearch "
    "NamingStrategy ExecutionMode ConfigurationManager ConfigurationError ValidationError",
    f"{FACADE}.trainer": "GenericTrainer GenericTrainerConfig TrainingCallback TrainerPhase ResumeState "
    "TrainMicroState ValMicroState RNGState TrainerError PreemptionTimeoutError CheckpointTimeoutError",
    f"{FACADE}.slurm": "SLURMLauncher GitManager GridSearchResult BatchSubmissionResult JobStatus SLURMError "
    "JobSubmissionError GitOperationError",
}

# Parameters in order, `self` left out; `=…` is the default. Further parameters may follow when they have defaults.
SIGNATURES = {
    f"{FACADE}:ModelTrainingFramework": "project_root config_dir=None slurm_template_path=None",
    f"{FACADE}:ModelTrainingFramework.run_grid_search": "parameter_grids base_config=None base_config_path=None "
    "execution_mode=ExecutionMode.SLURM output_dir=None max_concurrent_jobs=None",
    f"{FACADE}:ModelTrainingFramework.get_config_manager": "",
    f"{FACADE}:ModelTrainingFramework.get_slurm_launcher": "",
    "mtf_config:ParameterGrid": "name description=''",
    "mtf_config:ParameterGrid.add_parameter": "key values",
    "mtf_config:ParameterGrid.add_nested_parameter": "key_path values",
    "mtf_config:ParameterGrid.get_parameter_count": "",
    "mtf_config:ParameterGrid.generate_permutations": "",
    "mtf_config:ParameterGridSearch": "base_config",
    "mtf_config:ParameterGridSearch.add_grid": "grid",
    "mtf_config:ParameterGridSearch.create_grid": "name description=''",
    "mtf_config:ParameterGridSearch.set_naming_strategy": "strategy",
    "mtf_config:ParameterGridSearch.generate_experiments": "",
    "mtf_config:ConfigurationManager": "project_root config_dir=None",
    "mtf_config:ConfigurationManager.load_config": "config_path validate=True use_cache=True",
    "mtf_config:ConfigurationManager.save_config": "config output_path format='yaml'",
    "mtf_config:ConfigurationManager.compose_configs": "base_config overrides=None parameter_overrides=None",
    "mtf_trainer:GenericTrainer": "config",
    "mtf_trainer:GenericTrainer.fit": "model optimizer train_loader val_loader=None scheduler=None",
    "mtf_trainer:GenericTrainer.training_step": "batch batch_idx",
    "mtf_trainer:GenericTrainer.validation_step": "batch batch_idx",
    "mtf_trainer:GenericTrainer.save_checkpoint": "emergency=False",
    "mtf_trainer:GenericTrainer.load_checkpoint": "checkpoint_path=None",
    "mtf_trainer:GenericTrainer.add_callback": "callback",
    "mtf_trainer:TrainingCallback.on_training_start": "trainer",
    "mtf_trainer:TrainingCallback.on_training_end": "trainer logs",
    "mtf_trainer:TrainingCallback.on_epoch_start": "trainer epoch",
    "mtf_trainer:TrainingCallback.on_epoch_end": "trainer epoch logs",
    "mtf_trainer:TrainingCallback.on_batch_start": "trainer batch_idx",
    "mtf_trainer:TrainingCallback.on_batch_end": "trainer batch_idx logs",
    "mtf_trainer:ResumeState": "phase epoch global_step version='v2.0' train=None val=None rng=None timestamp=0.0",
    "mtf_slurm:SLURMLauncher": "slurm_template_path output_dir git_manager=None",
    "mtf_slurm:SLURMLauncher.submit_experiment": "experiment_config execution_mode=ExecutionMode.SLURM",
    "mtf_slurm:SLURMLauncher.submit_experiment_batch": "experiments execution_mode=ExecutionMode.SLURM "
    "max_concurrent_jobs=None",
    "mtf_slurm:SLURMLauncher.get_job_status": "job_id",
    "mtf_slurm:SLURMLauncher.cancel_job": "job_id",
    "mtf_slurm:GitManager": "repo_path",
    "mtf_slurm:GitManager.branch_context": "branch_name create_if_not_exists=True",
    "mtf_slurm:GitManager.create_branch": "branch_name base_branch=None",
    "mtf_slurm:GitManager.commit_changes": "message files=None add_all=False",
}

PHASES = (
    "INIT TRAIN_START_EPOCH TRAIN_BATCH_FORWARD TRAIN_BATCH_BACKWARD TRAIN_BATCH_OPTIM_STEP VAL_START_EPOCH "
    "VAL_BATCH_FORWARD EPOCH_END TRAINING_COMPLETE"
)
STRATEGIES = "HASH_BASED DESCRIPTIVE SEQUENTIAL"
MODES = "SLURM LOCAL DRY_RUN"
EXPERIMENT_FIELDS = (
    "experiment_name model training data optimizer scheduler slurm logging checkpoint preemption performance "
    "description tags created_by created_at version seed deterministic benchmark custom_params"
)
EXPERIMENT_DEFAULTS = {
    "scheduler": None,
    "slurm": None,
    "description": None,
    "created_by": None,
    "created_at": None,
    "version": "1.0",
    "seed": None,
    "deterministic": True,
    "benchmark": False,
}


def public_names(module: types.ModuleType) -> list[str]:
    """The public names of a module that lead to something of ours; imports from elsewhere are no offer."""
    ours = {FACADE, *FACES.values()}
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).partition(".")[0] in ours
    ]


def spelled(default: object) -> str:
    """`Class.MEMBER` for a member of an enumeration, else the repr."""
    return f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else repr(default)


def as_written(parameter: inspect.Parameter) -> str:
    """A parameter as SIGNATURES spells it."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={spelled(default)}"


@pytest.mark.parametrize("line", [f"{module} {name}" for module, names in DOCUMENTED.items() for name in names.split()])
def test_documented_names_can_be_imported(line: str) -> None:
    module, name = line.split()
    namespace: dict[str, Any] = {}
    exec(f"from {module} import {name}", namespace)
    assert name in importlib.import_module(module).__all__


@pytest.mark.parametrize("target", SIGNATURES)
def test_documented_signatures(target: str) -> None:
    module, _, path = target.partition(":")
    subject = importlib.import_module(module)
    for part in path.split("."):
        subject = getattr(subject, part)
    documented = SIGNATURES[target].split()
    parameters = [item for item in inspect.signature(subject).parameters.values() if item.name != "self"]
    assert [as_written(item) for item in parameters[: len(documented)]] == documented
    for further in parameters[len(documented) :]:
        assert further.default is not inspect.Parameter.empty or further.kind in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }


def test_documented_members() -> None:
    trainer, config = importlib.import_module("mtf_trainer"), importlib.import_module("mtf_config")
    assert set(PHASES.split()) <= set(trainer.TrainerPhase.__members__)
    assert set(STRATEGIES.split()) <= set(config.NamingStrategy.__members__)
    assert set(MODES.split()) <= set(config.ExecutionMode.__members__)


def test_documented_fields_of_an_experiment() -> None:
    experiment = importlib.import_module("mtf_config").ExperimentConfig
    fields = {field.name: field.default for field in dataclasses.fields(experiment)}
    documented = EXPERIMENT_FIELDS.split()
    assert list(fields)[: len(documented)] == documented
    assert {name: fields[name] for name in EXPERIMENT_DEFAULTS} == EXPERIMENT_DEFAULTS


@pytest.mark.parametrize(("face", "package"), FACES.items())
def test_the_facade_offers_the_identical_objects(face: str, package: str) -> None:
    here, there = importlib.import_module(face), importlib.import_module(package)
    assert set(here.__all__) == set(there.__all__)
    for name in here.__all__:
        assert getattr(here, name) is getattr(there, name)


@pytest.mark.parametrize("module", [FACADE, *FACES, *FACES.values()])
def test_all_is_complete_and_each_object_is_public_once(module: str) -> None:
    face = importlib.import_module(module)
    assert len(face.__all__) == len(set(face.__all__))
    assert set(public_names(face)) <= set(face.__all__), "public, but not in __all__"
    objects = [getattr(face, name) for name in face.__all__]
    definitions = [item for item in objects if inspect.isclass(item) or inspect.isroutine(item)]
    assert len(definitions) == len({id(item) for item in definitions}), "one object under two names"
    assert all(inspect.getdoc(item) for item in definitions)


def loaded_by(code: str, folder: Path) -> set[str]:
    """The top-level modules that a fresh process holds after running some code."""
    report = "\nimport sys; print('\\n', *{name.partition('.')[0] for name in sys.modules}, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        f"import {FACADE}",
        f"from {FACADE} import ModelTrainingFramework",
        f"from {FACADE}.config import ExperimentConfig",
        f"from {FACADE}.slurm import SLURMLauncher",
        f"from {FACADE}.utils import get_logger",
        "import contextlib, mtf_utils.cli\nwith contextlib.suppress(SystemExit):\n    mtf_utils.cli.main(['--help'])",
    ],
)
def test_what_trains_nothing_loads_no_torch(code: str, tmp_path: Path) -> None:
    loaded = loaded_by(code, tmp_path)
    assert loaded & {FACADE, "mtf_utils"}
    assert not loaded & {"torch", "numpy", "mtf_trainer"}


def test_the_trainer_loads_torch_and_no_config_or_git(tmp_path: Path) -> None:
    loaded = loaded_by("from model_training_framework.trainer import GenericTrainer", tmp_path)
    assert "torch" in loaded
    assert not loaded & {"mtf_config", "mtf_slurm", "yaml", "jsonschema", "git", "tenacity"}
