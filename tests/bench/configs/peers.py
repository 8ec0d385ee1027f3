"""Loading, overriding and resolving the same experiment with OmegaConf and with Hydra."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def peers(file: Path, overrides: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], object] | None]]:
    """Name and call of each peer; None for one that is not installed."""
    settings = [f"{key}={value}" for key, value in overrides.items()]
    for name, module, make in (("OmegaConf", "omegaconf", _omegaconf), ("Hydra compose", "hydra", _hydra)):
        try:
            found = importlib.import_module(module)
        except ImportError:
            yield name, None
        else:
            yield f"{name} {found.__version__}", make(file, settings)


def _omegaconf(file: Path, settings: list[str]) -> Callable[[], object]:
    from omegaconf import OmegaConf

    def call() -> object:
        merged = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(settings))
        return OmegaConf.to_container(merged, resolve=True)

    return call


def _hydra(file: Path, settings: list[str]) -> Callable[[], object]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    def call() -> object:
        composed = compose(config_name=file.stem, overrides=settings)
        return OmegaConf.to_container(composed, resolve=True)

    # Entered once and for the rest of the process: what is timed is composing alone.
    initialize_config_dir(config_dir=str(file.parent), version_base=None).__enter__()
    return call
