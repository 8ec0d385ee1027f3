"""What is said about the documented example, and about files with one mistake each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from config_slips import key_slips, suggestions, value_slips
from config_support import DATA

from mtf_config import ConfigurationManager


def example_values(folder: Path) -> Iterator[tuple[str, str]]:
    """The values that YAML 1.1 would get wrong, from the example as documented and without its quotes."""
    text = (DATA / "complete.yaml").read_text(encoding="utf-8")
    for name, content in (("as it is", text), ("quotes removed", text.replace('"', ""))):
        (folder / "example.yaml").write_text(content, encoding="utf-8")
        config = ConfigurationManager(folder, folder).load_experiment("example.yaml")
        assert config.slurm is not None
        assert config.scheduler is not None
        values = {
            "eps": config.optimizer.eps,
            "min_lr": config.scheduler.min_lr,
            "time_limit": config.slurm.time_limit,
        }
        yield name, ", ".join(f"{key} {value!r} ({type(value).__name__})" for key, value in values.items())


def slip_counts(folder: Path, total: int) -> Iterator[tuple[str, str]]:
    """In how many files the place of the mistake is reported, and the intended key suggested."""
    manager = ConfigurationManager(folder, folder)
    found = list(suggestions(key_slips(total, seed=1), manager))
    placed = sum((slip.line, slip.column) in said for slip, said in found)
    named = sum(said.get((slip.line, slip.column)) == slip.intended for slip, said in found)
    yield "a slip in a key", f"line and column {placed / total:.1%}, the intended key suggested {named / total:.1%}"
    found = list(suggestions(value_slips(total, seed=1), manager))
    placed = sum(set(said) == {(slip.line, slip.column)} for slip, said in found)
    yield "a value of a wrong type", f"line and column {placed / total:.1%}, and nothing else reported"
