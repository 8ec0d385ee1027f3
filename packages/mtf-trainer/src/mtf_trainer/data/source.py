"""What the training loop asks of data: batches of one loader by position."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np
from torch.utils.data import Subset

from mtf_trainer.errors import TrainerError

__all__ = ["DataSource", "DataWaitInterrupted", "choice_of", "is_stateful", "length_of", "name_sample", "named_sample"]

_NAMED: Final = re.compile(r"^could not read sample (.+)$", re.MULTILINE)


def is_stateful(thing: Any) -> bool:
    """Whether an object has `state_dict` and `load_state_dict`."""
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def length_of(thing: Any) -> int | None:
    """The length of an object, None if it has none."""
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None


def choice_of(dataset: Any) -> str | None:
    """A digest of the indices by which torch's `Subset` takes samples of another dataset; None for any other."""
    taken = hashlib.sha256()
    chosen = False
    while isinstance(dataset, Subset):
        indices = np.asarray(dataset.indices)
        is_numbers = indices.dtype.kind in "iu"
        taken.update(indices.astype(np.int64).tobytes() if is_numbers else repr(list(dataset.indices)).encode())
        dataset, chosen = dataset.dataset, True
    return taken.hexdigest()[:8] if chosen else None


def name_sample(error: BaseException, sample: str) -> None:
    """Say in the exception which sample could not be read."""
    error.add_note(f"could not read sample {sample}")


def named_sample(error: BaseException) -> str | None:
    """Which sample could not be read, if the exception or what caused it says so.

    One from a loader worker is made anew with the text of the original, which includes its notes.
    """
    seen: BaseException | None = error
    while seen is not None:
        for text in (*getattr(seen, "__notes__", ()), str(seen)):
            if found := _NAMED.search(text):
                return found[1]
        seen = seen.__cause__
    return None


class DataWaitInterrupted(TrainerError):  # noqa: N818 - an interruption, not a fault
    """A stop was requested while waiting for data; the batch waited for was not consumed."""


class DataSource(ABC):
    """Batches of one loader by position.

    What a source yields depends on the seed, the stream and the position, and on nothing that happened before.
    `open` and `state_dict` leave the global random streams of the process as they are.

    Attributes:
        num_batches: batches per epoch; None when that is not known for sure.
    """

    num_batches: int | None

    @abstractmethod
    def open(self, epoch: int, batch: int = 0) -> None:
        """Make the next `next()` give batch number `batch` of epoch `epoch`, both counted from 0.

        Raises:
            DataWaitInterrupted: if a stop was requested while batches were being replayed; open again later.
            TrainerError: if the epoch has no such position.
        """

    @abstractmethod
    def next(self) -> Any:
        """The next batch.

        Raises:
            StopIteration: at the end of the epoch.
            DataWaitInterrupted: if a stop was requested while waiting for workers; opening at the same position again,
                in this process or a later one, gives the batch that was waited for.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What the position alone does not tell, as tensors and plain data."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; call it before `open`."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON that tells whether another process has the same data: compared when a run resumes."""

    def choice(self) -> str | None:
        """Which samples of a larger dataset these are, as a word of a few letters; None where all are taken."""
        return None

    def peek(self, epoch: int, batch: int) -> list[Any] | None:
        """Which samples a batch holds, where that is known without asking the dataset or drawing; else None."""
        return None

    def samples(self, epoch: int, batch: int) -> list[Any] | None:
        """Which samples a batch of the open epoch holds, if that can be told; for people, after trouble."""
        return self.peek(epoch, batch)

    def lost_batch(self) -> int | None:
        """The batch of the open epoch that a loader worker, of whose death something was heard, was at."""
        return None

    def batches_in(self, epoch: int) -> int | None:
        """Batches of a certain epoch: one that another number of ranks began may have more, or fewer."""
        return self.num_batches

    def factor(self, epoch: int, batch: int) -> float:
        """How much this rank's batch counts among those of all: 1, unless they have unequal parts."""
        return 1.0

    def take_over(self, epoch: int, batch: int) -> None:
        """Go on where another number of ranks stood before batch `batch`, after `load_state_dict` of their state."""
        raise TrainerError(
            f"this data cannot be dealt anew at batch {batch} of epoch {epoch}: use as many ranks as before"
        )

    @abstractmethod
    def close(self) -> None:
        """End workers and drop the position; `open` may follow."""
