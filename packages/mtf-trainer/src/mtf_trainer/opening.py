"""How a call of `fit` begins: the store, the checkpoint to continue from, the phase at which to enter."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtf_trainer import fingerprint
from mtf_trainer.checkpoint import Checkpoint, CheckpointStore, read_checkpoint
from mtf_trainer.checkpoint.directory import published
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.distributed import shares, world_of
from mtf_trainer.distributed.accord import check_accord
from mtf_trainer.distributed.redistribution import is_divided, ranks_of
from mtf_trainer.distributed.team import Team
from mtf_trainer.ending import stop_for_good
from mtf_trainer.errors import CheckpointError, TrainingPreempted, TrainingStopped
from mtf_trainer.guard import REMEDY, Fault, Place, circumstances
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.places import checkpoint_directory
from mtf_trainer.restoring import prolong
from mtf_trainer.session import Session
from mtf_trainer.state import ResumeState

__all__ = ["attempt", "choose_checkpoint", "enter", "find_checkpoint", "look_up", "open_store"]

logger = logging.getLogger(__name__)

MAX_SAMPLES = 1000
"""How many of a batch's samples are written down for a crash that may come."""


def open_store(config: GenericTrainerConfig, team: Team | None = None) -> CheckpointStore:
    """The store of the run's checkpoints; of several ranks the first has the directory's lock."""
    run_id = config.identity or config.experiment_name
    directory = checkpoint_directory(config)
    if team is None or team.size == 1:
        return CheckpointStore(directory, config.checkpoint, run_id=run_id)
    crew = team.crew()
    store = team.on_first(lambda: CheckpointStore(directory, config.checkpoint, run_id=run_id, crew=crew))
    if store is not None:
        return store
    return CheckpointStore(directory, config.checkpoint, run_id=run_id, crew=crew, publishes=False)


def find_checkpoint(
    store: CheckpointStore, config: GenericTrainerConfig, team: Team, *, armed: Checkpoint | None
) -> Checkpoint | None:
    """The checkpoint to continue from, as the first rank chooses it; see `choose_checkpoint`."""
    if team.size == 1:
        return choose_checkpoint(store, config, armed=armed)
    chosen = team.on_first(lambda: choose_checkpoint(store, config, armed=armed))
    told: dict[str, Any] = {"path": None}
    if chosen is not None:
        alike = is_divided(chosen) == (config.distributed.strategy == "fsdp")
        told = {"path": str(chosen.path), "as_saved": alike and ranks_of(chosen) == team.size}
    told = team.gather(told)[0]
    if told["path"] is None or team.is_first:
        return chosen
    return store.load(Path(told["path"]), shares.wanted_by(team.rank, as_saved=told["as_saved"]))


