"""Batches by position: whatever loader a user hands in, batch k of epoch e is a function of (seed, stream, e, k)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtf_trainer.data.division import Division
from mtf_trainer.data.mapstyle import ALONE, MapSource
from mtf_trainer.data.source import DataSource, DataWaitInterrupted, is_stateful, named_sample
from mtf_trainer.data.streamed import IterableSource, LoaderStreamSource
from mtf_trainer.errors import TrainerError

__all__ = ["DataSource", "DataWaitInterrupted", "Division", "make_source", "named_sample"]


def _never() -> bool:
    return False


def make_source(
    loader: Any, *, seed: int, stream: str, should_stop: Callable[[], bool] = _never, division: Division = ALONE
) -> DataSource:
    """Make a source of batches by position from what a user calls a loader.

    Args:
        loader: a `DataLoader` over a map-style or an iterable dataset, a loader with `state_dict` and
            `load_state_dict`, an iterable that can be iterated again (a list of batches), or a function without
            arguments that returns a fresh iterator. It is not changed.
        seed: the run's seed.
        stream: what the data is for, `train` or `val`: two streams of one seed have nothing in common.
        should_stop: polled while waiting for data; once it is true, waiting ends with `DataWaitInterrupted`.
        division: which part of every batch is this rank's.

    Raises:
        TrainerError: if batches cannot be had by position from it; the message says what to hand in instead.
    """
    if isinstance(loader, DataLoader):
        return _from_loader(loader, seed, stream, should_stop, division)
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise TrainerError(
            f"the {stream} loader is a dataset, a {type(loader).__name__}: hand in DataLoader(dataset, batch_size=…), "
            "with batch_size=None if each of its items is a batch"
        )
    _check_divisible(division, stream)
    if isinstance(loader, Iterator) and not is_stateful(loader):
        raise TrainerError(
            f"the {stream} loader is a {type(loader).__name__}, which can be iterated only once, so neither a second "
            "epoch nor a resumed run could read it; pass a list, an iterable, or a function that returns a new one"
        )
    if not isinstance(loader, Iterable) and not callable(loader) and not hasattr(loader, "__getitem__"):
        raise TrainerError(
            f"the {stream} loader must be a DataLoader, an iterable of batches or a function that returns one, "
            f"found {type(loader).__name__}"
        )
    return IterableSource(loader, seed=seed, stream=stream, should_stop=should_stop)


def _check_divisible(division: Division, stream: str) -> None:
    if division.ranks > 1:
        raise TrainerError(
            f"the {stream} data can only be iterated, so it cannot be divided among {division.ranks} ranks: pass a "
            "DataLoader over a dataset with an index"
        )


def _from_loader(
    loader: DataLoader[Any], seed: int, stream: str, should_stop: Callable[[], bool], division: Division
) -> DataSource:
    if not getattr(loader, "in_order", True):
        raise TrainerError(
            f"the {stream} loader has in_order=False: its batches come in an order that no run can repeat; "
            "leave it True"
        )
    for name in ("sampler", "batch_sampler"):
        if isinstance(getattr(loader, name), Iterator):
            raise TrainerError(
                f"the {name} of the {stream} loader is a {type(getattr(loader, name)).__name__}, which can be iterated "
                "only once; pass a list or a Sampler"
            )
    if isinstance(loader.dataset, IterableDataset):
        _check_divisible(division, stream)
        return LoaderStreamSource(loader, seed=seed, stream=stream, should_stop=should_stop)
    return MapSource(loader, seed=seed, stream=stream, should_stop=should_stop, division=division)
