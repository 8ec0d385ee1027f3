"""Datasets that know where they are: wrappers that seed random streams by position, in the process that fetches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mtf_trainer.data.generators import Found, find_generators, seed_generators
from mtf_trainer.data.source import is_stateful, name_sample
from mtf_trainer.errors import TrainerError
from mtf_trainer.rng import capture, derive_seed, restore, seed_host

__all__ = ["PositionedDataset", "PositionedIterable", "PositionedStatefulIterable", "Request", "positioned_iterable"]


class Request(NamedTuple):
    """What a loader's sampler yields in place of indices: they and their position."""

    epoch: int
    batch: int
    index: Any


def check_coverable(found: Found, owner: str) -> None:
    """Refuse random state that nothing can repeat.

    Raises:
        TrainerError: naming each place and its remedy.
    """
    if found.uncoverable:
        places = "; ".join(f"{path} {why}" for path, why in found.uncoverable.items())
        raise TrainerError(f"the {owner} has random state that a resumed run could not repeat: {places}")


class PositionedDataset(Dataset[Any]):
    """A map-style dataset whose random streams are a function of the position.

    In a worker, the global streams and the generators that the dataset and the collate function own are seeded by
    (seed, stream, epoch, batch) before each batch. In the training process only the owned generators are: the global
    streams there are the model's too, and the trainer saves them.
    """

    def __init__(self, dataset: Any, collate: Any, seed: int, stream: str, *, workers: int = 0) -> None:
        self.dataset = dataset
        self._collate = collate
        self._seed = seed
        self._stream = stream
        self._found: Found | None = None
        self._epoch: int | None = None
        self._unseeded_epoch: int | None = None
        self._at = torch.full((workers, 3), -1).share_memory_() if workers else None  # type: ignore[no-untyped-call]

    def worker_at(self, worker: int) -> tuple[int, int, bool]:
        """Epoch and number of the batch that a worker began last, -1 before its first, and whether it is done."""
        if self._at is None:
            return -1, -1, True
        epoch, batch, done = self._at[worker].tolist()
        return epoch, batch, done != 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None, "_epoch": None, "_unseeded_epoch": None}

    def __getitems__(self, request: Request) -> Any:
        """The samples of one batch."""
        if self._unseeded_epoch == request.epoch:
            return self._read_all(request.index)
        return self._fetch(request, batched=True)

    def __getitem__(self, request: Request) -> Any:
        """One sample of a loader that makes no batches."""
        return self._fetch(request, batched=False)

    def _fetch(self, request: Request, *, batched: bool) -> Any:
        worker = get_worker_info()
        if worker is None or self._at is None:
            return self._fetch_here(request, batched=batched, in_worker=worker is not None)
        row = self._at[worker.id]  # for whoever wants to know what a worker died of
        row.copy_(torch.tensor((request.epoch, request.batch, 0)))
        fetched = self._fetch_here(request, batched=batched, in_worker=True)
        row[2] = 1
        return fetched

    def _fetch_here(self, request: Request, *, batched: bool, in_worker: bool) -> Any:
        if self._epoch != request.epoch:
            self._epoch, self._found = request.epoch, None
            if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
                set_epoch(request.epoch)
        if self._found is None:
            return self._first_fetch(request, batched=batched, in_worker=in_worker)
        if not in_worker and not self._found.generators:  # what is left to do is to read, until the epoch ends
            self._unseeded_epoch = request.epoch
        self._place(request, self._found, in_worker=in_worker)
        return self._read(request.index, batched=batched)

    def _first_fetch(self, request: Request, *, batched: bool, in_worker: bool) -> Any:
        """Many datasets make their generator at the first access: then the batch is fetched again, seeded."""
        before = self._look()
        streams = None if in_worker else capture()
        self._place(request, before, in_worker=in_worker)
        samples = self._read(request.index, batched=batched)
        self._found = self._look()
        if self._found.identity() == before.identity():
            return samples
        if streams is not None:
            restore(streams)
        self._place(request, self._found, in_worker=in_worker)
        return self._read(request.index, batched=batched)

    def _look(self) -> Found:
        found = find_generators({"dataset": self.dataset, "collate_fn": self._collate})
        check_coverable(found, "data pipeline")
        return found

    def _place(self, request: Request, found: Found, *, in_worker: bool) -> None:
        if not in_worker and not found.generators:  # nothing would be seeded
            return
        seed = derive_seed(self._seed, self._stream, "batch", request.epoch, request.batch)
        if in_worker:
            seed_host(seed)
        seed_generators(found, seed)

    def _read(self, index: Any, *, batched: bool) -> Any:
        return self._read_all(index) if batched else self._read_each([index])[0]

    def _read_all(self, index: Any) -> Any:
        getitems = getattr(self.dataset, "__getitems__", None)
        return getitems(index) if getitems else self._read_each(index)

    def _read_each(self, index: Any) -> list[Any]:
        dataset, reading = self.dataset, None
        try:
            return [dataset[reading := each] for each in index]
        except Exception as error:
            name_sample(error, repr(reading))
            raise


