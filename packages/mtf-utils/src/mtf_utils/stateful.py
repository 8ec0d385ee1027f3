"""What can be saved with a checkpoint: anything with `state_dict` and `load_state_dict`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """An object whose state can be taken out and put back.

    The state is plain data: dicts, lists, tuples, strings, numbers, bytes, None, and tensors or arrays.
    """

    def state_dict(self) -> dict[str, Any]:
        """The state, complete enough for `load_state_dict` of a fresh object."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
