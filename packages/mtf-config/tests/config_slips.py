"""Mistakes that people make in real configuration files: misspelt keys and values of the wrong type."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from config_support import DATA

from mtf_config import ConfigurationManager, LocatedProblem, ValidationError
from mtf_config.keys import schema_keys
from mtf_utils.problems import Problem

FILES = ("complete.yaml", "vision.yaml", "language.json")
OPEN = ("model", "data", "optimizer", "scheduler", "custom_params")
KEY = re.compile(r"""(?P<quote>"?)\b(?P<name>[a-z_]+)(?P=quote):[ ]""")
SCALAR = re.compile(r"""(?P<text>"[^"\n]*"|[^\s"'\[\]{}&*|>#,][^\n,}#]*?)[ ]*(?=[,}#\n])""")


class Slip(NamedTuple):
    """A file with one mistake, and where it is.

    Attributes:
        file: the file that was changed.
        text: the changed text.
        line: from 1.
        column: from 1.
        intended: the key that was misspelt, or whose value is wrong.
    """

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


def key_slips(count: int, seed: int) -> Iterator[Slip]:
    """Files with one misspelt key."""
    chance = random.Random(seed)
    names = declared_keys()
    while count:
        file = chance.choice(FILES)
        text = (DATA / file).read_text()
        key = chance.choice([match for match in KEY.finditer(text) if match["name"] in names])
        wrong = misspelt(key["name"], chance)
        if wrong in names or wrong == key["name"] or _in_comment(text, key.start()):
            continue
        changed = text[: key.start("name")] + wrong + text[key.end("name") :]
        yield Slip(file, changed, *_place(text, key.start()), key["name"])
        count -= 1


def value_slips(count: int, seed: int) -> Iterator[Slip]:
    """Files with one value of a kind that its key cannot have."""
    chance = random.Random(seed)
    names = declared_keys()
    while count:
        file = chance.choice(FILES)
        text = (DATA / file).read_text()
        key = chance.choice([match for match in KEY.finditer(text) if match["name"] in names])
        value = SCALAR.match(text, key.end())
        if value is None or _in_comment(text, key.start()):
            continue
        wrong = chance.choice(["[1, 2]", '{"a": 1}', *(['"plenty"'] if _is_typed(value["text"]) else [])])
        changed = text[: value.start()] + wrong + text[value.end("text") :]
        yield Slip(file, changed, *_place(text, value.start()), key["name"])
        count -= 1


def suggestions(
    slips: Iterator[Slip], manager: ConfigurationManager
) -> Iterator[tuple[Slip, dict[tuple[int, int], str | None]]]:
    """Each slip with what is said about its file: place → suggestion."""
    for number, slip in enumerate(slips):
        path = manager.config_dir / f"{number}-{slip.file}"
        path.write_text(slip.text)
        problems: tuple[Problem, ...] = ()
        try:
            manager.load_config(path, use_cache=False)
        except ValidationError as error:
            problems = error.problems
        path.unlink()
        found = [problem for problem in problems if isinstance(problem, LocatedProblem)]
        yield slip, {problem.source[1:]: problem.suggestion for problem in found if problem.source}


def _is_typed(text: str) -> bool:
    """Whether a value is a number or a boolean, so that no string can stand in its place."""
    return bool(re.fullmatch(r"true|false|[-+.\dx][-+.\dxA-Fe]*", text))


def _in_comment(text: str, at: int) -> bool:
    return "#" in text[text.rfind("\n", 0, at) + 1 : at]


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
