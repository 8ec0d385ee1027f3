"""How the samples of an epoch are dealt to batches and ranks.

All ranks have the same order. A batch of all ranks together is a stretch of it, as long as the batches of the ranks in
sum, so that two ranks with batches of b see what one process sees with batches of 2 b; each takes an equal part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Division", "Layout"]


@dataclass(frozen=True)
class Division:
    """The part of one rank in every stretch.

    Attributes:
        rank: whose part.
        ranks: how many there are.
    """

    rank: int = 0
    ranks: int = 1

    def size(self, count: int) -> int:
        """How many of `count` this rank takes: parts differ by one at most."""
        return count // self.ranks + (self.rank < count % self.ranks)

    def cut(self, first: int, last: int) -> tuple[int, int]:
        """The part of the stretch from `first` up to `last`; never empty, see `factor`."""
        base, extra = divmod(last - first, self.ranks)
        begin = first + self.rank * base + min(self.rank, extra)
        taken = self.size(last - first)
        # A rank for which nothing is left takes a sample that counts nothing: the others wait for its gradients.
        return (begin, begin + taken) if taken else (first, first + 1)

    def factor(self, count: int) -> float:
        """By what to multiply the mean over this part: the mean of the ranks is then that over all `count`."""
        return self.size(count) * self.ranks / count if count % self.ranks else 1.0


@dataclass(frozen=True)
class Layout:
    """Where the batches of an epoch begin.

    Attributes:
        per_batch: units (samples, or what else the sampler gives) that a batch of all ranks takes.
        epoch: the one that was continued by another number of ranks, if any.
        batch: in that epoch, the first batch that is laid out as this says.
        unit: where that one begins.
    """

    per_batch: int
    epoch: int = -1
    batch: int = 0
    unit: int = 0

    def start(self, epoch: int, batch: int) -> int:
        """Where a batch begins."""
        if epoch != self.epoch:
            return batch * self.per_batch
        return self.unit + (batch - self.batch) * self.per_batch

    def end(self, epoch: int, length: int, *, drop_last: bool) -> int:
        """How many of the epoch's units are used."""
        base = self.start(epoch, self.batch)
        return length - (length - base) % self.per_batch if drop_last else length

    def batches(self, epoch: int, end: int) -> int:
        """How many batches an epoch has."""
        base = self.batch if epoch == self.epoch else 0
        return base + -(-(end - self.start(epoch, base)) // self.per_batch)

    def continued(self, epoch: int, batch: int, unit: int) -> Layout:
        """The layout with another batch that begins at a certain unit."""
        return Layout(self.per_batch, epoch, batch, unit)
