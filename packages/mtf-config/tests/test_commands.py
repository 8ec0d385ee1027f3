"""The verbs, run as processes: what they print, and what they end with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from config_support import DATA
from jsonschema import Draft202012Validator

from mtf_config import json_schema
from mtf_config.json_schema import experiment_schema
from mtf_utils.cli import main
from mtf_utils.display import printable


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(DATA, tmp_path / "configs")
    (tmp_path / "configs/child.yaml").write_text("extends: complete.yaml\nmodel:\n  hidden_size: 7\nseed: ${delete}\n")
    (tmp_path / "configs/bad.yaml").write_text("extends: complete.yaml\ntraining:\n  epohcs: 1\n  batch_size: none\n")
    (tmp_path / "configs/sweep.yaml").write_text(
        "base: complete.yaml\ngrids:\n  - {name: g, parameters: {seed: [1, 2, 2]}}\n"
    )
    return tmp_path


def mtf(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtf_utils", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_validate(project: Path) -> None:
    good = mtf(project, "validate", "complete.yaml", "language.json", "sweep.yaml")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines() == [
        "complete.yaml: a valid experiment",
        "language.json: a valid experiment",
        "sweep.yaml: a valid sweep of 2 runs",
    ]
    bad = mtf(project, "validate", "bad.yaml", "missing.yaml", "vision.yaml")
    assert bad.returncode == 2
    assert "bad.yaml:3:3: training.epohcs: unknown key 'epohcs' (did you mean 'epochs'?)" in bad.stdout
    assert "bad.yaml:4:15: training.batch_size: expected an integer, found the string 'none'" in bad.stdout
    assert "missing.yaml: there is no such file" in bad.stdout
    assert bad.stdout.splitlines()[-1] == "vision.yaml: a valid experiment"
    assert "Traceback" not in bad.stderr


def test_a_valid_file_that_our_own_schema_refuses_is_reported_as_our_defect(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    too_strict = experiment_schema() | {"required": ["created_by"]}
    monkeypatch.setattr(json_schema, "experiment_schema", lambda: too_strict)
    monkeypatch.setattr(json_schema, "sweep_schema", lambda: {"required": ["description"]})
    json_schema._own_validator.cache_clear()
    try:
        assert main(["validate", "vision.yaml", "sweep.yaml"]) == 1
    finally:
        json_schema._own_validator.cache_clear()
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["vision.yaml: a valid experiment", "sweep.yaml: a valid sweep of 2 runs"]
    for line, file, key in zip(
        shown.err.splitlines(), ("vision.yaml", "sweep.yaml"), ("created_by", "description"), strict=True
    ):
        assert line.startswith(f"{file}: valid, but not by the schema")
        assert "please report it" in line
        assert f"'{key}' is a required property" in line


def test_validate_in_json(project: Path) -> None:
    result = mtf(project, "validate", "--json", "bad.yaml", "vision.yaml")
    assert result.returncode == 2
    first, second = data_of(result)["files"]
    assert (first["valid"], second["valid"]) == (False, True)
    assert [(item["key"], item["line"], item["column"], item["suggestion"]) for item in first["problems"]] == [
        ("training.epohcs", 3, 3, "epochs"),
        ("training.batch_size", 4, 15, None),
    ]


def test_validate_with_a_schema_of_the_users_own(project: Path) -> None:
    schema = {"properties": {"model": {"properties": {"hidden_size": {"minimum": 100}}}}}
    (project / "own.json").write_text(json.dumps(schema))
    assert mtf(project, "validate", "--schema", "own.json", "complete.yaml").returncode == 0
    result = mtf(project, "validate", "--schema", "own.json", "child.yaml")
    assert result.returncode == 2
    assert "child.yaml:3:16: model.hidden_size: 7 is less than the minimum of 100" in result.stdout


def data_of(result: subprocess.CompletedProcess[str]) -> Any:
    envelope = json.loads(result.stdout)
    assert envelope.keys() == {"verb", "version", "data"}
    return envelope["data"]


def test_show(project: Path) -> None:
    result = mtf(project, "show", "child.yaml", "training.batch_size=8", "tags=[a, b]")
    assert (result.returncode, result.stderr) == (0, "")
    (project / "configs/shown.yaml").write_text(result.stdout)
    shown = data_of(mtf(project, "show", "shown.yaml", "--json"))["config"]
    assert shown["model"]["hidden_size"] == 7
    assert shown["training"]["batch_size"] == 8
    assert shown["tags"] == ["a", "b"]
    assert "seed" not in shown
    assert data_of(mtf(project, "show", "shown.yaml", "--defaults", "--json"))["config"]["seed"] is None


def test_show_with_origins(project: Path) -> None:
    arguments = ("show", "--origin", "--defaults", "child.yaml", "vision.yaml", "training.batch_size=8")
    result = mtf(project, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    shown = data_of(result)
    origins = shown["origins"]
    assert origins["model.hidden_size"].endswith("child.yaml:3:16")
    assert origins["model.num_layers"].endswith("complete.yaml:7:15")
    assert origins["training.precision"] == str(project / "configs/vision.yaml") + ":17:14"
    assert origins["training.batch_size"] == "command line"
    assert origins["checkpoint.async_save"] == "default"
    assert (shown["config"]["training"]["batch_size"], shown["config"]["training"]["precision"]) == (8, "bf16")
    lines = mtf(project, *arguments).stdout.splitlines()
    assert len(lines) == len(origins)
    assert any(line.startswith("training.batch_size: 8 ") and line.endswith("# command line") for line in lines)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("=1", "expected KEY=VALUE"),
        ("training.batchsize=1", "did you mean 'training.batch_size'"),
        ("batch_size=1", "did you mean 'training.batch_size'"),
        ("model.hiden_size=1", "did you mean 'model.hidden_size'"),
        ("model=[", "command line: model:1:2: while parsing a flow"),
        ("training.epochs=x", "command line: training.epochs: expected an integer"),
    ],
)
def test_unusable_settings(project: Path, setting: str, message: str) -> None:
    result = mtf(project, "show", "complete.yaml", setting)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_diff(project: Path) -> None:
    same = mtf(project, "diff", "complete.yaml", "complete.yaml")
    assert (same.returncode, same.stdout) == (0, "the same run\n")
    other = mtf(project, "diff", "complete.yaml", "child.yaml")
    assert other.returncode == 1
    assert other.stdout.splitlines() == ["model.hidden_size: 512 -> 7", "seed: 42 -> null", "different runs"]
    assert data_of(mtf(project, "diff", "complete.yaml", "child.yaml", "--json")) == {
        "same_run": False,
        "changes": [
            {"key": "model.hidden_size", "first": 512, "second": 7},
            {"key": "seed", "first": 42, "second": None},
        ],
    }


@pytest.mark.parametrize("arguments", [(), ("--partial",), ("--sweep",)])
def test_schema(project: Path, arguments: tuple[str, ...]) -> None:
    result = mtf(project, "schema", *arguments)
    assert result.returncode == 0
    Draft202012Validator.check_schema(json.loads(result.stdout))


def test_no_value_steers_the_terminal(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(project)
    evil = "\x1b]0;title\x07\x9b2J\u202e\x7f"
    keys = {"model": {"name": evil}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}, "tags": [evil]}
    for name, more in (("first", {}), ("second", {"description": evil}), ("wrong", {"training": {evil: evil}})):
        Path(f"configs/{name}.json").write_text(json.dumps(keys | {"experiment_name": "e"} | more))
    for words in (
        ["show", "first.json", "--json"],
        ["show", "first.json", "--origin"],
        ["show", "first.json", "--origin", "--json"],
        ["diff", "first.json", "second.json"],
        ["diff", "first.json", "second.json", "--json"],
        ["validate", "first.json", "wrong.json", evil],
        ["validate", "wrong.json", "--json"],
        ["show", "wrong.json"],
        ["show", "first.json", f"{evil}={evil}"],
    ):
        main(words)
        shown = capsys.readouterr()
        text = shown.out + shown.err
        assert text
        assert printable(text, lines=True) == text, words
    main(["show", "first.json", "--json"])
    assert json.loads(capsys.readouterr().out)["data"]["config"]["tags"] == [evil]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["show", "first.json"])
    text = capsys.readouterr().out
    assert printable(text, lines=True) == text
