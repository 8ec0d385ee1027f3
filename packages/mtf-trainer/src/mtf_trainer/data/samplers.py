"""A user's own samplers: iterated with private random streams, their state kept apart from the epochs before."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from mtf_trainer.data.generators import PrivateStreams, find_generators
from mtf_trainer.data.source import is_stateful

__all__ = ["OwnSamplers"]

# Indices are drawn this many batches at a time: entering and leaving private streams costs more than drawing.
_READ_AHEAD = 16
_PLAIN = (int, float, bool, str, type(None))


class OwnSamplers:
    """A sampler (or batch sampler) whose rule is not known, with the samplers inside it.

    Each epoch iterates a copy, so that lists shuffled in place start every epoch as the user left them. Numbers and
    strings that iterating changed (a count of epochs) are carried on and are part of the state. A sampler with
    `state_dict` and `load_state_dict` is iterated itself, and asked for its state instead.
    """

    def __init__(self, sampler: Any, dataset: Any) -> None:
        self._sampler = sampler
        self._dataset = dataset
        self._epoch: int | None = None
        self._at_start: dict[str, Any] = {}

    def iterate(self, epoch: int, start: int, seed: int) -> Iterator[Any]:
        """The items from number `start` of an epoch; the order is a function of the seed and of the state."""
        self._begin(epoch)
        copies: dict[str, Any] = {}
        working = self._copy(self._sampler, "", copies)
        streams = PrivateStreams(find_generators({"sampler": working}, skip=(self._dataset,)), seed)
        with streams:
            items = iter(working)
        self._carry_over(copies)
        return self._read(items, start, streams, copies)

    def _read(self, items: Iterator[Any], start: int, streams: PrivateStreams, copies: dict[str, Any]) -> Iterator[Any]:
        with streams:
            for _ in islice(items, start):
                pass
        while True:
            with streams:
                chunk = list(islice(items, _READ_AHEAD))
            self._carry_over(copies)
            yield from chunk
            if len(chunk) < _READ_AHEAD:
                return

    def _begin(self, epoch: int) -> None:
        """Bring the samplers' own state to where this epoch began, or note it when the epoch begins now."""
        if self._epoch == epoch:
            self._put(self._at_start)
        for sampler in self._each(self._sampler, "").values():
            if callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(epoch)
        if self._epoch != epoch:
            self._epoch, self._at_start = epoch, self._now()

    def state_dict(self) -> dict[str, Any]:
        """The samplers' state when the present epoch began, and now."""
        return {"epoch": self._epoch, "at_start": self._at_start, "now": self._now()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._epoch, self._at_start = state["epoch"], state["at_start"]
        self._put(state["now"])

    def _each(self, sampler: Any, path: str) -> dict[str, Any]:
        found = {path: sampler}
        for name, value in vars(sampler).items() if hasattr(sampler, "__dict__") else ():
            if isinstance(value, Sampler) and value is not self._dataset:
                found |= self._each(value, f"{path}.{name}")
        return found

    def _now(self) -> dict[str, Any]:
        """What stateful samplers say, and the plain values that iterating was seen to change so far."""
        states: dict[str, Any] = {}
        for path, sampler in self._each(self._sampler, "").items():
            if is_stateful(sampler):
                states[path] = sampler.state_dict()
            elif path in self._at_start:
                states[path] = {name: getattr(sampler, name) for name in self._at_start[path]}
        return states

    def _put(self, states: dict[str, Any]) -> None:
        for path, sampler in self._each(self._sampler, "").items():
            if path not in states:
                continue
            if is_stateful(sampler):
                sampler.load_state_dict(states[path])
            else:
                vars(sampler).update(states[path])

    def _copy(self, sampler: Any, path: str, copies: dict[str, Any]) -> Any:
        if is_stateful(sampler) or not hasattr(sampler, "__dict__"):
            return sampler
        made = copies[path] = copy.copy(sampler)
        for name, value in vars(sampler).items():
            if value is self._dataset:
                continue
            if isinstance(value, Sampler):
                vars(made)[name] = self._copy(value, f"{path}.{name}", copies)
            elif isinstance(value, torch.Tensor):
                vars(made)[name] = value.clone()
            elif type(value) in (list, dict, set) or isinstance(value, np.ndarray):
                vars(made)[name] = value.copy()
        return made

    def _carry_over(self, copies: dict[str, Any]) -> None:
        """Bring to the user's samplers the numbers and strings that iterating their copies changed."""
        originals = self._each(self._sampler, "")
        for path, made in copies.items():
            present = vars(originals[path])
            for name, value in vars(made).items():
                if isinstance(value, _PLAIN) and name in present and present[name] != value:
                    self._at_start.setdefault(path, {}).setdefault(name, present[name])
                    present[name] = value
