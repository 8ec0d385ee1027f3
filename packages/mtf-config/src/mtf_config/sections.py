"""The sections of an experiment that its own code reads: model, training, data, optimizer, scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mtf_config.base import OpenSection, Section
from mtf_config.formats import NOT_EMPTY
from mtf_config.plain import plain_problems
from mtf_utils.settings import Problem, about

__all__ = ["DataConfig", "ModelConfig", "OptimizerConfig", "SchedulerConfig", "TrainingConfig"]

_LR_ELSEWHERE = "the learning rate belongs to the training: write training.learning_rate"


@dataclass(init=False, kw_only=True)
class ModelConfig(OpenSection):
    """The model; what it is built from is the user's own."""

    name: str = field(metadata=about("Which model; the training script decides what it means.", check=NOT_EMPTY))


@dataclass(init=False, kw_only=True)
class DataConfig(OpenSection):
    """The data; what it is loaded from is the user's own."""

    dataset_name: str = field(
        metadata=about("Which dataset; the training script decides what it means.", check=NOT_EMPTY)
    )
    train_split: str | None = field(default=None, metadata=about("The part to train on; null: the script's choice."))
    val_split: str | None = field(default=None, metadata=about("The part to validate on; null: the script's choice."))
    test_split: str | None = field(default=None, metadata=about("The part to test on; null: the script's choice."))
    preprocessing: dict[str, Any] = field(
        default_factory=dict, metadata=about("Settings of the preprocessing, as the training script reads them.")
    )

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Preprocessing and further keys hold what a file can hold."""
        yield from super().data_problems(data)
        yield from plain_problems(data.get("preprocessing"), ("preprocessing",))


@dataclass(init=False, kw_only=True)
class OptimizerConfig(OpenSection):
    """The optimizer; further keys go to its constructor."""

    renamed: ClassVar[Mapping[str, str]] = {"lr": _LR_ELSEWHERE, "learning_rate": _LR_ELSEWHERE}

    name: str = field(metadata=about("Which optimizer, such as adamw or sgd.", check=NOT_EMPTY))
    weight_decay: float | None = field(
        default=None, metadata=about("Weight decay; null: the optimizer's default.", minimum=0)
    )
    betas: list[float] | None = field(
        default=None, metadata=about("Decay rates of Adam's averages; null: the optimizer's default.")
    )
    eps: float | None = field(
        default=None, metadata=about("Added to denominators; null: the optimizer's default.", minimum=0)
    )

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Each beta lies in [0, 1)."""
        yield from super().data_problems(data)
        betas = data.get("betas")
        for index, beta in enumerate(betas if isinstance(betas, list | tuple) else ()):
            if isinstance(beta, int | float) and not 0 <= beta < 1:
                yield Problem(("betas", index), f"expected a number >= 0 and < 1, found {beta}", beta)


@dataclass(init=False, kw_only=True)
class SchedulerConfig(OpenSection):
    """How the learning rate changes over the training."""

    name: str = field(metadata=about("Which schedule, such as constant, linear or cosine.", check=NOT_EMPTY))
    warmup_steps: int = field(
        default=0,
        metadata=about(
            "Length W of the linear rise: step s of it, from 0, has (s + 1) / (W + 1) of the learning rate.",
            minimum=0,
            unit="optimizer steps",
        ),
    )
    min_lr: float = field(default=0.0, metadata=about("What the learning rate falls to after the rise.", minimum=0))


@dataclass(kw_only=True)
class TrainingConfig(Section):
    """How long and how fast to train."""

    renamed: ClassVar[Mapping[str, str]] = {
        "num_epochs": "unknown key 'num_epochs'; write epochs",
        "gradient_clip_val": "unknown key 'gradient_clip_val'; write max_grad_norm",
    }

    epochs: int = field(default=100, metadata=about("How often the training data is gone through.", minimum=1))
    max_steps: int | None = field(
        default=None,
        metadata=about(
            "Training ends after so many, if before `epochs`; null: no limit.", minimum=1, unit="optimizer steps"
        ),
    )
    batch_size: int = field(default=32, metadata=about("Examples in a micro-batch of one process.", minimum=1))
    learning_rate: float = field(default=0.001, metadata=about("The highest learning rate.", minimum=0))
    gradient_accumulation_steps: int = field(
        default=1, metadata=about("Micro-batches whose gradients make one optimizer step.", minimum=1)
    )
    max_grad_norm: float | None = field(
        default=None, metadata=about("Gradients are scaled down to this norm over all; null: not.", above=0)
    )
    max_grad_value: float | None = field(
        default=None, metadata=about("Every gradient element is clipped to this magnitude; null: not.", above=0)
    )
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata=about("fp32, or the type of automatic mixed precision.")
    )
    float32_matmul_precision: Literal["highest", "high", "medium"] | None = field(
        default=None,
        metadata=about(
            "How exactly fp32 matrices are multiplied where the hardware has faster ways: high allows TF32, medium "
            "bf16; null: as torch is set."
        ),
    )
    validate_every_n_epochs: int | None = field(
        default=1, metadata=about("Epochs between validations; null: none by epoch.", minimum=1)
    )
    validate_every_n_steps: int | None = field(
        default=None, metadata=about("Optimizer steps between validations; null: none by step.", minimum=1)
    )
    non_finite_loss: Literal["raise", "skip"] = field(
        default="raise", metadata=about("What a NaN or infinite loss does: end training, or leave out its batch.")
    )
