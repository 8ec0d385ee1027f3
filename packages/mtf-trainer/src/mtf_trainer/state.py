"""Where a run stands, as one value that a person can read and a later release can take up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mtf_trainer.errors import TrainerError
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.rng import RNGState

__all__ = ["STATE_VERSION", "RNGState", "ResumeState", "TrainMicroState", "ValMicroState"]

STATE_VERSION: Final = "v2.0"

MIGRATIONS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""From an older version's dict to the next version's; each sets the new `version`. v2.0 is the first one published."""

Sums = dict[str, list[float]]


@dataclass(slots=True)
class TrainMicroState:
    """The position inside a training epoch.

    Attributes:
        batch_idx: the batch that is under way or, before its load, comes next; from 0.
        micro_step: micro-batches in the accumulation window so far.
        step_done: whether the current batch ended with an optimizer step.
        exhausted: whether the epoch's data are used up.
        skipped: batches of this epoch left out because their loss was not finite.
        epoch_sums: weighted sum and weight of each metric over the epoch.
        record_sums: the same since the last training record.
        last: the metrics of the current batch, for callbacks.
    """

    batch_idx: int = 0
    micro_step: int = 0
    step_done: bool = False
    exhausted: bool = False
    skipped: int = 0
    epoch_sums: Sums = field(default_factory=dict)
    record_sums: Sums = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class ValMicroState:
    """The position inside a validation.

    Attributes:
        batch_idx: the batch that is under way or comes next; from 0.
        at_epoch_end: whether the epoch ends after this validation.
        modes: the modules that were in evaluation mode before it.
        sums: weighted sum and weight of each metric.
    """

    batch_idx: int = 0
    at_epoch_end: bool = True
    modes: list[str] = field(default_factory=list)
    sums: Sums = field(default_factory=dict)


@dataclass(slots=True)
class ResumeState:
    """What is done and what comes next.

    Attributes:
        phase: what comes next.
        epoch: the epoch under way, from 0; once training is complete, the number of epochs.
        global_step: optimizer steps taken.
        version: version of this state's schema.
        train: position inside the epoch; None between epochs.
        val: position inside the validation; None outside of one.
        rng: the random streams; None while the run goes on, since only saving captures them.
        timestamp: when the state was saved, seconds since 1970.
        event_index: callbacks of the current event that have been called.
        validations: validations begun so far.
        validated_step: the optimizer steps that the latest validation saw; -1 before the first.
        val_metrics: result of the epoch's latest validation.
        epoch_metrics: metrics of the last epoch that ended.
        metric: the monitored value, while it is that of the current weights.
        best: metric, value, epoch and global_step of the best validation.
        stop_asked: whether this process has asked for an early end.
        stop_requested: whether training is to end early.
        preemptions: how often the run was preempted.
        samples: training samples that went through the model.
    """

    phase: TrainerPhase
    epoch: int
    global_step: int
    version: str = STATE_VERSION
    train: TrainMicroState | None = None
    val: ValMicroState | None = None
    rng: RNGState | None = None
    timestamp: float = 0.0
    event_index: int = 0
    validations: int = 0
    validated_step: int = -1
    val_metrics: dict[str, float] = field(default_factory=dict)
    epoch_metrics: dict[str, float] = field(default_factory=dict)
    metric: float | None = None
    best: dict[str, Any] | None = None
    stop_asked: bool = False
    stop_requested: bool = False
    preemptions: int = 0
    samples: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON, without the random streams, which are tensors."""
        data = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "rng"}
        data["phase"] = self.phase.value
        data["train"] = dataclasses.asdict(self.train) if self.train else None
        data["val"] = dataclasses.asdict(self.val) if self.val else None
        plain: dict[str, Any] = _floats_to_json(data)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, rng: RNGState | None = None) -> ResumeState:
        """Take back what `to_dict` gave, of this version or of one that can be migrated.

        Raises:
            TrainerError: the version is unknown, or the content is not that of a state.
        """
        migrated = _migrate(dict(data))
        try:
            plain: dict[str, Any] = _floats_from_json(migrated)
            phase = TrainerPhase(plain.pop("phase"))
            train, val = plain.pop("train"), plain.pop("val")
            return cls(
                phase=phase,
                train=TrainMicroState(**train) if train else None,
                val=ValMicroState(**val) if val else None,
                rng=rng,
                **plain,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TrainerError(f"not a training state of version {STATE_VERSION}: {error}") from error


def _migrate(data: dict[str, Any]) -> dict[str, Any]:
    version = data.get("version")
    while version != STATE_VERSION:
        if version not in MIGRATIONS:
            raise TrainerError(
                f"training state of version {version!r}: this release reads {STATE_VERSION}; "
                "continue with the release that wrote it"
            )
        data = MIGRATIONS[version](data)
        version = data.get("version")
    return data


def _floats_to_json(value: Any) -> Any:
    """JSON has no NaN and no infinities: they are written as {"float": "nan"}."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, dict):
        return {key: _floats_to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_floats_to_json(item) for item in value]
    return value


def _floats_from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: _floats_from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats_from_json(item) for item in value]
    return value
