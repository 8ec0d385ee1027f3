"""What is tried again, on the command line: `--retries timeout=10,out_of_memory=2`, `--resume-across-code`."""

from __future__ import annotations

import argparse
import dataclasses
import json

from mtf_config import ParameterGridSearch, RetryConfig
from mtf_utils.cli import CommandError
from mtf_utils.settings import SettingsError, nearest

__all__ = ["add_resume_across_code", "add_retries", "with_retries"]


def add_retries(parser: argparse.ArgumentParser) -> None:
    """The option, for verbs that take a sweep file."""
    parser.add_argument(
        "--retries",
        metavar="KEY=N,...",
        help="keys of slurm.retries that win over the file's base, such as timeout=10,out_of_memory=2; null: no limit",
    )


def add_resume_across_code(parser: argparse.ArgumentParser) -> None:
    """The choice to continue what other code has begun."""
    parser.add_argument(
        "--resume-across-code",
        action="store_true",
        help="continue checkpoints that other code has made (default: leave such runs out)",
    )


def with_retries(search: ParameterGridSearch, text: str | None) -> ParameterGridSearch:
    """The search with these budgets in its base.

    Raises:
        CommandError: a key or a value is not acceptable.
    """
    if not text:
        return search
    chosen = dict(map(_pair, text.split(",")))
    try:
        RetryConfig.from_dict(chosen)
    except SettingsError as error:
        raise CommandError(f"--retries {text}: {error}") from error
    base = search.base_config
    slurm = base.get("slurm") or {}
    again = ParameterGridSearch(base | {"slurm": slurm | {"retries": (slurm.get("retries") or {}) | chosen}})
    again.set_naming_strategy(search.naming_strategy)
    for grid in search.grids:
        again.add_grid(grid)
    return again


def _pair(text: str) -> tuple[str, object]:
    key, equals, value = text.strip().partition("=")
    keys = [item.name for item in dataclasses.fields(RetryConfig)]
    if not equals or key not in keys:
        guess = nearest(key, keys)
        hint = f"did you mean {guess}?" if guess and guess != key else f"known keys are {', '.join(keys)}"
        raise CommandError(f"--retries {text!r}: expected KEY=N ({hint})")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
