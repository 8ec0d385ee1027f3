"""A run's configuration as a training script reads it: `config.json`, by attribute, read-only."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from mtf_trainer.errors import TrainerError
from mtf_utils.envref import resolve_env
from mtf_utils.rundir import ENV_CONFIG
from mtf_utils.settings import nearest

__all__ = ["Experiment", "MissingKeyError", "RunConfig", "RunConfigError", "load_run_config", "read_config"]


class RunConfigError(TrainerError, ValueError):
    """The configuration of a run cannot be read, or what it says cannot be built."""


class MissingKeyError(RunConfigError, AttributeError, KeyError):
    """The configuration has no such key; the message names the place and the nearest key that there is."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


@runtime_checkable
class Experiment(Protocol):
    """What has a whole experiment to tell: an `ExperimentConfig`, or a `RunConfig`."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data, references to the environment as written."""


class RunConfig(Mapping[str, Any]):
    """A configuration, or one section of it, by attribute (`run.model.hidden_size`) and by key.

    Values have the references `${env:NAME}` resolved; `to_dict` gives them as written, so that what a script logs or
    saves holds no secret. A key that is also the name of a method (`get`, `keys`, `values`, `items`, `to_dict`) is
    reached by key only. Lists are copies: nothing that a script does to them changes the configuration.

    Args:
        data: plain data, as read from JSON.
        environ: where references are looked up; the environment of the process by default.
    """

    __slots__ = ("_path", "_values", "_written")
    _path: str
    _values: Mapping[str, Any]
    _written: Mapping[str, Any]

    def __init__(self, data: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> None:
        written = copy.deepcopy(dict(data))
        self._fill(written, resolve_env(written, environ), "")

    def _fill(self, written: Mapping[str, Any], values: Mapping[str, Any], path: str) -> None:
        for name, value in (("_written", written), ("_values", values), ("_path", path)):
            object.__setattr__(self, name, value)

    def __getitem__(self, key: str) -> Any:
        try:
            value = self._values[key]
        except KeyError:
            raise MissingKeyError(self._missing(key)) from None
        return _view(value, self._written[key], self._place(key))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also keeps copy and pickle from asking a half-made object
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TypeError(f"cannot set {self._place(name)!r}: the configuration of a run is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise TypeError(f"cannot delete {self._place(name)!r}: the configuration of a run is read-only")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(key for key in self._values if key.isidentifier())]

    def __repr__(self) -> str:
        # no values: they may be secrets
        return f"<RunConfig {self._path or 'of a run'}: {', '.join(self._values)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._written, self._values, self._path)

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain data, with references to the environment as written."""
        return copy.deepcopy(dict(self._written))

    def _place(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else str(key)

    def _missing(self, key: object) -> str:
        guess = nearest(key, self._values) if isinstance(key, str) else None
        where = f"`{self._path}`" if self._path else "the configuration"
        there = f"did you mean {guess!r}?" if guess else f"{where} has: {', '.join(self._values) or 'no keys'}"
        return f"{self._place(str(key))}: there is no such key ({there})"


def _rebuild(written: Mapping[str, Any], values: Mapping[str, Any], path: str) -> RunConfig:
    run = RunConfig.__new__(RunConfig)
    run._fill(written, values, path)
    return run


def _view(value: Any, written: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return _rebuild(written, value, path)
    if isinstance(value, list | tuple):
        return [_view(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(value, written, strict=True))]
    return value


def load_run_config(path: str | Path | None = None) -> RunConfig:
    """Read the configuration of the run that this process trains.

    Args:
        path: a `config.json`; by default the one that `MTF_CONFIG` names, which is set when a run is started by the
            framework.

    Raises:
        RunConfigError: there is no such file, or it is not a JSON object.
    """
    if path is None:
        path = os.environ.get(ENV_CONFIG) or None
    if path is None:
        raise RunConfigError(
            f"which configuration? The environment does not say ({ENV_CONFIG} is not set, so this run was not "
            "started by the framework): pass the path of a config.json"
        )
    return RunConfig(read_config(path))


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a `config.json` as written.

    Raises:
        RunConfigError: there is no such file, it cannot be read, or it is not a JSON object.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise RunConfigError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        hint = "; pass the config.json that lies beside it" if Path(path).suffix in (".yaml", ".yml") else ""
        raise RunConfigError(f"the configuration {path} is not valid JSON: {error}{hint}") from error
    if not isinstance(data, dict):
        raise RunConfigError(f"the configuration {path} must be a JSON object, found {type(data).__name__}")
    return data
