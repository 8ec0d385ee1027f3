"""Batches of a map-style dataset by position."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Final

from torch.utils.data import BatchSampler, DataLoader

from mtf_trainer.data.order import Indices, known_indices, rule_of
from mtf_trainer.data.positions import PositionedDataset, Request
from mtf_trainer.data.samplers import OwnSamplers
from mtf_trainer.data.source import DataSource, is_stateful, length_of
from mtf_trainer.data.workers import end_iteration, private_copy
from mtf_trainer.errors import TrainerError
from mtf_trainer.rng import derive_seed, preserved, seed_host

__all__ = ["MapSource"]

logger = logging.getLogger(__name__)

_TAKEN_AT_ONCE = 4096
DEATH_S: Final = 1.0
"""How long the news of a worker's death may take, in seconds."""


@dataclass(frozen=True)
class _Plan:
    """The batches of one epoch, where the rule of the samplers is known.

    Attributes:
        indices: of the samples, in order.
        size: samples per batch; None where every entry is a batch of its own.
        end: how many of the indices are used.
    """

    indices: Indices
    size: int | None
    end: int

    def __len__(self) -> int:
        return self.end if self.size is None else math.ceil(self.end / self.size)

    def batches(self, start: int) -> Iterator[Any]:
        """What the sampler gives for every batch from one on; indices are taken many at a time, which costs less."""
        size = self.size or 1
        at_once = max(1, _TAKEN_AT_ONCE // size)
        for number in range(start, len(self), at_once):
            taken = self.indices.take(number * size, min((number + at_once) * size, self.end))
            if self.size is None:
                yield from taken
            else:
                yield from (taken[place : place + size] for place in range(0, len(taken), size))

    def batch(self, number: int) -> Any:
        """What it gives for one."""
        if self.size is None:
            return self.indices.take(number, number + 1)[0]
        start = number * self.size
        return self.indices.take(start, min(start + self.size, self.end))


class _Order:
    """Stands in for a loader's sampler: yields requests from a position on."""

    def __init__(self, loader: DataLoader[Any], seed: int, stream: str) -> None:
        self._batches: Any = loader.batch_sampler
        self._items: Any = loader.sampler if self._batches is None else getattr(self._batches, "sampler", None)
        self._seed = seed
        self._stream = stream
        top = loader.sampler if self._batches is None else self._batches
        self.own = OwnSamplers(top, loader.dataset)
        self.epoch = 0
        self.start = 0
        self.plan: _Plan | None = None
        ahead = loader.num_workers * (loader.prefetch_factor or 1)
        self.drawn: deque[Request] = deque(maxlen=ahead + 1)

    def __len__(self) -> int:
        return len(self._items if self._batches is None else self._batches)

    def __iter__(self) -> Iterator[Request]:
        # The indices are begun here and now: a user's code in them runs with the streams that `open` set up.
        indices = self._indices()
        requests = map(Request, itertools.repeat(self.epoch), itertools.count(self.start), indices)
        self.drawn.clear()
        return requests if self.plan is not None else map(self._remember, requests)

    def _remember(self, request: Request) -> Request:
        self.drawn.append(request)
        return request

    def seed(self) -> int:
        """What determines the order of the present epoch."""
        return derive_seed(self._seed, self._stream, "order", self.epoch)

    def _indices(self) -> Iterator[Any]:
        self.plan = self._make_plan()
        if self.plan is None:
            return self.own.iterate(self.epoch, self.start, self.seed())
        return self.plan.batches(self.start)

    def _make_plan(self) -> _Plan | None:
        if self._batches is None or type(self._batches) in (list, tuple):
            known = known_indices(self._items if self._batches is None else self._batches, self.epoch, self.seed())
            return _Plan(known, None, known.length) if known is not None else None
        if rule_of(self._batches) is not BatchSampler:
            return None
        known = known_indices(self._items, self.epoch, self.seed())
        if known is None:
            return None
        size, length = self._batches.batch_size, known.length
        return _Plan(known, size, length - length % size if self._batches.drop_last else length)


class MapSource(DataSource):
    """Batches of a `DataLoader` over a map-style dataset, each a function of (seed, stream, epoch, batch).

    Reaching a batch fetches none of those before it. What a `worker_init_fn` makes of a worker's number is not
    covered: which worker makes a batch depends on where the epoch was entered.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int, stream: str, should_stop: Callable[[], bool]) -> None:
        self._loader = loader
        self._worker_seed = derive_seed(seed, stream, "workers")
        self._order = _Order(loader, seed, stream)
        order_as = "sampler" if loader.batch_sampler is None else "batch_sampler"
        self._dataset = PositionedDataset(loader.dataset, loader.collate_fn, seed, stream, workers=loader.num_workers)
        self._copy = private_copy(loader, should_stop=should_stop, dataset=self._dataset, **{order_as: self._order})
        self._iterator: Any = None
        self.num_batches = length_of(loader.sampler if loader.batch_sampler is None else loader.batch_sampler)
        if is_stateful(loader.dataset) and loader.num_workers > 0:
            logger.warning(
                "the %s dataset %s has a state_dict, but it lives in the loader's workers, where it cannot be saved; "
                "use num_workers=0, or make its samples depend on the index alone",
                stream,
                type(loader.dataset).__name__,
            )

    def open(self, epoch: int, batch: int = 0) -> None:
        """See `DataSource.open`."""
        if epoch < 0 or batch < 0 or (self.num_batches is not None and batch > self.num_batches):
            raise TrainerError(f"no batch {batch} of epoch {epoch}: an epoch has {self.num_batches} batches")
        self._order.epoch, self._order.start = epoch, batch
        if not self._loader.persistent_workers:
            self.close()
        # Workers start from the same seed in every epoch: a persistent one that started in the first is no different.
        self._copy.generator.manual_seed(self._worker_seed)
        with preserved():
            # What runs here of a user's code (a sampler's set_epoch) may draw.
            seed_host(self._order.seed())
            try:
                self._iterator = iter(self._copy)
            except BaseException:
                self.close()  # workers half way into another epoch are of no use
                raise

    def next(self) -> Any:
        """See `DataSource.next`."""
        if self._iterator is None:
            raise TrainerError("the data source is not open; call open(epoch, batch) first")
        return next(self._iterator)

    def state_dict(self) -> dict[str, Any]:
        """See `DataSource.state_dict`: the samplers' own state, and a stateful dataset's if no worker has it."""
        state: dict[str, Any] = {"samplers": self._order.own.state_dict()}
        if is_stateful(self._loader.dataset) and self._loader.num_workers == 0:
            with preserved():
                state["dataset"] = self._loader.dataset.state_dict()  # type: ignore[attr-defined]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataSource.load_state_dict`."""
        self._order.own.load_state_dict(state["samplers"])
        if "dataset" in state and is_stateful(self._loader.dataset):
            with preserved():
                self._loader.dataset.load_state_dict(state["dataset"])  # type: ignore[attr-defined]

    def fingerprint(self) -> dict[str, Any]:
        """See `DataSource.fingerprint`."""
        batches = self._loader.batch_sampler
        sampler = self._loader.sampler if rule_of(batches) is BatchSampler or batches is None else batches
        return {
            "kind": "map",
            "dataset": type(self._loader.dataset).__name__,
            "length": length_of(self._loader.dataset),
            "batches": self.num_batches,
            "batch_size": self._loader.batch_size,
            "drop_last": self._loader.drop_last,
            "sampler": type(sampler).__name__,
            "num_workers": self._loader.num_workers,
            "streams": "by position" if self._loader.num_workers else "of the process",
        }

    def peek(self, epoch: int, batch: int) -> list[Any] | None:
        """See `DataSource.peek`; known for the epoch that is open."""
        plan = self._order.plan
        if plan is None or epoch != self._order.epoch or not batch < len(plan):
            return None
        held = plan.batch(batch)
        indices = held if isinstance(held, list) else [held]
        return indices if all(type(index) is int for index in indices) else None

    def samples(self, epoch: int, batch: int) -> list[Any] | None:
        """See `DataSource.samples`."""
        if (known := self.peek(epoch, batch)) is not None:
            return known
        drawn = [each.index for each in self._order.drawn if (each.epoch, each.batch) == (epoch, batch)]
        if not drawn:
            return None
        return list(drawn[0]) if isinstance(drawn[0], list | tuple) else [drawn[0]]

    def lost_batch(self) -> int | None:
        """See `DataSource.lost_batch`; where it is not known which worker died, the first that is not done."""
        workers = getattr(self._iterator, "_workers", ())
        with contextlib.suppress(RuntimeError):  # how torch tells the news, wherever the process is
            wait([worker.sentinel for worker in workers], DEATH_S)
        dead = [number for number, worker in enumerate(workers) if worker.exitcode not in (None, 0)]
        begun = [self._dataset.worker_at(number) for number in (dead or range(self._loader.num_workers))]
        lost = [batch for epoch, batch, done in begun if epoch == self._order.epoch and (dead or not done)]
        return min(lost, default=None)

    def close(self) -> None:
        """See `DataSource.close`."""
        end_iteration(self._copy)
        self._iterator = None
