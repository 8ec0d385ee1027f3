"""What a checkpoint of a training holds beside where it stands: gathered from everything that has a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtf_trainer import attestation, rng
from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.data import DataSource
from mtf_trainer.preparation import plain_state
from mtf_trainer.restoring import keeps_state
from mtf_trainer.steps import Engine
from mtf_trainer.telemetry import Telemetry
from mtf_utils.stateful import Stateful

__all__ = ["Contents"]


@dataclass(kw_only=True)
class Contents:
    """The sections `model`, `optimizer` and `training`, made anew whenever they are asked for.

    Attributes:
        engine: has the model and all that trains it.
        train: the data of training.
        val: those of validation; None without any.
        callbacks: in their order.
        registered: what has a state of its own, by name.
        telemetry: how far it has recorded.
        upcoming: epoch and batch that come next, where they are known.
    """

    engine: Engine
    train: DataSource
    val: DataSource | None
    callbacks: Sequence[TrainingCallback]
    registered: Mapping[str, Stateful]
    telemetry: Telemetry
    upcoming: Callable[[], tuple[int, int] | None]
    _closed_data: dict[str, Any] | None = field(default=None, init=False)

    def sections(self) -> dict[str, Any]:
        """All of them; the tensors are the live ones."""
        engine = self.engine
        sections = {"model": plain_state(engine.model), "optimizer": engine.optimizer.state_dict()}
        return self.as_saved(sections | {"training": self.training()})

    def as_saved(self, sections: dict[str, Any]) -> dict[str, Any]:
        """The sections in the form that they have in a checkpoint, where ranks have a part of them."""
        return self.engine.parallel.to_save(sections) if self.engine.parallel is not None else sections

    def training(self) -> dict[str, Any]:
        """The section `training`."""
        streams, place = rng.capture(), self.upcoming()
        return {
            "engine": self.engine.state_dict(),
            "rng": streams.state_dict(),
            "canary": attestation.canary(streams),
            "data": self._data(),
            "upcoming": None if place is None else self.train.peek(*place),  # where it is known for nothing
            "callbacks": [
                {"type": type(callback).__qualname__, "state": callback.state_dict()}
                for callback in self.callbacks
                if keeps_state(callback)
            ],
            "registered": {name: stateful.state_dict() for name, stateful in self.registered.items()},
            "journal_bytes": self.telemetry.flush(),
        }

    def close_data(self) -> None:
        """End the workers; what a checkpoint after that needs of the sources is kept."""
        try:
            self._closed_data = self._data()
        finally:
            self.train.close()
            if self.val is not None:
                self.val.close()

    def _data(self) -> dict[str, Any]:
        if self._closed_data is not None:
            return self._closed_data
        return {"train": self.train.state_dict(), "val": None if self.val is None else self.val.state_dict()}
