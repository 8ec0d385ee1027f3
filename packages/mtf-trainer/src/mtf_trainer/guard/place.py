"""How far a training came, so that it can be compared, and at which batch it failed, so that it can be named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mtf_trainer.state import ResumeState
from mtf_utils.settings import Settings, about

__all__ = ["Fault", "Place"]

MAX_SHOWN = 16


@dataclass(kw_only=True)
class Place(Settings):
    """How far a training came. A training that is repeated passes through the same places in the same order."""

    epoch: int = field(default=0, metadata=about("The epoch, from 0.", minimum=0))
    batch: int = field(default=0, metadata=about("The training batch that is under way or comes next.", minimum=0))
    step: int = field(default=0, metadata=about("Optimizer steps taken.", minimum=0))
    validations: int = field(default=0, metadata=about("Validations begun.", minimum=0))
    val_batch: int | None = field(
        default=None, metadata=about("The batch of the validation under way; null outside of one.", minimum=0)
    )

    @classmethod
    def of(cls, state: ResumeState) -> Self:
        """Where a state stands."""
        return cls(**cls.fields_of(state))

    @staticmethod
    def fields_of(state: ResumeState) -> dict[str, Any]:
        """The same as plain data, quickly."""
        train, val = state.train, state.val
        return {
            "epoch": state.epoch,
            "batch": train.batch_idx if train else 0,
            "step": state.global_step,
            "validations": state.validations,
            "val_batch": val.batch_idx if val else None,
        }

    def is_beyond(self, other: Place) -> bool:
        """Whether a training comes here later than there."""
        return self._key() > other._key()

    def is_behind(self, fault: Fault) -> bool:
        """Whether the training batch of a fault was done here."""
        return (self.epoch, self.batch) > (fault.epoch, fault.batch)

    def _key(self) -> tuple[float, ...]:
        # A validation that is over lies behind all of its batches.
        within = float("inf") if self.val_batch is None else self.val_batch
        return (self.epoch, self.batch, self.step, self.validations, within)

    def __str__(self) -> str:
        if self.val_batch is not None:
            number = f"batch {self.val_batch + 1} of validation {self.validations}"
            return f"{number} (epoch {self.epoch + 1}, step {self.step})"
        return f"batch {self.batch + 1} of epoch {self.epoch + 1} (step {self.step})"


@dataclass(kw_only=True)
class Fault(Settings):
    """What was under way when an attempt failed: the batch, and as much of its content as is known."""

    stage: Literal["train", "val"] = field(metadata=about("Whether it is a batch of training or of validation."))
    epoch: int = field(metadata=about("The epoch, or the number of the validation, from 0.", minimum=0))
    batch: int = field(metadata=about("The batch in it, from 0.", minimum=0))
    phase: str | None = field(default=None, metadata=about("What the loop was at; null if only the batch is known."))
    samples: list[Any] | None = field(
        default=None, metadata=about("The indices of the batch's samples in the dataset; null if unknown.")
    )
    sample: str | None = field(
        default=None, metadata=about("The one among them that could not be read, as Python writes it.")
    )

    @classmethod
    def at(cls, state: ResumeState) -> Self:
        """The batch that is under way in a state, or comes next."""
        return cls(**cls.fields_of(state))

    @staticmethod
    def fields_of(state: ResumeState) -> dict[str, Any]:
        """The same as plain data, quickly."""
        phase = state.phase.value
        if state.val is not None:
            number = max(0, state.validations - 1)
            return {"stage": "val", "epoch": number, "batch": state.val.batch_idx, "phase": phase}
        batch = state.train.batch_idx if state.train else 0
        return {"stage": "train", "epoch": state.epoch, "batch": batch, "phase": phase}

    def is_same_batch(self, other: Fault) -> bool:
        """Whether both are about the same batch, whatever was done with it."""
        return (self.stage, self.epoch, self.batch) == (other.stage, other.epoch, other.batch)

    def may_be_same_phase(self, other: Fault) -> bool:
        """Whether nothing says that different things were done."""
        return self.phase is None or other.phase is None or self.phase == other.phase

    def __str__(self) -> str:
        within = "epoch" if self.stage == "train" else "validation"
        text = f"batch {self.batch + 1} of {within} {self.epoch + 1}" + (f", in {self.phase}" if self.phase else "")
        if self.sample is not None:
            return f"{text}, sample {self.sample}"
        if self.samples:
            more = len(self.samples) - MAX_SHOWN
            shown = ", ".join(repr(sample) for sample in self.samples[:MAX_SHOWN])
            text += f", samples [{shown}{f', and {more} more' if more > 0 else ''}]"
        return text
