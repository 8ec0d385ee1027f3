"""Where else metrics go: services that show them while a run goes on. The journal stays the record of the run."""

from __future__ import annotations

import importlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.errors import TrainerError
from mtf_utils.atomic import write_bytes

__all__ = ["MetricLogger", "WandbLogger", "build_loggers"]


class MetricLogger(Protocol):
    """Takes the records of a run in order. After a kill, records that it has seen already come once more."""

    def open(self, position: int | None) -> None:
        """Called before the first record in every process.

        Args:
            position: how many records the history of the run has so far, that is the number of the next one; None
                when a new run begins.
        """

    def log(self, event: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the next record.

        Args:
            event: what the record is about: `train`, `validation` or `epoch`.
            step: optimizer steps taken so far.
            metrics: numbers by name.
        """

    def close(self) -> None:
        """Called when the process stops training, however it comes; closing twice does no harm."""


def build_loggers(config: GenericTrainerConfig, directory: Path) -> list[MetricLogger]:
    """The loggers that a run's configuration asks for.

    Args:
        config: the trainer's configuration.
        directory: where loggers keep what they need to go on after a restart: beside the checkpoints.

    Raises:
        TrainerError: a package that is needed is not installed.
    """
    return [WandbLogger(config, directory)] if config.logging.use_wandb else []


STATE_BYTES: Final = 128


class WandbLogger:
    """Logs to one W&B run for the whole history of a training, however often it is killed and continued.

    The run's id, and how many records W&B has been given, are kept in `wandb.json`. The x-axis of every chart is
    `global_step`; W&B's own step is the number of the record, so that two records of one step stay apart. Means over
    an epoch are named `epoch/...`. Nothing is sent before the first record, so a training that is complete already
    does not show up again.

    Args:
        config: `logging` says which project and team; name, tags and `run` are shown with the run.
        directory: the folder for `wandb.json`, and for W&B's own files unless `WANDB_DIR` is set.

    Raises:
        TrainerError: wandb is not installed.
    """

    def __init__(self, config: GenericTrainerConfig, directory: Path) -> None:
        self._wandb = _import_wandb()
        self._config = config
        self._directory = directory
        self._file = directory / "wandb.json"
        self._run: Any | None = None
        self._id = ""
        self._is_new = True
        self._position = 0
        self._sent = 0
        self._descriptor: int | None = None

    def open(self, position: int | None) -> None:
        """See `MetricLogger.open`."""
        self.close()
        self._is_new, self._position = position is None, position or 0

    def log(self, event: str, step: int, metrics: Mapping[str, float]) -> None:
        """See `MetricLogger.log`.

        Raises:
            TrainerError: W&B did not accept the run.
        """
        run = self._run or self._start()
        number = self._position
        self._position += 1
        if number < self._sent:
            return
        run.log({"global_step": step, **_named(event, metrics)}, step=number)
        self._sent = number + 1
        self._write_state()

    def close(self) -> None:
        """See `MetricLogger.close`; waits until W&B has everything."""
        run, self._run = self._run, None
        descriptor, self._descriptor = self._descriptor, None
        try:
            if run is not None:
                run.finish()
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _start(self) -> Any:
        self._directory.mkdir(parents=True, exist_ok=True)
        known = None if self._is_new else self._read_state()
        self._id, self._sent = known or (secrets.token_hex(8), self._position)
        write_bytes(self._file, self._state())
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
        config = self._config
        try:
            run = self._wandb.init(
                project=config.logging.wandb_project,
                entity=config.logging.wandb_entity,
                name=config.experiment_name,
                tags=config.tags,
                config=config.run or config.to_dict(),
                id=self._id,
                resume="allow",
                dir=os.environ.get("WANDB_DIR") or str(self._directory),
            )
        except self._wandb.Error as error:
            raise TrainerError(
                f"W&B did not accept the run: {error}; log in with `wandb login`, keep the run on this machine with "
                "WANDB_MODE=offline, or set logging.use_wandb to false"
            ) from error
        run.define_metric("global_step", hidden=True)
        run.define_metric("*", step_metric="global_step")
        self._run = run
        return run

    def _state(self) -> bytes:
        text = json.dumps({"version": 1, "id": self._id, "records": self._sent})
        return text.ljust(STATE_BYTES - 1).encode("ascii") + b"\n"

    def _write_state(self) -> None:
        # in place and of the same length: a kill leaves the old content or the new, and no sync slows training down
        assert self._descriptor is not None
        os.pwrite(self._descriptor, self._state(), 0)

    def _read_state(self) -> tuple[str, int] | None:
        try:
            data = json.loads(self._file.read_bytes())
            return str(data["id"]), int(data["records"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TrainerError(
                f"{self._file}: cannot tell which W&B run to continue ({error!r}); delete the file to begin a new one"
            ) from error


def _named(event: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics under names of W&B: a mean over an epoch is a chart of its own, the epoch's number is not."""
    prefix = "epoch/" if event == "epoch" else ""
    return {name if name == "epoch" else f"{prefix}{name}": value for name, value in metrics.items()}


def _import_wandb() -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise TrainerError(f"logging.use_wandb: wandb cannot be imported ({error}); {INSTALL}") from error
    if not hasattr(wandb, "init"):  # W&B leaves a folder `wandb` behind, which Python takes for a package
        raise TrainerError(f"logging.use_wandb: wandb is not installed; {INSTALL}")
    return wandb


INSTALL: Final = 'install it with `pip install "mtf-trainer[wandb]"`, or set logging.use_wandb to false'
