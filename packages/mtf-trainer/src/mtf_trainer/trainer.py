"""`GenericTrainer`: trains a model, can be killed at any instant, and goes on to the same result."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtf_trainer import binding, determinism, opening, preemption, rng
from mtf_trainer.callbacks import TrainingCallback, check_addition
from mtf_trainer.checkpoint import Checkpoint, CheckpointStore, Kind
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.data import Division, make_source
from mtf_trainer.distributed import Ranks, Team, together, world_of
from mtf_trainer.distributed.parallel import Parallel
from mtf_trainer.errors import TrainerError
from mtf_trainer.guard import Guard
from mtf_trainer.loggers import MetricLogger
from mtf_trainer.metric_objects import MetricObject, MetricObjects, Stage
from mtf_trainer.places import checkpoint_directory, run_directory
from mtf_trainer.preparation import memory_format, original, prepared
from mtf_trainer.session import Session
from mtf_trainer.state import ResumeState, RNGState
from mtf_trainer.steps import Engine
from mtf_trainer.telemetry import build_telemetry, is_main_process
from mtf_utils.logs import setup_logging
from mtf_utils.stateful import Stateful

__all__ = ["GenericTrainer"]

StepFunction = Callable[["GenericTrainer", Any, int], Mapping[str, Any]]


class GenericTrainer:
    """Trains a model with exact resume.

    Constructing it seeds every random stream, so build the model after it. Inside the steps, `model`, `optimizer`,
    `scheduler` and `device` are set, and batches are on the device already.

    Args:
        config: how to train.
        training_step: in place of the method, called with the trainer, the batch and its index.
        validation_step: likewise.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any | None
    device: torch.device

    def __init__(
        self,
        config: GenericTrainerConfig,
        *,
        training_step: StepFunction | None = None,
        validation_step: StepFunction | None = None,
    ) -> None:
        if not isinstance(config, GenericTrainerConfig):
            raise TypeError(
                f"expected a GenericTrainerConfig, found {type(config).__name__}; "
                "GenericTrainerConfig.from_experiment() takes a configuration, a mapping or a path"
            )
        self.config = config
        self.callbacks: list[TrainingCallback] = []
        self.seed = secrets.randbits(32) if config.seed is None else config.seed
        self._steps = (training_step, validation_step)
        self._registered: dict[str, Stateful] = {}
        self._loggers: list[MetricLogger] = []
        self._metrics = MetricObjects()
        self._session: Session | None = None
        self._armed: Checkpoint | None = None
        self._fitting = False
        rng.seed_everything(self.seed)

    def training_step(self, batch: Any, batch_idx: int) -> Mapping[str, Any]:
        """Compute the loss of a batch. Override it, or give the constructor a function.

        This default suits models that compute their own loss from keyword arguments, as those of `transformers` do.

        Args:
            batch: what the loader gave, on the device.
            batch_idx: its number in the epoch, from 0.

        Returns:
            At least `loss`, one differentiable number. Further numbers are averaged over the epoch, weighted by
            `num_samples` if that is given and by the batch's first dimension if not.
        """
        if self._steps[0] is not None:
            return self._steps[0](self, batch, batch_idx)
        if not isinstance(batch, Mapping):
            raise TrainerError(
                f"{type(self).__name__} has no training_step for a batch of type {type(batch).__name__}: override "
                "training_step(batch, batch_idx), or give the constructor training_step="
            )
        outputs = self.model(**batch)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
        if loss is None:
            raise TrainerError(
                f"{type(self.model).__name__} returned no loss for a batch of {', '.join(batch)}: put labels into it, "
                "or override training_step or validation_step"
            )
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> Mapping[str, Any]:
        """Compute the metrics of a validation batch, by default those of `training_step`; no gradients are recorded.

        Returns:
            Numbers, averaged over the validation; `val_` is put before names that lack it.
        """
        if self._steps[1] is not None:
            return self._steps[1](self, batch, batch_idx)
        return self.training_step(batch, batch_idx)

    def fit(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Callable[[Any], torch.optim.Optimizer],
        train_loader: Any,
        val_loader: Any | None = None,
        scheduler: Any | None = None,
    ) -> None:
        """Train; continue if there is a checkpoint, and come back at once if training is complete.

        Args:
            model: moved to the device.
            optimizer: made from the model's parameters; or a callable that makes it from them.
            train_loader: a `DataLoader`, or any iterable that can be gone through again.
            val_loader: likewise; without one there is no validation.
            scheduler: stepped as `config.scheduler_interval` says; or a callable that makes it from the optimizer.

        Raises:
            TrainingPreempted: told to stop, with the state durable; ends the process with status 75 if not caught.
            TrainingStopped: running again would not help; status 76.
            CheckpointError: there are checkpoints, but none can be used, or they belong to another run.
            TrainerError: a step or a callback gave what cannot be used.
        """
        if self._fitting:
            raise TrainerError("fit() is already running on this trainer")
        self._fitting = True
        if not logging.getLogger().handlers:
            setup_logging(self.config.logging.log_level)
        flag, config = preemption.StopFlag(), self.config
        self.device = binding.device(config.device, local_rank=world_of(config.distributed).local_rank)
        try:
            with (
                together(config.distributed, flag, self.device) as ranks,
                preemption.listening(flag, preemption.signal_names(config.preemption.signals)),
                determinism.settings(
                    deterministic=config.deterministic,
                    benchmark=config.benchmark,
                    matmul_precision=config.float32_matmul_precision,
                ),
            ):
                self._train(flag, ranks, model, optimizer, train_loader, val_loader, scheduler)
        finally:
            self._fitting = False

    def _train(
        self,
        flag: preemption.StopFlag,
        ranks: Ranks,
        model: nn.Module,
        optimizer: Any,
        train_loader: Any,
        val_loader: Any | None,
        scheduler: Any | None,
    ) -> None:
        parallel = self._bind(model, optimizer, scheduler, ranks)
        team, store = ranks.team, opening.open_store(self.config, ranks.team)
        try:
            is_chosen = self._armed is not None
            checkpoint = self._take_checkpoint(store, team)
            engine = Engine(
                self.config,
                model=original(model),
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                device=self.device,
            )
            engine.parallel = parallel
            # A rank that waits for data cannot stop before the others can.
            should_stop = flag.is_requested if team.size == 1 else lambda: False
            source = functools.partial(
                make_source, seed=self.seed, should_stop=should_stop, division=Division(team.rank, team.size)
            )
            train = source(train_loader, stream="train")
            session = Session(
                trainer=self,
                config=self.config,
                engine=engine,
                train=train,
                val=None if val_loader is None else source(val_loader, stream="val"),
                callbacks=tuple(self.callbacks),
                registered=dict(self._registered),
                metrics=self._metrics,
                telemetry=build_telemetry(self.config, self._loggers, num_batches=train.num_batches),
                store=store,
                directory=checkpoint_directory(self.config),
                guard=Guard(run_directory(self.config), writes=is_main_process()),
                flag=flag,
                seed=self.seed,
                team=team,
                agreement=ranks.agreement,
            )
        except BaseException:
            store.close()
            raise
        self._session = session
        with (
            store,
            opening.attempt(session, checkpoint, is_chosen=is_chosen),
            prepared(model, self.config.performance),
            session.resources(),
        ):
            opening.enter(session, checkpoint)

    def _bind(self, model: nn.Module, optimizer: Any, scheduler: Any | None, ranks: Ranks) -> Parallel | None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
        self.model = model.to(self.device)
        if (layout := memory_format(self.config.performance)) is not None:
            model.to(memory_format=layout)  # type: ignore[call-overload]  # which its stubs forgot
        parallel = ranks.spread(original(model), self.config.distributed)
        if parallel is not None and parallel.is_sharded:
            binding.check_sharded(optimizer, scheduler, self.config.precision)
        self.optimizer = binding.optimizer(optimizer, model)
        self.scheduler = binding.scheduler(scheduler, self.optimizer, interval=self.config.scheduler_interval)
        return parallel

    def _take_checkpoint(self, store: CheckpointStore, team: Team) -> Checkpoint | None:
        """The checkpoint to continue from; the run's seed is the one that it was begun with."""
        armed, self._armed = self._armed, None
        checkpoint = opening.find_checkpoint(store, self.config, team, armed=armed)
        self.seed = team.gather(self.seed)[0] if checkpoint is None else checkpoint.fingerprint["seed"]
        return checkpoint

    def save_checkpoint(self, emergency: bool = False, *, pinned: bool = False) -> Path:
        """Save now; the checkpoint is durable when this returns.

        May be called by callbacks and after `fit`; with several ranks only by callbacks, and by each of them.

        Args:
            emergency: mark it as an emergency save, which is bounded by the grace period.
            pinned: keep it whatever `keep_last` and `save_top_k` say.

        Raises:
            TrainerError: there is nothing to save yet, or a batch is under way.
            CheckpointError: it cannot be written.
        """
        session = self._session
        if session is None:
            raise TrainerError("save_checkpoint() before fit(): there is no state to save yet")
        if not session.loop.can_save:
            raise TrainerError(
                "save_checkpoint() while a batch is under way: call it in a callback's event, or ask for a stop"
            )
        kind = Kind.EMERGENCY if emergency else Kind.MANUAL
        if self._fitting:
            return session.save_now(kind, pinned=pinned)
        if session.team.size > 1:
            raise TrainerError("save_checkpoint() after fit(): several ranks save together, while fit() runs")
        with session.reopened(opening.open_store(self.config)):
            return session.save_now(kind, pinned=pinned)

    def load_checkpoint(self, checkpoint_path: Path | None = None) -> ResumeState:
        """Verify a checkpoint and make the next `fit` continue from it.

        Args:
            checkpoint_path: which one; the newest valid one by default.

        Returns:
            Where the run stands in it.

        Raises:
            CheckpointError: there is none, or it is damaged.
            TrainerError: called while `fit` runs.
        """
        if self._fitting:
            raise TrainerError("load_checkpoint() while fit() runs: call it before")
        path = None if checkpoint_path is None else Path(checkpoint_path)
        checkpoint = self._armed = opening.look_up(self.config, path)
        streams = RNGState.from_state_dict(checkpoint.sections["training"]["rng"])
        return ResumeState.from_dict(checkpoint.resume, rng=streams)

    def add_callback(self, callback: TrainingCallback) -> None:
        """Add a callback; events reach callbacks in the order in which they were added."""
        if self._fitting:
            raise TrainerError("add_callback() while fit() runs: add callbacks before")
        check_addition(callback, self.callbacks)
        self.callbacks.append(callback)

    def add_logger(self, logger: MetricLogger) -> None:
        """Hand every record of the journal to a logger of your own too."""
        if isinstance(logger, type) or not isinstance(logger, MetricLogger):
            raise TypeError(f"expected an object with open(), log() and close(), found {logger!r:.80}")
        if self._fitting:
            raise TrainerError("add_logger() while fit() runs: add loggers before")
        self._loggers.append(logger)

    def add_metric(self, name: str, metric: MetricObject, *, stage: Stage = "val") -> None:
        """Have a metric of torchmetrics, or one like them, computed at the end of every validation or epoch.

        The steps call its `update`; resetting it, computing it and keeping its state in every checkpoint is up to the
        trainer. Its result joins the means: `val_<name>`, or `val_<name>_<key>` for a mapping of results.

        Args:
            name: unique in its stage.
            metric: moved to the device if it has a `to`.
            stage: `val` computes at the end of a validation, `train` at the end of an epoch.
        """
        if self._fitting:
            raise TrainerError("add_metric() while fit() runs: add metrics before")
        self._metrics.add(stage, name, metric)

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write a record of your own, at the current epoch and step; for callbacks and steps, while `fit` runs."""
        session = self._running("log_metrics")
        session.telemetry.record_of_user(session.state, metrics)

    def log_image(self, name: str, image: Any) -> None:
        """Write an image into the folder `media` beside `metrics.jsonl`, with a record of it; while `fit` runs.

        Args:
            name: of the series that it belongs to; names the file.
            image: a matplotlib figure, or an array, tensor or PIL image: (height, width), with channels first or last,
                floats from 0 to 1 or bytes.
        """
        session = self._running("log_image")
        session.telemetry.add_image(session.state, name, image)

    def _running(self, method: str) -> Session:
        if self._session is None or not self._fitting:
            raise TrainerError(f"{method}() outside of fit(): there is no record to be part of")
        return self._session

    def register_state(self, name: str, stateful: Stateful) -> None:
        """Make an object's state a part of every checkpoint.

        Args:
            name: unique among the registered.
            stateful: has `state_dict` and `load_state_dict`.
        """
        if not isinstance(stateful, Stateful):
            raise TypeError(f"{name!r}: a {type(stateful).__name__} has no state_dict and load_state_dict")
        if name in self._registered:
            raise TrainerError(f"the name {name!r} is registered already")
        if self._fitting:
            raise TrainerError("register_state() while fit() runs: register before")
        self._registered[name] = stateful

    def request_stop(self) -> None:
        """End training early, after the step under way, or the next record if there are ranks: each may ask alone."""
        if self._session is None:
            raise TrainerError("request_stop() before fit(): there is nothing to stop")
        self._session.loop.meeting.request_stop()

    @property
    def state(self) -> ResumeState:
        """Where the run stands."""
        if self._session is None:
            raise TrainerError("the trainer has no state before fit()")
        return self._session.state

    @property
    def validates(self) -> bool:
        """Whether there are validations: `fit` was given a loader for them, and the configuration has them made."""
        config, session = self.config, self._session
        asked = config.validate_every_n_epochs is not None or config.validate_every_n_steps is not None
        return asked and session is not None and session.val is not None

    @property
    def directory(self) -> Path:
        """Where the run's files for people are: the run directory, or where its checkpoints are."""
        return run_directory(self.config)

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0."""
        return self._session.state.epoch if self._session else 0

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self._session.state.global_step if self._session else 0

    @property
    def rank(self) -> int:
        """The number of this process among those that train together, from 0."""
        return world_of(self.config.distributed).rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return world_of(self.config.distributed).size
