"""What a model consists of, as a table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import nn

from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.preparation import original

if TYPE_CHECKING:
    from mtf_trainer.trainer import GenericTrainer

__all__ = ["ModelSummary", "summarize"]

logger = logging.getLogger(__name__)


class ModelSummary(TrainingCallback):
    """Says at the start of a run what the model consists of.

    Args:
        max_depth: how deep modules are listed; 0 says only the sum.
    """

    def __init__(self, max_depth: int = 1) -> None:
        self.max_depth = max_depth

    def on_training_start(self, trainer: GenericTrainer) -> None:
        """Say it, through logging."""
        logger.info("the model:\n%s", summarize(original(trainer.model), max_depth=self.max_depth))


def summarize(model: nn.Module, *, max_depth: int = 1) -> str:
    """A table of the modules of a model with the numbers of their parameters, and the sum.

    A parameter that several modules share is counted in each of them, and once in the sum.

    Args:
        model: whose modules are listed, in the order of their names.
        max_depth: how deep; 0 gives only the sum.
    """
    rows = [("module", "type", "parameters", "trainable")]
    for name, module in model.named_modules():
        if name and name.count(".") < max_depth:
            rows.append((name, type(module).__name__, *_counts(module)))
    if len(rows) == 1:
        rows = []
    rows.append(("in all", type(model).__name__, *_counts(model)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {count:>{widths[2]}}  {trained:>{widths[3]}}"
        for name, kind, count, trained in rows
    ]
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return "\n".join([*lines, f"{size / 1e6:,.1f} MB with buffers"])


def _counts(module: nn.Module) -> tuple[str, str]:
    parameters = list(module.parameters())
    every = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return f"{every:,}", f"{trainable:,}"
