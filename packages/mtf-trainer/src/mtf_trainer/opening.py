"""How a call of `fit` begins: the store, the checkpoint to continue from, the phase at which to enter."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mtf_trainer.checkpoint import Checkpoint, CheckpointStore
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.distributed import shares
from mtf_trainer.distributed.team import Team
from mtf_trainer.errors import CheckpointError
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.places import checkpoint_directory
from mtf_trainer.session import Session

__all__ = ["choose_checkpoint", "enter", "find_checkpoint", "open_store"]

logger = logging.getLogger(__name__)


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
        alike = shares.is_divided(chosen) == (config.distributed.strategy == "fsdp")
        told = {"path": str(chosen.path), "as_saved": alike and shares.ranks_of(chosen) == team.size}
    told = team.gather(told)[0]
    if told["path"] is None or team.is_first:
        return chosen
    return store.load(Path(told["path"]), shares.wanted_by(team.rank, as_saved=told["as_saved"]))


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
