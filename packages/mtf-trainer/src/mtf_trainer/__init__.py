"""A PyTorch trainer that can be killed at any instant and goes on to bit-identical results."""

from mtf_utils.collecting import collection_paused as _collection_paused

with _collection_paused():
    from mtf_trainer.builders import build_optimizer, build_scheduler, make_loader, optimizer_steps
    from mtf_trainer.callbacks import TrainingCallback
    from mtf_trainer.checkpoint import Checkpoint, CheckpointStore
    from mtf_trainer.config import GenericTrainerConfig
    from mtf_trainer.errors import (
        CheckpointError,
        CheckpointTimeoutError,
        PreemptionTimeoutError,
        TrainerError,
        TrainingPreempted,
        TrainingStopped,
    )
    from mtf_trainer.inspection import best_checkpoint
    from mtf_trainer.loggers import CsvLogger, LogRecord, MetricLogger, TensorBoardLogger, WandbLogger
    from mtf_trainer.metric_objects import MetricObject
    from mtf_trainer.phases import TrainerPhase
    from mtf_trainer.recomputation import checkpoint_activations
    from mtf_trainer.rng import RNGState, seed_everything
    from mtf_trainer.run_config import RunConfig, load_run_config
    from mtf_trainer.state import ResumeState, TrainMicroState, ValMicroState
    from mtf_trainer.stock import (
        EMA,
        EarlyStopping,
        GradientNorm,
        LearningRateMonitor,
        ModelSummary,
        Profiler,
        Throughput,
        summarize,
    )
    from mtf_trainer.trainer import GenericTrainer
    from mtf_trainer.weights import WeightsReport, load_weights
    from mtf_utils.sections import (
        CheckpointConfig,
        DistributedConfig,
        LoggingConfig,
        PerformanceConfig,
        PreemptionConfig,
    )

__all__ = [
    "EMA",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "CheckpointStore",
    "CheckpointTimeoutError",
    "CsvLogger",
    "DistributedConfig",
    "EarlyStopping",
    "GenericTrainer",
    "GenericTrainerConfig",
    "GradientNorm",
    "LearningRateMonitor",
    "LogRecord",
    "LoggingConfig",
    "MetricLogger",
    "MetricObject",
    "ModelSummary",
    "PerformanceConfig",
    "PreemptionConfig",
    "PreemptionTimeoutError",
    "Profiler",
    "RNGState",
    "ResumeState",
    "RunConfig",
    "TensorBoardLogger",
    "Throughput",
    "TrainMicroState",
    "TrainerError",
    "TrainerPhase",
    "TrainingCallback",
    "TrainingPreempted",
    "TrainingStopped",
    "ValMicroState",
    "WandbLogger",
    "WeightsReport",
    "best_checkpoint",
    "build_optimizer",
    "build_scheduler",
    "checkpoint_activations",
    "load_run_config",
    "load_weights",
    "make_loader",
    "optimizer_steps",
    "seed_everything",
    "summarize",
]
