"""What a configuration asks of `torch.compile`: the keywords, and what torch would not take."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, get_origin

import torch

from mtf_utils.sections import PerformanceConfig
from mtf_utils.settings import Problem, describe, nearest

__all__ = ["check_compilation", "compilation"]


def compilation(performance: PerformanceConfig) -> dict[str, Any] | None:
    """The keywords for `torch.compile`; None when nothing is to be compiled.

    By default torch compiles the first shape for itself and later ones for any size, so the code that a batch runs
    through depends on the batches before it, which a run that is continued has not seen. Therefore every shape is
    compiled for itself, unless `dynamic` says otherwise.
    """
    asked = performance.compile
    if asked is False:
        return None
    given = asked if isinstance(asked, dict) else {} if asked is True else {"mode": asked}
    return {"dynamic": False, **given}


def check_compilation(performance: PerformanceConfig) -> Iterator[Problem]:
    """What is wrong with the keywords, as the installed torch knows them; asks it only if there is something to ask."""
    asked = performance.compile
    if isinstance(asked, bool):
        return
    keywords = {"mode": asked} if isinstance(asked, str) else asked
    place = ("performance", "compile")
    for key in ("fullgraph", "dynamic"):
        value = keywords.get(key)
        if not isinstance(value, bool | None):
            yield Problem((*place, key), f"expected true or false, found {describe(value)}", value)
    backend, mode, options = (keywords.get(key) for key in ("backend", "mode", "options"))
    if mode is not None and options is not None:
        yield Problem((*place, "mode"), "torch.compile takes a mode or options, not both: leave one of them out", mode)
    if backend is not None and not callable(backend):
        known = torch.compiler.list_backends(exclude_tags=())
        yield from _one_of((*place, "backend"), backend, known)
    if backend in (None, "inductor"):
        where = place if isinstance(asked, str) else (*place, "mode")
        yield from _check_inductor(place, where, mode, options)


def _check_inductor(place: tuple[str, ...], where: tuple[str, ...], mode: Any, options: Any) -> Iterator[Problem]:
    from torch import _inductor  # takes seconds, which only who compiles has to spend

    if mode is not None:
        yield from _one_of(where, mode, list(_inductor.list_mode_options()))
    if options is None:
        return
    if not isinstance(options, dict):
        yield Problem((*place, "options"), f"expected a mapping, found {describe(options)}", options)
        return
    known = [*_inductor.list_options(), "guard_filter_fn"]
    for key, value in options.items():
        here, name = (*place, "options", key), str(key).replace("-", "_")
        if name not in known:
            yield Problem(
                here, f"torch has no option {key!r}", key, suggestion=nearest(str(key), known), about_key=True
            )
        elif (kind := _kind_of(name)) is not None and not isinstance(value, kind):
            expected = getattr(kind, "__name__", str(kind))
            yield Problem(here, f"expected a value of type {expected}, found {describe(value)}", value)


def _kind_of(option: str) -> Any:
    """What torch takes for an option of inductor, if it would look."""
    from torch._inductor import config

    kind = config.get_type(option) if hasattr(config, "get_type") and option in config.get_config_copy() else None
    return None if get_origin(kind) is not None and not isinstance(kind, UnionType) else kind


def _one_of(path: tuple[str, ...], value: Any, known: list[str]) -> Iterator[Problem]:
    if value not in known:
        message = f"expected one of {', '.join(known)}, found {describe(value)}"
        yield Problem(path, message, value, suggestion=nearest(value, known) if isinstance(value, str) else None)
