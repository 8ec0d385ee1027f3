"""Callbacks that most trainings want, each with all of its state in the checkpoint."""

from mtf_trainer.stock.averaging import EMA
from mtf_trainer.stock.early_stopping import EarlyStopping
from mtf_trainer.stock.monitors import GradientNorm, LearningRateMonitor, Throughput
from mtf_trainer.stock.profiler import Profiler
from mtf_trainer.stock.summary import ModelSummary, summarize

__all__ = [
    "EMA",
    "EarlyStopping",
    "GradientNorm",
    "LearningRateMonitor",
    "ModelSummary",
    "Profiler",
    "Throughput",
    "summarize",
]
