"""Batches of what can only be iterated: replayed to a position, or driven through its own state."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader

from mtf_trainer.data.generators import Found, find_generators, seed_generators
from mtf_trainer.data.positions import PositionedIterable, check_coverable, positioned_iterable
from mtf_trainer.data.source import DataSource, DataWaitInterrupted, is_stateful, length_of
from mtf_trainer.data.workers import end_iteration, private_copy
from mtf_trainer.errors import TrainerError
from mtf_trainer.rng import capture, derive_seed, preserved, restore, seed_host

__all__ = ["IterableSource", "LoaderStreamSource"]

logger = logging.getLogger(__name__)


class StreamSource(DataSource):
    """Batches of something that is iterated from its beginning.

    Its code runs with global streams of its own, seeded by (seed, stream, epoch, batch), so that the batches do not
    depend on what a model draws meanwhile. With a stateful object the position is reached through its state; without
    one, by iterating again from the beginning of the epoch.
    """

    def __init__(
        self, *, seed: int, stream: str, should_stop: Callable[[], bool], stateful: Any, rewindable: Any = None
    ) -> None:
        self._seed = seed
        self._stream = stream
        self._should_stop = should_stop
        self._stateful = stateful
        # Iterating a loader again begins anew; a stateful dataset goes on from where it is, unless put back.
        self._rewindable = rewindable
        self._at_start: dict[str, Any] | None = None
        self._iterator: Iterator[Any] | None = None
        self._epoch = 0
        self._batch = 0
        self._begun = False
        self._ended = False
        self._loaded: dict[str, Any] | None = None
        self._at_border = False
        self._told = False

    @abstractmethod
    def _iterate(self, epoch: int) -> Iterator[Any]:
        """Start iterating an epoch."""

    @abstractmethod
    def _place(self) -> AbstractContextManager[None]:
        """A context in which the next batch is taken: its streams are those of the position."""

    def open(self, epoch: int, batch: int = 0) -> None:
        """See `DataSource.open`."""
        if epoch < 0 or batch < 0:
            raise TrainerError(f"no batch {batch} of epoch {epoch}: both are counted from 0")
        under_way = self._iterator is not None and not self._ended
        if under_way and (self._epoch, self._batch) == (epoch, batch) and self._loaded is None:
            return
        loaded = self._loaded
        try:
            with preserved():
                self._start(epoch, batch)
                self._replay(batch)
        except DataWaitInterrupted:
            self.close()
            self._loaded = loaded
            raise

    def _start(self, epoch: int, batch: int) -> None:
        """Begin the epoch, or go to the position at once if a state for it was loaded."""
        reached = self._go_to_state(epoch, batch)
        if self._rewindable is not None and not reached:
            if self._at_start is not None and (self._begun or epoch == self._epoch):
                self._rewindable.load_state_dict(self._at_start)
            self._at_start = self._rewindable.state_dict()
        self._begun = True
        self._epoch, self._batch, self._ended = epoch, batch if reached else 0, False
        self._begin()

    def _go_to_state(self, epoch: int, batch: int) -> bool:
        """Hand a loaded state to the stateful object; whether that is the position wanted."""
        state, self._loaded = self._loaded, None
        if state is None or self._stateful is None:
            return False
        here = (state["epoch"], state["batch"]) == (epoch, batch) and not state["ended"]
        follows = state["ended"] and epoch == state["epoch"] + 1 and batch == 0
        if here or follows:
            self._stateful.load_state_dict(state["source"])
            self._at_border = batch == 0
        return bool(here or follows)

    def _replay(self, batch: int) -> None:
        if self._batch < batch and not self._told:
            self._told = True
            logger.info(
                "the %s data can only be iterated: reaching batch %d by taking those before it again",
                self._stream,
                batch,
            )
        while self._batch < batch:
            if self._should_stop():
                raise DataWaitInterrupted(f"a stop was requested while replaying to batch {batch}")
            try:
                self.next()
            except StopIteration:
                raise TrainerError(
                    f"the {self._stream} data ends after {self._batch} batches of epoch {self._epoch + 1}, "
                    f"but training stood at batch {batch}: the data has changed, or does not repeat itself"
                ) from None

    def next(self) -> Any:
        """See `DataSource.next`."""
        if self._iterator is None:
            raise TrainerError("the data source is not open; call open(epoch, batch) first")
        try:
            taken = self._take()
        except StopIteration:
            self._ended, self._begun = True, False
            raise
        self._batch += 1
        return taken

    def _take(self) -> Any:
        try:
            with self._place():
                taken = next(self._iterator)  # type: ignore[arg-type]  # next() has checked that it is there
        except StopIteration:
            # A state taken between two epochs may stand for "nothing left" or for "the next one begins".
            if not self._at_border:
                raise
        else:
            self._at_border = False
            return taken
        self._at_border = False
        with preserved():
            self._begin()
        return self._take()

    def _begin(self) -> None:
        seed_host(derive_seed(self._seed, self._stream, "start", self._epoch))
        self._iterator = self._iterate(self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `DataSource.state_dict`."""
        if self._loaded is not None:
            return self._loaded
        if self._stateful is None or self._iterator is None:
            return {}
        with preserved():
            source = self._stateful.state_dict()
        return {"epoch": self._epoch, "batch": self._batch, "ended": self._ended, "source": source}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataSource.load_state_dict`."""
        self._loaded = state or None

    @contextmanager
    def _streams_here(self) -> Iterator[None]:
        outer = capture(accelerators=False)
        seed_host(derive_seed(self._seed, self._stream, "batch", self._epoch, self._batch))
        try:
            yield
        finally:
            restore(outer)


class IterableSource(StreamSource):
    """Batches that an ordinary iterable yields, or the iterators that a function returns."""

    def __init__(self, batches: Any, *, seed: int, stream: str, should_stop: Callable[[], bool]) -> None:
        stateful = batches if is_stateful(batches) else None
        super().__init__(seed=seed, stream=stream, should_stop=should_stop, stateful=stateful, rewindable=stateful)
        self._batches = batches
        self._found = Found({}, {})
        # A list or tuple runs no code of its own that could draw, and is quickly gone through.
        self._inert = self._told = type(batches) in (list, tuple)
        self.num_batches = length_of(batches)

    def _iterate(self, epoch: int) -> Iterator[Any]:
        if callable(set_epoch := getattr(self._batches, "set_epoch", None)):
            set_epoch(epoch)
        if not self._inert:
            self._found = find_generators({"loader": self._batches})
            check_coverable(self._found, f"{self._stream} loader")
            seed_generators(self._found, self._seed, self._stream, "start", epoch)
        is_iterable = hasattr(self._batches, "__iter__") or hasattr(self._batches, "__getitem__")
        return iter(self._batches if is_iterable else self._batches())

    def _place(self) -> AbstractContextManager[None]:
        if self._inert:
            return nullcontext()
        if self._stateful is not None:
            seed_generators(self._found, self._seed, self._stream, "batch", self._epoch, self._batch)
        return self._streams_here()

    def fingerprint(self) -> dict[str, Any]:
        """See `DataSource.fingerprint`."""
        return {"kind": "iterable", "dataset": type(self._batches).__name__, "batches": self.num_batches}

    def close(self) -> None:
        """See `DataSource.close`."""
        self._iterator = None


class LoaderStreamSource(StreamSource):
    """Batches of a `DataLoader` over an `IterableDataset`.

    Exact at an equal number of workers: which worker yields what depends on it.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int, stream: str, should_stop: Callable[[], bool]) -> None:
        self._loader = loader
        self._dataset: PositionedIterable = positioned_iterable(loader.dataset, seed, stream)
        self._copy = private_copy(loader, should_stop=should_stop, dataset=self._dataset)
        rewindable: PositionedIterable | None = None
        stateful: Any = None
        if is_stateful(self._copy) and (loader.num_workers > 0 or is_stateful(self._dataset)):
            stateful = self._copy
        elif loader.num_workers == 0 and is_stateful(self._dataset):
            stateful = rewindable = self._dataset
        super().__init__(seed=seed, stream=stream, should_stop=should_stop, stateful=stateful, rewindable=rewindable)
        # What an iterable dataset says about its length is an estimate, the more so with several workers.
        self.num_batches = None

    def _iterate(self, epoch: int) -> Iterator[Any]:
        self._dataset.clock[0] = epoch
        self._copy.generator.manual_seed(derive_seed(self._seed, self._stream, "workers"))
        if not self._loader.persistent_workers:
            end_iteration(self._copy)
        try:
            return iter(self._copy)
        except BaseException:
            self.close()  # workers half way into another epoch are of no use
            raise

    def _place(self) -> AbstractContextManager[None]:
        return self._streams_here() if self._loader.num_workers == 0 else nullcontext()

    def fingerprint(self) -> dict[str, Any]:
        """See `DataSource.fingerprint`."""
        return {
            "kind": "iterable dataset",
            "dataset": type(self._loader.dataset).__name__,
            "batch_size": self._loader.batch_size,
            "drop_last": self._loader.drop_last,
            "num_workers": self._loader.num_workers,
            "stateful": self._stateful is not None,
        }

    def close(self) -> None:
        """See `DataSource.close`."""
        end_iteration(self._copy)
        self._iterator = None
