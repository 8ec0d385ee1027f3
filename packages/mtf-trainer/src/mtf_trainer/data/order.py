"""Which samples batch k holds: the indices of a loader's sampler as a function of (seed, stream, epoch, k)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from mtf_trainer.rng import derive_seed

__all__ = ["Indices", "is_known", "known_indices", "length", "rule_of"]

_BLOCK = 1 << 16
_TORCHDATA: dict[str, type] = {
    "RandomSampler": RandomSampler,
    "BatchSampler": BatchSampler,
    "StatefulDistributedSampler": DistributedSampler,
}


class Indices(ABC):
    """The indices of one epoch, reachable at any position without walking there."""

    def __init__(self, length: int) -> None:
        self.length = length

    @abstractmethod
    def take(self, start: int, stop: int) -> list[Any]:
        """The indices from `start` up to `stop` (at most `length`)."""


class _Slices(Indices):
    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__(len(items))
        self._items = items

    def take(self, start: int, stop: int) -> list[Any]:
        return list(self._items[start:stop])


class _Tensor(Indices):
    """A permutation or a draw, optionally of positions in a sequence of indices."""

    def __init__(self, positions: torch.Tensor, indices: Sequence[Any] | None = None) -> None:
        super().__init__(len(positions))
        self._positions = positions
        self._indices = indices

    def take(self, start: int, stop: int) -> list[Any]:
        positions: list[int] = self._positions[start:stop].tolist()
        return positions if self._indices is None else [self._indices[position] for position in positions]


class _Permutations(Indices):
    """One permutation of n after another; a `RandomSampler` may ask for more or fewer than n."""

    def __init__(self, size: int, length: int, seed: int) -> None:
        super().__init__(length)
        self._size = size
        self._seed = seed
        self._held: tuple[int, torch.Tensor] | None = None

    def _permutation(self, number: int) -> torch.Tensor:
        if self._held is None or self._held[0] != number:
            self._held = (number, torch.randperm(self._size, generator=_generator(self._seed, number)))
        return self._held[1]

    def take(self, start: int, stop: int) -> list[Any]:
        taken: list[int] = []
        while start < stop:
            number, offset = divmod(start, self._size)
            upto = min(self._size, offset + stop - start)
            taken += self._permutation(number)[offset:upto].tolist()
            start += upto - offset
        return taken


class _Draws(Indices):
    """Draws with replacement, made in blocks so that any position is reached at once."""

    def __init__(self, size: int, length: int, seed: int) -> None:
        super().__init__(length)
        self._size = size
        self._seed = seed
        self._held: tuple[int, torch.Tensor] | None = None

    def _block(self, number: int) -> torch.Tensor:
        if self._held is None or self._held[0] != number:
            draws = torch.randint(self._size, (_BLOCK,), generator=_generator(self._seed, number))
            self._held = (number, draws)
        return self._held[1]

    def take(self, start: int, stop: int) -> list[Any]:
        taken: list[int] = []
        while start < stop:
            number, offset = divmod(start, _BLOCK)
            upto = min(_BLOCK, offset + stop - start)
            taken += self._block(number)[offset:upto].tolist()
            start += upto - offset
        return taken


class _Distributed(Indices):
    """One rank's share, as `DistributedSampler` deals it, or the order out of which it deals.

    The ranks agree through the sampler's own seed.
    """

    def __init__(self, sampler: DistributedSampler[Any], epoch: int, *, whole: bool) -> None:
        super().__init__(length(sampler, whole=whole))
        self._size = len(sampler.dataset)  # type: ignore[arg-type]
        self._rank, self._ranks = (0, 1) if whole else (sampler.rank, sampler.num_replicas)
        self._order: torch.Tensor | None = None
        if sampler.shuffle:
            generator = torch.Generator()
            generator.manual_seed(sampler.seed + epoch)
            self._order = torch.randperm(self._size, generator=generator)

    def take(self, start: int, stop: int) -> list[Any]:
        places = (torch.arange(start, stop) * self._ranks + self._rank) % self._size
        taken: list[int] = (places if self._order is None else self._order[places]).tolist()
        return taken


def _generator(seed: int, number: int = 0) -> torch.Generator:
    generator = torch.Generator()
    generator.manual_seed(derive_seed(seed, number))
    return generator


def rule_of(sampler: Any) -> type:
    """The class whose rule a sampler follows exactly: its own, or torch's for those of torchdata's loader."""
    kind = type(sampler)
    if kind.__module__.startswith("torchdata."):
        # The same rules, with a state that positions make needless.
        return _TORCHDATA.get(kind.__name__, kind)
    return kind


def is_known(sampler: Any) -> bool:
    """Whether `known_indices` knows the rule of a sampler."""
    kind = rule_of(sampler)
    if kind is WeightedRandomSampler:
        return bool(sampler.weights.device.type == "cpu")
    return kind in (list, tuple, range, SequentialSampler, RandomSampler, SubsetRandomSampler, DistributedSampler)


def length(sampler: Any, *, whole: bool) -> int:
    """How many indices a known sampler gives in an epoch; `whole` as in `known_indices`."""
    is_divided = whole and rule_of(sampler) is DistributedSampler
    return len(sampler.dataset if is_divided else sampler)


def known_indices(sampler: Any, epoch: int, seed: int, *, whole: bool = False) -> Indices | None:
    """The indices of one epoch of a sampler whose rule is known; None for any other sampler.

    Known are exactly torch's own samplers, lists, tuples and ranges: a subclass may have changed the rule.

    Args:
        sampler: of a loader; nothing is drawn from its generator.
        epoch: for `DistributedSampler`, whose order depends on it and on the sampler's own seed.
        seed: for all others, derived from the run's seed, the stream and the epoch.
        whole: of a `DistributedSampler`, give all ranks' indices: the trainer divides them.
    """
    if not is_known(sampler):
        return None
    kind = rule_of(sampler)
    if kind in (list, tuple, range):
        return _Slices(sampler)
    if kind is SequentialSampler:
        return _Slices(range(len(sampler.data_source)))
    if kind is RandomSampler:
        rule = _Draws if sampler.replacement else _Permutations
        return rule(len(sampler.data_source), sampler.num_samples, seed)
    if kind is SubsetRandomSampler:
        return _Tensor(torch.randperm(len(sampler.indices), generator=_generator(seed)), sampler.indices)
    if kind is WeightedRandomSampler:
        draws = torch.multinomial(sampler.weights, sampler.num_samples, sampler.replacement, generator=_generator(seed))
        return _Tensor(draws)
    return _Distributed(sampler, epoch, whole=whole)