def look_up(config: GenericTrainerConfig, path: Path | None) -> Checkpoint:
    """The checkpoint at a path, or the newest valid one.

    The first rank has the directory's lock and verifies everything. What it finds counts for all, so the others read no
    more than where the run stands.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    directory = checkpoint_directory(config)
    if world_of(config.distributed).is_first:
        with open_store(config) as store:
            checkpoint = store.newest() if path is None else store.load(path)
    else:
        newest = published(directory)[-1:] if path is None else [path]
        checkpoint = read_checkpoint(newest[0], lambda name: name == "training") if newest else None
    if checkpoint is None:
        raise CheckpointError(f"{directory} holds no checkpoint", path=directory)
    return checkpoint


def choose_checkpoint(
    store: CheckpointStore, config: GenericTrainerConfig, *, armed: Checkpoint | None
) -> Checkpoint | None:
    """The checkpoint to continue from: the one that was asked for, or the newest; None begins the run.

    Raises:
        CheckpointError: there are checkpoints although the run must not continue, or they have another seed.
    """
    if armed is None and config.checkpoint.resume == "never":
        if store.paths():
            directory = checkpoint_directory(config)
            raise CheckpointError(
                f"{directory} holds checkpoints already, and checkpoint.resume is 'never': "
                "use a new checkpoint_dir, or resume='auto' to continue",
                path=directory,
            )
        return None
    checkpoint = armed or store.newest()
    if checkpoint is not None:
        seed = checkpoint.fingerprint["seed"]
        if config.seed not in (None, seed):
            raise CheckpointError(
                f"{checkpoint.path} belongs to a run with seed {seed}, this one has {config.seed}: "
                "use a new checkpoint_dir for a new run",
                path=checkpoint.path,
            )
    return checkpoint


@contextlib.contextmanager
def attempt(session: Session, checkpoint: Checkpoint | None, *, is_chosen: bool) -> Iterator[None]:
    """Count the block as an attempt at the run, unless that is complete.

    Raises:
        TrainerError: the ranks were given different things.
        TrainingStopped: there were attempts enough, or this one has shown that there were.
    """
    if session.team.size > 1:
        check_accord(session.team, _given(session))
    state = None if checkpoint is None else ResumeState.from_dict(checkpoint.resume)
    if state is not None:
        if prolong(state, session.config):
            logger.info("training goes on from epoch %d to %d", state.epoch, session.config.epochs)
        if state.phase is TrainerPhase.TRAINING_COMPLETE:
            yield
            return
    _begin(session, state, is_chosen=is_chosen)
    try:
        yield
    except (TrainingPreempted, TrainingStopped):
        raise
    except Exception as error:
        fault = session.fault or Fault.at(session.state)
        if reason := session.guard.failed(error, Place.of(session.state), fault, saved=session.saved):
            stop_for_good(session.team, f"{reason}; {REMEDY}", error)
        raise
    except BaseException:
        session.guard.withdraw()
        raise


def _given(session: Session) -> dict[str, Any]:
    """What the loops of all ranks have to agree in, so that they pass the same boundaries."""
    settings, engine = session.config.to_dict(), session.engine
    own = {"device", "logging", "seed"}  # of seeds that of rank 0 counts
    return {
        "directory": str(session.directory),
        "settings": {name: value for name, value in settings.items() if name not in own},
        "log_every_n_steps": session.config.logging.log_every_n_steps,
        "data": fingerprint.data(session.train, session.val),
        "split": {"train": session.train.choice(), "val": None if session.val is None else session.val.choice()},
        "optimizer": fingerprint.trainer_part(session.config, engine.optimizer)["optimizer"],
        "scheduler": type(engine.scheduler).__name__,
        "callbacks": [type(callback).__qualname__ for callback in session.callbacks],
        "registered": sorted(session.registered),
    }


def _begin(session: Session, state: ResumeState | None, *, is_chosen: bool) -> None:
    start = session.saved = Place() if state is None else Place.of(state)
    parts = {"settings": session.config.to_dict(), **session.fingerprint()}
    refusal = session.guard.begin(
        start,
        circumstances=circumstances(parts),
        is_new=state is None,
        is_chosen=is_chosen,
        samples=lambda fault: _samples(session, fault),
    )
    refusal = session.team.gather(refusal)[0]  # the first rank keeps the ledger
    if refusal is not None:
        stop_for_good(session.team, f"{refusal}; {REMEDY}")


def _samples(session: Session, fault: Mapping[str, Any]) -> list[Any] | None:
    source = session.val if fault["stage"] == "val" and session.val is not None else session.train
    held = source.samples(fault["epoch"], fault["batch"])
    return None if held is None else held[:MAX_SAMPLES]


def enter(session: Session, checkpoint: Checkpoint | None) -> None:
    """Run the loop from the checkpoint, or from the start; a run that is complete only says so."""
    if checkpoint is None:
        if session.val is None and session.config.checkpoint.save_top_k:
            logger.info("without a val_loader no checkpoint is the best: only the newest are kept")
        session.start()
        session.run()
        return
    session.restore(checkpoint)
    state = session.state
    if state.phase is TrainerPhase.TRAINING_COMPLETE:
        session.settle_restored()
        session.write_result(checkpoint.path)
        logger.info("training was complete already, after %d epochs: %s", state.epoch, checkpoint.path)
        return
    logger.info(
        "continuing at epoch %d, step %d, before %s, from %s",
        state.epoch,
        state.global_step,
        state.phase.value,
        checkpoint.path,
    )
    session.run()
