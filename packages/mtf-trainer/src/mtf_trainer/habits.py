"""What steps written for another trainer ask of this one, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["explain"]

_NUMBERS: Final = (
    "return the numbers beside the loss, such as {'loss': loss, 'accuracy': accuracy}; what is no mean of batches goes "
    "to log_metrics({name: number})"
)
_UPDATE: Final = "the step returns the loss, and the trainer goes back from it and updates; there is one optimizer"
_INSTEAD: Final[Mapping[str, str]] = {
    "log": _NUMBERS,
    "log_dict": _NUMBERS,
    "manual_backward": _UPDATE,
    "optimizers": f"it is called optimizer; {_UPDATE}",
    "lr_schedulers": "it is called scheduler, and the trainer advances it, see scheduler_interval",
    "trainer": "this object is the trainer; the model is model",
    "hparams": "settings are in config; what the model is made of is known to the script that makes it",
}


def explain(error: AttributeError) -> None:
    """Add to an error of a step what to write instead, if it asked a trainer for what only others offer."""
    instead = _INSTEAD.get(error.name or "")
    if instead and hasattr(type(error.obj), "training_step"):
        error.add_note(f"this trainer has no {error.name!r}: {instead}")
