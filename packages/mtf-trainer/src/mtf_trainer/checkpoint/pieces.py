"""Tensors of which every rank has some rows: as pieces in a checkpoint, and put together again.

A piece is a dict of `shape` (that of the whole tensor), `rows` (from where up to where the piece goes in the first
dimension) and `piece` (the rows themselves). The pieces of all ranks lie one after another, in the order of the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["Whole", "is_piece", "joined", "mapped", "whole"]

KEYS: Final = frozenset({"shape", "rows", "piece"})


@dataclass(frozen=True)
class Whole:
    """A tensor that was put together from pieces."""

    tensor: torch.Tensor


def is_piece(value: Any) -> bool:
    """Whether this stands for a tensor of which a rank has some rows."""
    return isinstance(value, dict) and value.keys() == KEYS


def joined(ranks: Sequence[Any]) -> Any:
    """One tree of what all ranks saved, in their order; of what is not divided, the first rank's."""
    first = ranks[0]
    if is_piece(first):
        return Whole(torch.cat([each["piece"] for each in ranks]))
    if isinstance(first, dict):
        return {key: joined([each[key] for each in ranks]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(joined(items) for items in zip(*ranks, strict=True))
    return first


def whole(tree: Any) -> Any:
    """The tree with tensors in place of what was put together."""
    return mapped(tree, lambda value: value.tensor if isinstance(value, Whole) else value)


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The tree with what `change` makes of its parts; it returns those as they are that are none of its business."""
    changed = change(tree)
    if changed is not tree:
        return changed
    if isinstance(tree, dict):
        return {key: mapped(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(mapped(value, change) for value in tree)
    return tree
