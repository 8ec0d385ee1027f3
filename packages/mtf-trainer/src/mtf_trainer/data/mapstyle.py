"""Batches of a map-style dataset by position."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Final

from torch.utils.data import BatchSampler, DataLoader

from mtf_trainer.data.division import Division, Layout
from mtf_trainer.data.order import Indices, is_known, known_indices, length, rule_of
from mtf_trainer.data.positions import PositionedDataset, Request
from mtf_trainer.data.samplers import OwnSamplers
from mtf_trainer.data.source import DataSource, choice_of, is_stateful, length_of
from mtf_trainer.data.workers import end_iteration, is_plain, private_copy
from mtf_trainer.errors import TrainerError
from mtf_trainer.rng import derive_seed, preserved, seed_host

__all__ = ["MapSource"]

logger = logging.getLogger(__name__)

ALONE: Final = Division()
_TAKEN_AT_ONCE: Final = 4096

DEATH_S: Final = 1.0
"""How long the news of a worker's death may take, in seconds."""


@dataclass(frozen=True)
class _Plan:
    """The batches of one epoch, where the rule of the samplers is known.

    Attributes:
        indices: of the samples, in order.
        epoch: which one.
        end: how many of the indices are used.
        layout: where the batches begin.
        division: which part of them is this rank's.
        is_batched: whether a batch is a list of indices; else every entry is a batch of its own.
    """

    indices: Indices
    epoch: int
    end: int
    layout: Layout
    division: Division
    is_batched: bool

    def __len__(self) -> int:
        return self.layout.batches(self.epoch, self.end)

    def stretch(self, number: int) -> tuple[int, int]:
        """What the batches of all ranks take of the order."""
        start = self.layout.start(self.epoch, number)
        return start, min(start + self.layout.per_batch, self.end)

    def batches(self, start: int) -> Iterator[Any]:
        """What the sampler gives for every batch from one on; indices are taken many at a time, which costs less."""
        at_once = max(1, _TAKEN_AT_ONCE // self.layout.per_batch)
        for number in range(start, len(self), at_once):
            stretches = [self.stretch(each) for each in range(number, min(number + at_once, len(self)))]
            base = stretches[0][0]
            taken = self.indices.take(base, stretches[-1][1])
            for stretch in stretches:
                begin, end = self.division.cut(*stretch)
                yield taken[begin - base : end - base] if self.is_batched else taken[begin - base]

    def batch(self, number: int) -> Any:
        """What the sampler gives for that batch, or for this rank's part of it."""
        taken = self.indices.take(*self.division.cut(*self.stretch(number)))
        return taken if self.is_batched else taken[0]


class _Order:
    """Stands in for a loader's sampler: yields requests from a position on."""

    def __init__(self, loader: DataLoader[Any], seed: int, stream: str, division: Division) -> None:
        self._batches: Any = loader.batch_sampler
        self._items: Any = loader.sampler if self._batches is None else getattr(self._batches, "sampler", None)
        self._seed = seed
        self._stream = stream
        self._division = division
        top = loader.sampler if self._batches is None else self._batches
        self.own = OwnSamplers(top, loader.dataset)
        # What batches are made of: samples if they can be cut anew, else whatever the topmost sampler gives.
        self._by_sample = rule_of(self._batches) is BatchSampler and is_known(self._items)
        self._drop_last = bool(getattr(self._batches, "drop_last", False)) and (self._by_sample or division.ranks > 1)
        self.layout = self.layout_for(division.ranks)
        self.epoch = 0
        self.start = 0
        self.plan: _Plan | None = None
        self.factors: dict[int, float] = {}
        ahead = loader.num_workers * (loader.prefetch_factor or 1)
        self.drawn: deque[Request] = deque(maxlen=ahead + 1)

    def layout_for(self, ranks: int) -> Layout:
        """The layout of so many ranks."""
        return Layout(ranks * (self._batches.batch_size if self._by_sample else 1))

    def units(self) -> int | None:
        """How many samples, or what else batches are made of, an epoch has; None if nobody knows."""
        if self._by_sample:
            return length(self._items, whole=self._division.ranks > 1)
        return length_of(self._items if self._batches is None else self._batches)

    def num_batches(self, epoch: int) -> int | None:
        """Batches of an epoch; None if nobody knows."""
        units = self.units()
        if units is None:
            return None
        return self.layout.batches(epoch, self.layout.end(epoch, units, drop_last=self._drop_last))

    def __len__(self) -> int:
        count = self.num_batches(self.epoch)
        if count is None:
            raise TypeError("the sampler has no length")
        return count

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

    def factor(self, number: int) -> float:
        """See `DataSource.factor`; of the epoch that is open."""
        if self.plan is None:
            return self.factors.pop(number, 1.0)
        first, last = self.plan.stretch(number)
        return self._division.factor(last - first)

    def _indices(self) -> Iterator[Any]:
        self.plan = self._make_plan()
        self.factors = {}
        if self.plan is None:
            taken = self.own.iterate(self.epoch, self.layout.start(self.epoch, self.start), self.seed())
            return taken if self._division.ranks == 1 else self._dealt(taken)
        return self.plan.batches(self.start)

    def _dealt(self, taken: Iterator[Any]) -> Iterator[Any]:
        """This rank's of the batches that a user's own sampler makes: they are dealt as they come."""
        rank, ranks = self._division.rank, self._division.ranks
        for number in itertools.count(self.start):
            hand = list(itertools.islice(taken, ranks))
            if not hand or (self._drop_last and len(hand) < ranks):
                return
            sizes = [len(item) if isinstance(item, list | tuple) else 1 for item in hand]
            mine = sizes[rank] if rank < len(hand) else 0
            if mine * ranks != sum(sizes):
                self.factors[number] = mine * ranks / sum(sizes)
            yield hand[rank] if rank < len(hand) else hand[0]

    def _make_plan(self) -> _Plan | None:
        is_listed = self._batches is None or type(self._batches) in (list, tuple)
        if not is_listed and not self._by_sample:
            return None
        source = self._items if self._batches is None or self._by_sample else self._batches
        known = known_indices(source, self.epoch, self.seed(), whole=self._division.ranks > 1)
        if known is None:
            return None
        end = self.layout.end(self.epoch, known.length, drop_last=self._drop_last)
        return _Plan(known, self.epoch, end, self.layout, self._division, self._by_sample)


class MapSource(DataSource):
    """Batches of a `DataLoader` over a map-style dataset, each a function of (seed, stream, epoch, batch).

    Reaching a batch fetches none of those before it. What a `worker_init_fn` makes of a worker's number is not
    covered: which worker makes a batch depends on where the epoch was entered.

    Of several ranks each has the same order, takes its part of every batch, and has random streams of its own.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        seed: int,
        stream: str,
        should_stop: Callable[[], bool],
        division: Division = ALONE,
    ) -> None:
        self._loader = loader
        own_seed = derive_seed(seed, "rank", division.rank) if division.rank else seed
        self._worker_seed = derive_seed(own_seed, stream, "workers")
        self._ranks = division.ranks
        self._order = _Order(loader, seed, stream, division)
        order_as = "sampler" if loader.batch_sampler is None else "batch_sampler"
        workers = loader.num_workers
        self._dataset = PositionedDataset(loader.dataset, loader.collate_fn, own_seed, stream, workers=workers)
        self._copy = private_copy(loader, should_stop=should_stop, dataset=self._dataset, **{order_as: self._order})
        self._is_plain = workers == 0 and not loader.pin_memory and is_plain(loader)
        self._iterator: Any = None
        self.num_batches = self._order.num_batches(-1)
        self._left: Layout | None = None
        if is_stateful(loader.dataset) and loader.num_workers > 0:
            logger.warning(
                "the %s dataset %s has a state_dict, but it lives in the loader's workers, where it cannot be saved; "
                "use num_workers=0, or make its samples depend on the index alone",
                stream,
                type(loader.dataset).__name__,
            )

    def open(self, epoch: int, batch: int = 0) -> None:
        """See `DataSource.open`."""
        count = self.batches_in(epoch)
        if epoch < 0 or batch < 0 or (count is not None and batch > count):
            raise TrainerError(f"no batch {batch} of epoch {epoch}: an epoch has {count} batches")
        self._order.epoch, self._order.start = epoch, batch
        if not self._loader.persistent_workers:
            self.close()
        # Workers start from the same seed in every epoch: a persistent one that started in the first is no different.
        self._copy.generator.manual_seed(self._worker_seed)
        with preserved():
            # What runs here of a user's code (a sampler's set_epoch) may draw.
            seed_host(self._order.seed())
            try:
                self._iterator = self._fetched_here() if self._is_plain else iter(self._copy)
            except BaseException:
                self.close()  # workers half way into another epoch are of no use
                raise

    def _fetched_here(self) -> Iterator[Any]:
        """What torch's iterator without workers gives, without telling a profiler of every batch."""
        loader = self._loader
        fetch = self._dataset.__getitem__ if loader.batch_sampler is None else self._dataset.__getitems__
        return map(loader.collate_fn, map(fetch, iter(self._order)))

    def next(self) -> Any:
        """See `DataSource.next`."""
        if self._iterator is None:
            raise TrainerError("the data source is not open; call open(epoch, batch) first")
        return next(self._iterator)

    def batches_in(self, epoch: int) -> int | None:
        """See `DataSource.batches_in`."""
        return self.num_batches if epoch != self._order.layout.epoch else self._order.num_batches(epoch)

    def factor(self, epoch: int, batch: int) -> float:
        """See `DataSource.factor`."""
        return 1.0 if self._ranks == 1 else self._order.factor(batch)

    def state_dict(self) -> dict[str, Any]:
        """See `DataSource.state_dict`: the samplers' own state, and a stateful dataset's if no worker has it."""
        layout = self._order.layout
        state: dict[str, Any] = {
            "samplers": self._order.own.state_dict(),
            "ranks": self._ranks,
            "layout": [layout.epoch, layout.batch, layout.unit],
        }
        if is_stateful(self._loader.dataset) and self._loader.num_workers == 0:
            with preserved():
                state["dataset"] = self._loader.dataset.state_dict()  # type: ignore[attr-defined]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataSource.load_state_dict`."""
        self._order.own.load_state_dict(state["samplers"])
        ranks, layout = state.get("ranks", 1), state.get("layout", (-1, 0, 0))
        if ranks == self._ranks:
            self._order.layout = self._order.layout.continued(*layout)
        else:
            self._left = self._order.layout_for(ranks).continued(*layout)
        if "dataset" in state and is_stateful(self._loader.dataset):
            with preserved():
                self._loader.dataset.load_state_dict(state["dataset"])  # type: ignore[attr-defined]

    def take_over(self, epoch: int, batch: int) -> None:
        """See `DataSource.take_over`."""
        if self._left is not None:
            unit, units = self._left.start(epoch, batch), self._order.units()
            unit = unit if units is None else min(unit, units)  # the last batch may have been a smaller one
            self._order.layout = self._order.layout.continued(epoch, batch, unit)
            self._left = None

    def fingerprint(self) -> dict[str, Any]:
        """See `DataSource.fingerprint`."""
        batches = self._loader.batch_sampler
        sampler = self._loader.sampler if rule_of(batches) is BatchSampler or batches is None else batches
        return {
            "kind": "map",
            "dataset": type(self._loader.dataset).__name__,
            "length": length_of(self._loader.dataset),
            "batches": length_of(self._loader.sampler if batches is None else batches),
            "batch_size": self._loader.batch_size,
            "drop_last": self._loader.drop_last,
            "sampler": type(sampler).__name__,
            "num_workers": self._loader.num_workers,
            "streams": "by position" if self._loader.num_workers else "of the process",
        }

    def choice(self) -> str | None:
        """See `DataSource.choice`."""
        return choice_of(self._loader.dataset)

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
