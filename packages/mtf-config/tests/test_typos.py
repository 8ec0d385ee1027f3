"""Slips in real configuration files: the right place always, the intended name nearly always."""

from __future__ import annotations

import shutil
from pathlib import Path

from config_slips import FILES, key_slips, suggestions, value_slips
from config_support import DATA

from mtf_config import ConfigurationManager, LocatedProblem, ValidationError
from mtf_config.reader import read_document


def test_slips_in_keys(tmp_path: Path) -> None:
    named, total = 0, 200
    for slip, found in suggestions(key_slips(total, seed=1), ConfigurationManager(tmp_path, ".")):
        assert (slip.line, slip.column) in found, (slip.file, slip.line, slip.intended, found)
        named += found[slip.line, slip.column] == slip.intended
    assert named >= 0.95 * total


def test_values_of_the_wrong_kind(tmp_path: Path) -> None:
    for slip, found in suggestions(value_slips(100, seed=1), ConfigurationManager(tmp_path, ".")):
        assert set(found) == {(slip.line, slip.column)}, (slip.file, slip.line, slip.intended, found)


WRONG_TYPES = [
    ("complete.yaml", "epochs: 100", "epochs: many"),
    ("complete.yaml", "batch_size: 32", "batch_size: 32.5"),
    ("complete.yaml", "learning_rate: 0.001", "learning_rate: fast"),
    ("complete.yaml", "use_wandb: true", "use_wandb: yes"),
    ("complete.yaml", "betas: [0.9, 0.999]", "betas: 0.9"),
    ("complete.yaml", "nodes: 1", "nodes: [1]"),
    ("complete.yaml", 'mem: "32G"', "mem: {amount: 32}"),
    ("complete.yaml", "seed: 42", "seed: -1"),
    ("complete.yaml", 'mode: "min"', "mode: minimum"),
    ("complete.yaml", "pin_memory: true", "pin_memory: 1"),
    ("vision.yaml", "max_grad_norm: 1", "max_grad_norm: 0"),
    ("vision.yaml", "precision: bf16", "precision: bfloat16"),
    ("vision.yaml", "requeue: true", "requeue: null x"),
    ("vision.yaml", "time_limit: 1-12:00:00", "time_limit: one day"),
    ("vision.yaml", "keep_last: 2", "keep_last: .inf"),
    ("language.json", '"max_steps": 20000', '"max_steps": "20000"'),
    ("language.json", '"log_level": "DEBUG"', '"log_level": "LOUD"'),
    ("language.json", '"min_lr": 6e-5', '"min_lr": -1'),
]


def test_wrong_values_are_found_where_they_are_written(tmp_path: Path) -> None:
    manager = ConfigurationManager(tmp_path, ".")
    for file, right, wrong in WRONG_TYPES:
        text = (DATA / file).read_text()
        assert text.count(right) == 1, right
        path = tmp_path / file
        path.write_text(text.replace(right, wrong))
        before = text[: text.index(right)] + wrong[: wrong.index(":") + 2]
        where = before.count("\n") + 1, len(before) - before.rfind("\n")
        try:
            manager.load_config(path)
        except ValidationError as error:
            (problem,) = error.problems
        else:
            raise AssertionError(wrong)
        assert isinstance(problem, LocatedProblem)
        assert problem.source is not None
        assert (problem.source.line, problem.source.column) == where, (wrong, problem)
        assert "expected" in problem.message


def test_the_files_themselves_are_valid(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "configs")
    manager = ConfigurationManager(tmp_path)
    for file in FILES:
        assert manager.load_config(file) == read_document(DATA / file).data
