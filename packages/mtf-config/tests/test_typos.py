"""Slips in real configuration files: the right place always, the intended name nearly always."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from config_support import DATA

from mtf_config import ConfigurationManager, LocatedProblem, ValidationError
from mtf_config.keys import schema_keys
from mtf_config.reader import read_document

FILES = ("complete.yaml", "vision.yaml", "language.json")
KEY = re.compile(r"""(?P<quote>"?)\b(?P<name>[a-z_]+)(?P=quote):[ ]""")
OPEN = ("model", "data", "optimizer", "scheduler", "custom_params")


class Slip(NamedTuple):
    """A key of a file, misspelt."""

    file: str
    text: str
    line: int
    column: int
    intended: str


def declared_keys() -> set[str]:
    """Keys of which a slip must be noticed: all of closed sections, longer ones of open sections."""
    keys = [key.split(".") for key in schema_keys()]
    names = {key[-1] for key in keys if key[0] not in OPEN or len(key[-1]) > 3}
    return names | {key[0] for key in keys} - set(OPEN[-1:])


def misspelt(name: str, chance: random.Random) -> str:
    """The name with one letter dropped, doubled, changed, or swapped with the next."""
    at = chance.randrange(len(name) - 1)
    letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
    return chance.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at] + name[at:],
            name[:at] + letter + name[at + 1 :],
            name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        ]
    )


def slips(count: int, seed: int) -> Iterator[Slip]:
    chance = random.Random(seed)
    names = declared_keys()
    while count:
        file = chance.choice(FILES)
        text = (DATA / file).read_text()
        keys = [match for match in KEY.finditer(text) if match["name"] in names]
        key = chance.choice(keys)
        wrong = misspelt(key["name"], chance)
        if wrong in names or wrong == key["name"] or "#" in text[text.rfind("\n", 0, key.start()) + 1 : key.start()]:
            continue
        before = text[: key.start()]
        changed = text[: key.start("name")] + wrong + text[key.end("name") :]
        column = len(before) - before.rfind("\n")
        yield Slip(file, changed, before.count("\n") + 1, column, key["name"])
        count -= 1


def test_slips_in_keys(tmp_path: Path) -> None:
    manager = ConfigurationManager(tmp_path, ".")
    named, total = 0, 200
    for number, slip in enumerate(slips(total, seed=1)):
        path = tmp_path / f"{number}-{slip.file}"
        path.write_text(slip.text)
        try:
            manager.load_config(path)
        except ValidationError as error:
            places = {
                (problem.source.line, problem.source.column): problem.suggestion
                for problem in error.problems
                if isinstance(problem, LocatedProblem) and problem.source
            }
        else:
            places = {}
        assert (slip.line, slip.column) in places, (slip.file, slip.line, slip.intended, places)
        named += places[slip.line, slip.column] == slip.intended
    assert named >= 0.95 * total


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
