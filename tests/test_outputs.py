"""What every verb prints with `--json` is what its schema says, and every schema belongs to a verb."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mtf_slurm.status import JobStatus
from mtf_slurm.testing import ClusterSettings, LocalCluster
from mtf_utils.arguments import parser_of, subparsers_of
from mtf_utils.output import SCHEMA_FOLDER, output_schema
from mtf_utils.verbs import VERBS, entry_points, load
from repository import PACKAGES, ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

INSTALLED = {name: entry.value.partition(".")[0] for name, entry in entry_points().items() if name in VERBS}


def closed(schema: Any) -> Any:
    """The schema without room for what it does not name: users get room, so that fields may be added."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in found and isinstance(found["properties"], dict) and found.get("type") is not None:
        found.setdefault("additionalProperties", False)
    return found


def schema_of(verb: str) -> Any:
    schema = output_schema(INSTALLED[verb], verb)
    assert schema is not None, f"mtf {verb} has no schema"
    return schema


def check(verb: str, text: str) -> Any:
    """The data of an envelope, which meets the schema to the letter."""
    envelope = json.loads(text)
    schema = schema_of(verb)
    Draft202012Validator(schema).validate(envelope)
    strict = schema if verb == "results" else closed(schema)  # results adds to a part that is shared
    problems = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(strict).iter_errors(envelope)]
    assert problems == []
    return envelope["data"]


class Project:
    """A project of `mtf init`, with a sweep of two short runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check("init", self.mtf("init", str(folder), "--json", cwd=folder.parent).stdout)
        sweep = folder / "sweep.yaml"
        sweep.write_text(sweep.read_text().replace("[0.001, 0.01]", "[0.01]"))

    def mtf(self, *words: str, cwd: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mtf_utils", *words]
        done = subprocess.run(command, cwd=cwd or self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def ask(self, *words: str, status: int = 0) -> Any:
        return check(words[0], self.mtf(*words, "--json", status=status).stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("outputs") / "project")
    told = made.ask("run", "sweep.yaml", "training.epochs=1", "-o", "experiments/short")
    assert told["counts"] == {"COMPLETED": 2}
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["validate", "sweep.yaml", "base.yaml"],
        ["show", "base.yaml"],
        ["show", "base.yaml", "training.epochs=3", "--origin", "--defaults"],
        ["plan", "sweep.yaml", "--scripts"],
        ["status"],
        ["status", "--group", "channels"],
        ["results"],
        ["logs", "digits-lr=0.01-channels=8"],
        ["explain", "digits-lr=0.01-channels=8"],
        ["cancel", "experiments/short", "--all"],
        ["retry", "experiments/short", "--dry-run"],
        pytest.param(
            ["report", "experiments/short"],
            marks=pytest.mark.skipif(find_spec("plotly") is None, reason="plotly is not installed"),
        ),
        ["clean", "experiments/short"],
        ["checkpoint", "ls", "experiments/short/runs/digits-lr=0.01-channels=8"],
        ["checkpoint", "verify", "experiments/short/runs/digits-lr=0.01-channels=8"],
        ["checkpoint", "show", "experiments/short/runs/digits-lr=0.01-channels=8"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_of_a_finished_sweep(project: Project, words: list[str]) -> None:
    assert project.ask(*words)


@pytest.mark.slow
def test_of_what_is_wrong_or_different(project: Project) -> None:
    (project.folder / "bad.yaml").write_text("experiment_name: [a]\nmodle: {}\ndescription: .nan\n")
    assert not project.ask("validate", "bad.yaml", "none.yaml", status=2)["files"][0]["valid"]
    (project.folder / "other.yaml").write_text("extends: configs/base.yaml\nseed: 2\n")
    assert project.ask("diff", "base.yaml", "other.yaml", status=1)["changes"]
    runs = [f"experiments/short/runs/digits-lr=0.01-channels={width}" for width in (8, 24)]
    assert project.ask("checkpoint", "diff", *runs, status=1)["differences"]
    assert project.ask("cluster", "status", "--folder", "nowhere", status=1)["up"] is False


@pytest.mark.slow
def test_of_a_sweep_that_failed(project: Project) -> None:
    (project.folder / "fail.py").write_text("raise ValueError('nothing works')\n")
    sweep = (project.folder / "sweep.yaml").read_text().replace("name: digits #", "name: failing #")
    (project.folder / "failing.yaml").write_text(sweep + "command: '{python} fail.py'\n")
    assert project.ask("run", "failing.yaml", status=1)["counts"] == {"FAILED": 2}
    told = project.ask("explain", "failing.yaml", "digits-lr=0.01-channels=8")
    assert told["last_words"]
    assert told["attempts"][0]["finished"]["outcome"] == "failed"
    assert len(project.ask("retry", "failing.yaml", "--failed", "--dry-run")["retried"]) == 2
    assert project.ask("logs", "failing.yaml", "digits-lr=0.01-channels=8")["lines"]


@pytest.mark.slow
def test_of_slurm(
    project: Project, slurm_cluster: Callable[..., LocalCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        submitted = project.ask("submit", "sweep.yaml", "training.epochs=1", "-o", "experiments/slurm")
        assert all(run["job_id"] for run in submitted["runs"])
        assert project.ask("explain", "experiments/slurm", "digits-lr=0.01-channels=8")["slurm"]
        assert project.ask("cancel", "experiments/slurm", "--all")["runs"]
        assert len(project.ask("doctor")["checks"]) > 10


def test_every_verb_with_json_has_a_schema_and_every_schema_a_verb() -> None:
    with_json = set()
    for verb in INSTALLED:
        parser = parser_of(verb, load(verb))
        parsers = [parser, *subparsers_of(parser).values()]
        if any("--json" in action.option_strings for each in parsers for action in each._actions):
            with_json.add(verb)
            Draft202012Validator.check_schema(schema_of(verb))
    files = {file.stem for package in PACKAGES for file in (package.source / SCHEMA_FOLDER).glob("*.json")}
    assert files - {"shared"} == with_json
    assert with_json >= {"status", "plan", "explain", "results", "checkpoint", "validate", "doctor"}


def test_the_states_are_those_of_the_code() -> None:
    states = schema_of("status")["$defs"]["state"]["enum"]
    assert set(states) == {status.value for status in JobStatus}


def test_the_documentation_names_every_verb_with_a_schema() -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    files = {file.stem for package in PACKAGES for file in (package.source / SCHEMA_FOLDER).glob("*.json")}
    for verb in files - {"shared"}:
        assert f"| `{verb}` |" in text, verb


def test_the_schema_of_an_output_is_printed() -> None:
    command = [sys.executable, "-m", "mtf_utils", "schema", "--output"]
    done = subprocess.run([*command, "explain"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == schema_of("explain")
    assert subprocess.run([*command, "expain"], capture_output=True, check=False).returncode == 2
    without = subprocess.run([*command, "completion"], capture_output=True, text=True, check=False)
    assert (without.returncode, "has no --json" in without.stderr) == (2, True)
