"""The settings that an experiment declares and the trainer reads: one class each, for every package."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mtf_utils.settings import Problem, Settings, about, nearest

__all__ = ["CheckpointConfig", "DistributedConfig", "LoggingConfig", "PerformanceConfig", "PreemptionConfig"]

# Those of POSIX by name, so that Windows, which lacks most, can declare a run for Linux.
_POSIX_SIGNALS = {"SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGCONT", "SIGXCPU"}
_SIGNALS = sorted((_POSIX_SIGNALS | set(signal.Signals.__members__)) - {"SIGKILL", "SIGSTOP"})

_TUNING_OPTIONS = ("max_autotune", "max_autotune_gemm", "max_autotune_pointwise", "coordinate_descent_tuning")
_COMPILE_KEYWORDS = ("mode", "backend", "fullgraph", "dynamic", "options")

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(kw_only=True)
class LoggingConfig(Settings):
    """What a run says, and where."""

    log_level: str = field(
        default="INFO",
        metadata=about("The least severe messages that are shown.", choices=LEVELS),
    )
    log_every_n_steps: int = field(
        default=10,
        metadata=about("Distance between two training records.", minimum=1, unit="optimizer steps"),
    )
    progress: Literal["auto", "bar", "lines", "off"] = field(
        default="auto",
        metadata=about("How progress shows; auto: a bar on a terminal and in a notebook, lines elsewhere."),
    )
    use_csv: bool = field(default=False, metadata=about("Also write the metrics as a table, metrics.csv."))
    use_tensorboard: bool = field(default=False, metadata=about("Also write an event file of TensorBoard."))
    use_wandb: bool = field(default=False, metadata=about("Also log to Weights & Biases."))
    wandb_project: str | None = field(default=None, metadata=about("The W&B project; null leaves the choice to W&B."))
    wandb_entity: str | None = field(default=None, metadata=about("The W&B team; null is the user's default."))


@dataclass(kw_only=True)
class CheckpointConfig(Settings):
    """When a run is saved, what is kept, and how it resumes."""

    checkpoint_dir: str = field(
        default="./checkpoints",
        metadata=about("Where checkpoints go; relative to the run directory, else the working directory."),
    )
    save_every_n_epochs: int | None = field(
        default=1, metadata=about("Epochs between periodic saves; null saves none by epoch.", minimum=1)
    )
    save_every_n_steps: int | None = field(
        default=None,
        metadata=about("Distance between saves; null saves none by step.", minimum=1, unit="optimizer steps"),
    )
    save_every_n_minutes: float | None = field(
        default=None, metadata=about("Time between saves; null saves none by time.", above=0, unit="minutes")
    )
    keep_last: int = field(default=2, metadata=about("How many of the newest checkpoints are kept.", minimum=1))
    save_top_k: int = field(
        default=3,
        metadata=about("How many of the best checkpoints by `monitor` are kept; 0 keeps none.", minimum=0),
    )
    monitor: str = field(default="val_loss", metadata=about("The validation metric that ranks checkpoints."))
    mode: Literal["min", "max"] = field(
        default="min", metadata=about("Whether the smallest or the largest `monitor` is the best.")
    )
    async_save: bool = field(
        default=True, metadata=about("Write periodic checkpoints in the background while training goes on.")
    )
    overlap_copy: bool = field(
        default=True,
        metadata=about(
            "In the background also copy parameters and optimizer state, which nothing may change between two updates; "
            "false copies before training goes on: for steps that write to `.data`."
        ),
    )
    resume: Literal["auto", "never"] = field(
        default="auto",
        metadata=about("auto continues from the newest valid checkpoint; never refuses to start over existing ones."),
    )


@dataclass(kw_only=True)
class PreemptionConfig(Settings):
    """How a run answers to being told to go."""

    timeout_minutes: float = field(
        default=5.0,
        metadata=about("Bound of any save, and lead of the warning before a time limit.", above=0, unit="minutes"),
    )
    grace_period_seconds: float = field(
        default=60.0, metadata=about("Bound of an emergency save.", above=0, unit="seconds")
    )
    max_preemptions: int | None = field(
        default=None,
        metadata=about("After how many preemptions the run is not queued again; null is no limit.", minimum=0),
    )
    signals: list[str] = field(
        default_factory=lambda: ["SIGTERM", "SIGUSR1"],
        metadata=about("The signals that announce a preemption."),
    )

    def cross_checks(self) -> Iterable[Problem]:
        """Each signal must exist and be one that a process can catch."""
        for index, name in enumerate(self.signals):
            if name not in _SIGNALS:
                message = f"expected the name of a signal that can be caught, such as SIGTERM, found {name!r}"
                yield Problem(("signals", index), message, name, suggestion=nearest(name, _SIGNALS))


@dataclass(kw_only=True)
class PerformanceConfig(Settings):
    """How data is loaded, and how the model is run."""

    num_workers: int = field(default=0, metadata=about("Loader processes; 0 loads in the training process.", minimum=0))
    pin_memory: bool = field(
        default=True,
        metadata=about("Load batches into page-locked memory; has an effect with an accelerator."),
    )
    prefetch_factor: int = field(
        default=2, metadata=about("Batches loaded ahead by each worker; ignored without workers.", minimum=1)
    )
    persistent_workers: bool = field(
        default=True, metadata=about("Keep workers from epoch to epoch; ignored without workers.")
    )
    compile: bool | str | dict[str, Any] = field(
        default=False,
        metadata=about(
            "Run the model through torch.compile: true, the name of a mode, or keywords of torch.compile (mode, "
            "backend, fullgraph, dynamic, options)."
        ),
    )
    activation_checkpointing: list[str] = field(
        default_factory=list,
        metadata=about(
            "Modules whose activations are computed again in the backward pass, instead of being kept: names of "
            "classes, or patterns of names in the model (`blocks.*`)."
        ),
    )
    channels_last: bool = field(
        default=False, metadata=about("Keep four-dimensional weights and batches in the order N, H, W, C in memory.")
    )

    def cross_checks(self) -> Iterable[Problem]:
        """What goes to torch.compile must be what it takes."""
        asked, known = self.compile, _COMPILE_KEYWORDS
        for key in asked if isinstance(asked, dict) else ():
            if key not in known:
                message = f"unknown keyword {key!r}; torch.compile takes: {', '.join(known)}"
                yield Problem(("compile", key), message, key, suggestion=nearest(key, known), about_key=True)
        if isinstance(asked, str) and not asked:
            yield Problem(("compile",), "expected the name of a mode, such as reduce-overhead, found ''", asked)

    @staticmethod
    def is_tuned_by_timing(asked: object) -> bool:
        """Whether torch.compile, asked for this, takes what turns out fastest, so that results may differ."""
        mode = asked.get("mode") if isinstance(asked, Mapping) else asked
        options = asked.get("options") if isinstance(asked, Mapping) else None
        tuned = options if isinstance(options, Mapping) else {}
        return (isinstance(mode, str) and mode.startswith("max-autotune")) or any(
            tuned.get(name) or tuned.get(name.replace("_", "-")) for name in _TUNING_OPTIONS
        )


@dataclass(kw_only=True)
class DistributedConfig(Settings):
    """How the processes of one run train together; without effect where there is one."""

    strategy: Literal["auto", "none", "ddp", "fsdp"] = field(
        default="auto",
        metadata=about(
            "ddp: every rank has the whole model; fsdp: every rank has a part of it; auto: ddp where torchrun or srun "
            "started several processes; none: every process trains for itself."
        ),
    )
    timeout_minutes: float = field(
        default=10.0,
        metadata=about("How long a rank waits for the others before it gives up.", above=0, unit="minutes"),
    )
    unused_parameters: bool = field(
        default=False,
        metadata=about("Whether a training step may leave parameters of the model unused, which takes some time."),
    )
