"""What every rank has to be given alike: compared before anything is trained, where it would only hang or mix up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import TrainerError

__all__ = ["check_accord", "layout_of"]

SHOWN: Final = 5
"""How many differences are named."""


def layout_of(model: nn.Module) -> dict[str, str]:
    """The names, types and shapes of a model's parameters and buffers."""
    tensors: dict[str, torch.Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: f"{str(each.dtype).removeprefix('torch.')}{list(each.shape)}" for name, each in tensors.items()}


def check_accord(team: Team, given: Mapping[str, Any]) -> None:
    """Compare what this rank was given with what the others were.

    Args:
        team: all ranks, each of which calls this.
        given: as plain data; of anything else only the type counts.

    Raises:
        TrainerError: they differ; the same on every rank.
    """
    if team.size == 1:
        return
    text = json.dumps(given, default=lambda value: type(value).__qualname__)
    if len(set(team.gather(hashlib.sha256(text.encode()).hexdigest()))) == 1:
        return
    first, *others = team.gather(json.loads(text))
    lines = [line for rank, other in enumerate(others, 1) for line in _differences(first, other, rank)]
    shown = "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")
    raise TrainerError(
        f"the ranks were given different things: {shown}. Give every rank the same model, data, callbacks and "
        "settings: the trainer deals the batches itself, and what one rank alone is to do can ask for trainer.rank"
    )


def _differences(first: Any, other: Any, rank: int, place: str = "") -> Iterator[str]:
    if isinstance(first, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*first, *other)):
            yield from _differences(first.get(key), other.get(key), rank, f"{place}.{key}" if place else key)
    elif first != other:
        yield f"{place} is {_shown(first)} on rank 0 and {_shown(other)} on rank {rank}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else repr(value)
