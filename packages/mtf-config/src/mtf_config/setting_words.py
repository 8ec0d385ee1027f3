"""Settings as words of a command line: `training.epochs=3`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mtf_config.keys import schema_keys
from mtf_config.overrides import COMMAND_LINE
from mtf_config.reader import parse_text
from mtf_utils.arguments import completed_by
from mtf_utils.cli import CommandError

__all__ = ["add_settings", "complete_keys", "read_settings"]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings as arguments of a verb whose first argument is a file."""
    action = parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="a setting that wins over the files, its value as in YAML, such as training.epochs=3",
    )
    completed_by(action, complete_keys)


def complete_keys(before: Sequence[str]) -> Iterator[str]:
    """Every key of the schema as it is typed, once there is a file."""
    if any(not word.startswith("-") for word in before):
        yield from (f"{key}=" for key in schema_keys())


def read_settings(words: Iterable[str]) -> dict[str, Any]:
    """The settings by their dotted keys.

    Raises:
        CommandError: a word is no setting, or a key is set twice.
        ConfigurationError: a value is not YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandError(f"{word!r}: expected KEY=VALUE, such as training.epochs=3")
        if key in settings:
            raise CommandError(f"{word!r}: {key} is set twice")
        settings[key] = parse_text(value, f"{COMMAND_LINE}: {key}").data
    return settings
