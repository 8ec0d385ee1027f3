"""Host memory that a snapshot is copied into, used again by the next one."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtf_trainer.checkpoint.folder import EncodedSnapshot

__all__ = ["Staging"]


class Staging:
    """Copies snapshots into buffers of its own.

    A buffer is kept for every tensor, because a copy into memory that is already mapped costs a fraction of one into
    fresh memory. One copy is valid at a time: the next call of `copy` writes over it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], torch.Tensor] = {}

    def copy(self, snapshot: EncodedSnapshot) -> EncodedSnapshot:
        """The snapshot with tensors that nothing else refers to."""
        used: dict[tuple[str, str], torch.Tensor] = {}

        def copy_section(section: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            copies = {name: self._copy((section, name), tensor) for name, tensor in tensors.items()}
            used.update({(section, name): copy for name, copy in copies.items()})
            return copies

        result = snapshot.with_tensors(copy_section)
        self._buffers = used
        return result

    def _copy(self, key: tuple[str, str], tensor: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
        return buffer.copy_(tensor)
