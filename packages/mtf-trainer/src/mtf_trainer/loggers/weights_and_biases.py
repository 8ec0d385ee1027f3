"""Records on Weights & Biases."""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.errors import TrainerError
from mtf_trainer.loggers.protocol import LogRecord, metrics_of
from mtf_utils.atomic import write_json
from mtf_utils.rundir import read_metrics

__all__ = ["WandbLogger"]

logger = logging.getLogger(__name__)


class WandbLogger:
    """Logs to one W&B run for the whole history of a training, however often it is killed and continued.

    The number of a record is W&B's step, so that two records of one optimizer step stay apart; the x-axis of every
    chart is `global_step`, and means over an epoch are named `epoch/...`. Each record is there once: a process first
    sends those of the journal that W&B lacks, because it was killed or logging was switched on late, and leaves out
    those that W&B has. Offline W&B cannot know what it has, so there every process writes the whole history, and the
    newest of its folders is the one to sync.

    Should W&B's own process die, for example because a preemption's signal goes to all processes of a job, training
    goes on and ends as it would have: the rest of the records is left to the next process. A run that a script has
    begun with `wandb.init` is left alone, and this one goes beside it.

    Nothing is sent before the first record, so a training that is complete already does not show up again.

    Args:
        config: `logging` says which project and team; name, tags and `run` are shown with the run.
        directory: the folder for `wandb.json`, which holds the run's id, and for W&B's own files unless `WANDB_DIR` is
            set.

    Raises:
        TrainerError: wandb is not installed.
    """

    def __init__(self, config: GenericTrainerConfig, directory: Path) -> None:
        self._wandb = _import_wandb()
        self._config = config
        self._directory = directory
        self._file = directory / "wandb.json"
        self._run: Any | None = None
        self._journal = Path()
        self._is_new = True
        self._position = 0
        self._known = 0
        self._is_gone = False

    def open(self, journal: Path, position: int | None) -> None:
        """See `MetricLogger.open`."""
        self.close()
        self._journal, self._is_new, self._position = journal, position is None, position or 0
        self._is_gone = False

    def log(self, record: LogRecord) -> None:
        """See `MetricLogger.log`.

        Raises:
            TrainerError: W&B did not accept the run.
        """
        try:
            if self._run is None and not self._is_gone:
                self._run = self._start()
                self._known = self._run.step
                self._catch_up()
            self._send(self._position, record)
        except TrainerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to lose a training
            self._lose(error)
        self._position += 1

    def _catch_up(self) -> None:
        records = islice(read_metrics(self._journal), self._position) if self._position else ()
        for number, record in enumerate(records):
            self._send(number, record)

    def _lose(self, error: Exception) -> None:
        """Go on without W&B."""
        self._run, self._is_gone = None, True
        logger.error(
            "W&B takes no more records (%s: %s); training goes on, %s has all of them, and W&B gets what it lacks when "
            "this training is continued",
            type(error).__name__,
            error,
            self._journal,
        )

    def _send(self, number: int, record: LogRecord) -> None:
        if self._run is None or number < self._known:
            return
        content = self._image(record) if record["event"] == "image" else _named(record)
        self._run.log({"global_step": record["step"], **content}, step=number, commit=True)

    def _image(self, record: LogRecord) -> dict[str, Any]:
        file = self._journal.parent / str(record["file"])
        if not file.exists():
            logger.warning("%s: is gone, so W&B does not get it", file)
            return {}
        return {str(record["name"]): self._wandb.Image(str(file))}

    def close(self) -> None:
        """See `MetricLogger.close`; waits until W&B has everything."""
        run, self._run = self._run, None
        if run is not None:
            try:
                run.finish()
            except Exception as error:  # noqa: BLE001 - as above
                self._lose(error)

    def _start(self) -> Any:
        self._directory.mkdir(parents=True, exist_ok=True)
        identity = None if self._is_new else self._read_id()
        if identity is None:
            identity = secrets.token_hex(8)
            write_json(self._file, {"version": 1, "id": identity})
        config = self._config
        is_beside = self._wandb.run is not None
        if is_beside:
            logger.info("W&B: a run of the script's own is active; the records of this training go to one beside it")
        try:
            run = self._wandb.init(
                project=config.logging.wandb_project,
                entity=config.logging.wandb_entity,
                name=config.experiment_name,
                tags=config.tags,
                config=config.run or config.to_dict(),
                id=identity,
                resume="allow",
                dir=os.environ.get("WANDB_DIR") or str(self._directory),
                reinit="create_new" if is_beside else None,
            )
        except self._wandb.Error as error:
            raise TrainerError(
                f"W&B did not accept the run: {error}; log in with `wandb login`, keep the run on this machine with "
                "WANDB_MODE=offline, or set logging.use_wandb to false"
            ) from error
        run.define_metric("global_step", hidden=True)
        run.define_metric("*", step_metric="global_step")
        return run

    def _read_id(self) -> str | None:
        try:
            return str(json.loads(self._file.read_bytes())["id"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TrainerError(
                f"{self._file}: cannot tell which W&B run to continue ({error!r}); delete the file to begin a new one"
            ) from error


def _named(record: LogRecord) -> dict[str, Any]:
    """The metrics under names of W&B: a mean over an epoch is a chart of its own, the epoch's number is not."""
    return {name: value for name, value in record.items() if name == "epoch"} | metrics_of(record)


def _import_wandb() -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise TrainerError(f"logging.use_wandb: wandb cannot be imported ({error}); {INSTALL}") from error
    if not hasattr(wandb, "init"):  # W&B leaves a folder `wandb` behind, which Python takes for a package
        raise TrainerError(f"logging.use_wandb: wandb is not installed; {INSTALL}")
    return wandb


INSTALL: Final = 'install it with `pip install "mtf-trainer[wandb]"`, or set logging.use_wandb to false'
