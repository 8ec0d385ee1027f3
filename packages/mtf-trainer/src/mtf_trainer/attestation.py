"""Says whether what was restored is what was saved, and names what is not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from mtf_trainer.checkpoint.dtypes import as_bytes
from mtf_trainer.checkpoint.files import digest
from mtf_trainer.checkpoint.pieces import is_piece, mapped
from mtf_trainer.rng import RNGState, set_python_state, thaw_numpy

__all__ = ["Digests", "alike", "canary", "differing_components", "digests"]

Digests = dict[str, dict[str, str]]

NAMES = {
    "model": "weights",
    "optimizer": "optimizer",
    "engine.scheduler": "scheduler",
    "engine.scaler": "gradient scaler",
    "engine.gradients": "accumulated gradients",
    "engine.modes": "training modes",
    "engine.frozen": "frozen parameters",
    "rng": "random stream",
    "canary": "next draw of random stream",
    "data": "data position",
    "upcoming": "next batch",
    "callbacks": "callback",
    "registered": "registered state",
}
"""How a place in the checkpoint is called; the order is that of the report."""

UNKNOWN = {"": "None"}
"""The digests of a value that was not known."""


def digests(sections: Mapping[str, Any]) -> Digests:
    """A hash of every value in the sections `model`, `optimizer` and `training`, by component and place.

    Taken before the values are handed out, since what is restored may share their memory.
    """
    training = sections["training"]
    engine = {f"engine.{name}": value for name, value in training["engine"].items()}
    components = {"model": sections["model"], "optimizer": sections["optimizer"], **training, **engine}
    return {place: dict(_leaves(components.get(place), "")) for place in NAMES}


def differing_components(saved: Digests, live: Digests) -> Iterator[str]:
    """Compare what a checkpoint, whose bytes were verified, held with what the run has that took it up.

    Yields:
        One line for every component that differs, with the first place in it that does.
    """
    for component, name in NAMES.items():
        before, after = saved[component], live[component]
        if component == "upcoming" and before == UNKNOWN:  # saved before the first batch of an epoch, not yet drawn
            continue
        for place in dict.fromkeys(itertools.chain(before, after)):
            if before.get(place) != after.get(place):
                yield f"{name} {place}".rstrip()
                break


def alike(one: Any, other: Any) -> bool:
    """Whether two values of a checkpoint are the same, bit for bit; of tensors in pieces, the rest of them."""
    return dict(_leaves(_without_pieces(one), "")) == dict(_leaves(_without_pieces(other), ""))


def _without_pieces(value: Any) -> Any:
    return mapped(value, lambda part: None if is_piece(part) else part)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    elif isinstance(value, torch.Tensor):
        yield place, f"{value.dtype} {tuple(value.shape)} {digest(as_bytes(value.cpu()).numpy().data)}"
    elif isinstance(value, np.ndarray):
        yield place, f"{value.dtype} {value.shape} {digest(value.tobytes())}"
    else:
        yield place, repr(value)


def canary(state: RNGState) -> dict[str, list[float]]:
    """The numbers that each stream would give next, drawn from copies.

    A state that was put back bit for bit still gives other numbers where a library changed how it draws.
    """
    python = random.Random()  # noqa: S311 - not for secrets
    set_python_state(python, state.python)
    numpy = np.random.RandomState()
    if state.numpy["bit_generator"] == "MT19937":
        numpy.set_state(thaw_numpy(state.numpy, numpy.get_state(legacy=False)))
        numpy_draws = [float(numpy.random_sample()), float(numpy.standard_normal())]
    else:
        numpy_draws = []
    draws = {"python": [python.random(), python.gauss(0.0, 1.0)], "numpy": numpy_draws}
    for name, saved in {"cpu": state.torch, **state.accelerators}.items():
        generator = torch.Generator(device=name)
        generator.set_state(saved.cpu())
        normal = torch.randn(2, generator=generator, device=name)
        draws["torch" if name == "cpu" else name] = normal.tolist()
    return draws