class PositionedIterable(IterableDataset[Any]):
    """An iterable dataset that starts every epoch from streams seeded by (seed, stream, epoch, worker).

    In the training process the source around it takes care of the global streams.

    Attributes:
        clock: the epoch, in memory that workers share: persistent ones are not told otherwise.
    """

    def __init__(self, dataset: Any, seed: int, stream: str) -> None:
        self.dataset = dataset
        self.clock = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._stream = stream
        self._found = Found({}, {})

    def place(self, *parts: int | str) -> None:
        """Seed the streams of this process for one position of the present epoch."""
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        seed = derive_seed(self._seed, self._stream, "iterable", int(self.clock[0]), number, *parts)
        if worker is not None:
            seed_host(seed)
        seed_generators(self._found, seed)

    def __iter__(self) -> Iterator[Any]:
        if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
            set_epoch(int(self.clock[0]))
        self._found = find_generators({"dataset": self.dataset})
        check_coverable(self._found, "dataset")
        self.place("start")
        samples = iter(self.dataset)
        by_its_state = is_stateful(samples) and samples is not self.dataset and get_worker_info() is not None
        if by_its_state:
            return _SeededIterator(self, samples)
        return samples if is_stateful(samples) else _counted(samples)


def _counted(samples: Iterator[Any]) -> Iterator[Any]:
    """The same samples; trouble with one is told with its number."""
    count = 0
    try:
        for sample in samples:
            count += 1
            yield sample
    except Exception as error:
        name_sample(error, _number(count))
        raise


def _number(count: int) -> str:
    worker = get_worker_info()
    return f"number {count}" if worker is None else f"number {count} of worker {worker.id}"


class _SeededIterator:
    """An iterator with a state of its own, in a worker: streams are seeded before every sample."""

    def __init__(self, owner: PositionedIterable, samples: Any) -> None:
        self._owner = owner
        self._samples = samples
        self._count = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._owner.place(self._count)
        sample = next(self._samples)
        self._count += 1
        return sample

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self._samples.state_dict(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._samples.load_state_dict(state["samples"])
        self._count = state["count"]


class PositionedStatefulIterable(PositionedIterable):
    """An iterable dataset with `state_dict`: streams are seeded before every sample.

    A state, also one that a stateful loader takes inside a worker, then tells all: the dataset's own, and the number of
    the next sample.
    """

    def __init__(self, dataset: Any, seed: int, stream: str) -> None:
        super().__init__(dataset, seed, stream)
        self._count = 0
        self._resumed = False
        self._fresh: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None and not self._resumed:
            self._start_afresh()
        count = self._count if self._resumed else 0
        self._resumed = False
        return self._seeded(super().__iter__(), count)

    def _start_afresh(self) -> None:
        """A persistent worker begins every epoch in the state that a new worker would be in."""
        if self._fresh is None:
            self._fresh = copy.deepcopy(self.dataset.state_dict())
        else:
            self.dataset.load_state_dict(copy.deepcopy(self._fresh))

    def _seeded(self, samples: Iterator[Any], count: int) -> Iterator[Any]:
        self._count = count
        while True:
            self.place(self._count)
            try:
                sample = next(samples)
            except StopIteration:
                self._count = 0
                return
            except Exception as error:
                name_sample(error, _number(self._count))
                raise
            self._count += 1
            yield sample

    def state_dict(self) -> dict[str, Any]:
        """The dataset's state and the number of the next sample."""
        return {"dataset": self.dataset.state_dict(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; the next iteration goes on from there."""
        if get_worker_info() is not None and self._fresh is None:
            self._start_afresh()
        self.dataset.load_state_dict(state["dataset"])
        self._count = state["count"]
        self._resumed = True


def positioned_iterable(dataset: Any, seed: int, stream: str) -> PositionedIterable:
    """Wrap an iterable dataset, keeping to itself whether it has a state."""
    return (PositionedStatefulIterable if is_stateful(dataset) else PositionedIterable)(dataset, seed, stream)
