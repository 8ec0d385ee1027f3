"""Random generators that an object owns: found by walking its attributes, seeded by position, swapped in and out."""

from __future__ import annotations

import functools
import inspect
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

import numpy as np
import torch

from mtf_trainer.rng import RNGState, capture, derive_seed, restore, seed_host

__all__ = ["Found", "PrivateStreams", "find_generators", "seed_generators"]

_MAX_DEPTH = 8
_MAX_ITEMS = 256
_MAX_OBJECTS = 20_000
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType, torch.Tensor, np.ndarray)
_GENERATORS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)


@dataclass(frozen=True)
class Found:
    """Generators of one object, and random state that cannot be covered.

    Attributes:
        generators: by path from the object, each generator once.
        uncoverable: by path, why the state there cannot be repeated, and the remedy.
    """

    generators: dict[str, Any]
    uncoverable: dict[str, str]

    def identity(self) -> dict[str, int]:
        """Which generator object lies at which path."""
        return {path: id(generator) for path, generator in self.generators.items()}


def find_generators(roots: Mapping[str, Any], *, skip: tuple[Any, ...] = ()) -> Found:
    """Find generator objects among the attributes of objects.

    Followed are attributes (also slots), dicts, lists and tuples (the first 256 items), partial functions, bound
    methods, closures, and module-level generators that a function or a method names. State inside compiled extensions
    cannot be seen.

    Args:
        roots: where to start, by the name that paths begin with.
        skip: objects that are not entered.
    """
    found = Found({}, {})
    # Global streams are covered as such; an object that refers to one does not own it.
    seen = {id(thing) for thing in (*skip, *_global_streams())}
    # Whatever the walk makes on the way is kept until its end, so that no identity is used twice.
    alive: list[Any] = []
    pending = deque(
        (name, root, 0) for name, root in roots.items()
    )  # breadth first: what is near is found even in an object that is huge
    while pending and len(alive) < _MAX_OBJECTS:
        path, thing, depth = pending.popleft()
        if isinstance(thing, _LEAVES) or id(thing) in seen:
            continue
        seen.add(id(thing))
        alive.append(thing)
        if isinstance(thing, _GENERATORS):
            _note(found, path, thing, seen)
        elif depth < _MAX_DEPTH:
            pending.extend((path + step, child, depth + 1) for step, child in _children(thing))
    return found


def _global_streams() -> tuple[Any, ...]:
    numpy_global = np.random.mtrand._rand
    return (random._inst, numpy_global, torch.default_generator)


def _note(found: Found, path: str, generator: Any, seen: set[int]) -> None:
    if isinstance(generator, random.SystemRandom):
        found.uncoverable[path] = (
            "draws from the operating system, which cannot be repeated; use random.Random() instead"
        )
        return
    bits = _bit_generator(generator)
    if bits is not None:
        seen.add(id(bits))
        try:
            type(bits)(0)
        except TypeError:
            found.uncoverable[path] = (
                f"is a {type(bits).__name__}, which cannot be seeded by a number; use numpy.random.default_rng()"
            )
            return
    found.generators[path] = generator


def _bit_generator(generator: Any) -> Any:
    if isinstance(generator, np.random.RandomState):
        return generator._bit_generator
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator
    return generator if isinstance(generator, np.random.BitGenerator) else None


def _children(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        if isinstance(thing, dict):
            for _, (key, value) in zip(range(_MAX_ITEMS), list(thing.items()), strict=False):
                yield f"[{key!r}]", value
        return
    if isinstance(thing, list | tuple):
        for index, value in enumerate(thing[:_MAX_ITEMS]):
            yield f"[{index}]", value
        return
    if isinstance(thing, functools.partial):
        yield from ((".func", thing.func), (".args", thing.args), (".keywords", thing.keywords))
        return
    if isinstance(thing, MethodType):
        yield from ((".__self__", thing.__self__), (".__func__", thing.__func__))
        return
    if isinstance(thing, FunctionType):
        yield from _of_function(thing)
        return
    yield from _of_object(thing)


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".<{name}>", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _GENERATORS):
            yield f".{function.__module__}:{name}", value


def _of_object(thing: Any) -> Iterator[tuple[str, Any]]:
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        yield f".{name}", value
    for kind in type(thing).__mro__:
        if kind.__module__.partition(".")[0] in ("builtins", "torch", "numpy", "typing", "abc", "collections"):
            continue
        for name, value in list(vars(kind).items()):
            if inspect.ismemberdescriptor(value) and hasattr(thing, name):
                yield f".{name}", getattr(thing, name)
            elif isinstance(value, (FunctionType, *_GENERATORS)):
                yield f".{name}", value


def seed_generators(found: Found, seed: int, *parts: int | str) -> None:
    """Seed each generator in place by (seed, parts, its path)."""
    for path, generator in found.generators.items():
        value = derive_seed(seed, *parts, path)
        bits = _bit_generator(generator)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(value)
        elif isinstance(generator, random.Random):
            generator.seed(value)
        else:
            if isinstance(generator, np.random.RandomState):
                _forget_gauss(generator)
            bits.state = type(bits)(value).state


def _forget_gauss(generator: np.random.RandomState) -> None:
    """A RandomState keeps the second half of its last pair of normal draws outside its bit generator."""
    state: dict[str, Any] = generator.get_state(legacy=False)
    generator.set_state({**state, "has_gauss": 0, "gauss": 0.0})


def _get(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return _bit_generator(generator).state


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        _bit_generator(generator).state = state


class PrivateStreams:
    """A context in which the global streams, and generators given, are private ones.

    Entering puts the private streams in place of what is there, leaving takes them out and puts back what was there;
    entering again goes on where the private streams were left.
    """

    def __init__(self, found: Found, seed: int, *parts: int | str) -> None:
        self._found = found
        self._seed = seed
        self._parts = parts
        self._inner: tuple[RNGState, list[Any]] | None = None
        self._outer: tuple[RNGState, list[Any]] | None = None

    def _capture(self) -> tuple[RNGState, list[Any]]:
        return capture(accelerators=False), [_get(generator) for generator in self._found.generators.values()]

    def _restore(self, states: tuple[RNGState, list[Any]]) -> None:
        restore(states[0])
        for generator, state in zip(self._found.generators.values(), states[1], strict=True):
            _set(generator, state)

    def __enter__(self) -> None:
        self._outer = self._capture()
        if self._inner is None:
            seed_host(derive_seed(self._seed, *self._parts))
            seed_generators(self._found, self._seed, *self._parts)
        else:
            self._restore(self._inner)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._outer is not None
        self._inner = self._capture()
        self._restore(self._outer)
        self._outer = None
