"""Where else metrics go, for people to look at while a run goes on. The journal stays the record of the run."""

from __future__ import annotations

from pathlib import Path

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers.csv_file import CsvLogger
from mtf_trainer.loggers.protocol import LogRecord, MetricLogger
from mtf_trainer.loggers.tensorboard import TensorBoardLogger
from mtf_trainer.loggers.weights_and_biases import WandbLogger

__all__ = ["CsvLogger", "LogRecord", "MetricLogger", "TensorBoardLogger", "WandbLogger", "build_loggers"]


def build_loggers(config: GenericTrainerConfig, directory: Path) -> list[MetricLogger]:
    """The loggers that a run's configuration asks for.

    Args:
        config: the trainer's configuration.
        directory: where a logger keeps what it needs to go on after a restart: beside the checkpoints.

    Raises:
        TrainerError: a package that is needed is not installed.
    """
    loggers: list[MetricLogger] = []
    if config.logging.use_csv:
        loggers.append(CsvLogger())
    if config.logging.use_tensorboard:
        loggers.append(TensorBoardLogger())
    if config.logging.use_wandb:
        loggers.append(WandbLogger(config, directory))
    return loggers
