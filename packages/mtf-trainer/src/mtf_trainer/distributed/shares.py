"""What every rank has of its own in a checkpoint, and how it gets it back, also if the number of ranks has changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from mtf_trainer import rng
from mtf_trainer.attestation import canary
from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.checkpoint import Checkpoint
from mtf_trainer.checkpoint.pieces import is_piece, joined, whole
from mtf_trainer.data import DataSource
from mtf_trainer.distributed.team import Team
from mtf_trainer.phases import CONSUMED, TrainerPhase
from mtf_trainer.preparation import plain_name
from mtf_trainer.restoring import keeps_state
from mtf_trainer.rng import derive_seed
from mtf_trainer.state import ResumeState
from mtf_trainer.steps import Engine

__all__ = ["deal_anew", "own_section", "ranks_of", "section_of", "shares_of", "wanted_by"]

OWN: Final = ("rng", "canary", "data", "upcoming", "registered")
"""Keys of the section `training` that differ from rank to rank."""

SUMS: Final = (("train", "epoch_sums"), ("train", "record_sums"), ("val", "sums"))
"""Running sums in the training state: each rank has those of its own batches."""


def section_of(rank: int) -> str:
    """The section of a rank other than the first."""
    return f"rank_{rank}"


def wanted_by(rank: int, *, as_saved: bool) -> Callable[[str], bool]:
    """Which sections of a checkpoint a rank reads: its own, or all if the ranks are not those that saved it."""
    if not as_saved:
        return lambda name: True
    return lambda name: not name.startswith("rank_") or name == section_of(rank)


def ranks_of(checkpoint: Checkpoint) -> int:
    """By how many ranks it was made."""
    return int(checkpoint.fingerprint["environment"].get("ranks", 1))


def own_section(
    resume: Mapping[str, Any], sections: Mapping[str, Any], engine: Engine, callbacks: Sequence[TrainingCallback]
) -> dict[str, Any]:
    """What a rank other than the first saves: the first saves what all have in common.

    Args:
        resume: its training state.
        sections: all that it could save.
        engine: has its model.
        callbacks: those with the same state on all ranks are left out.
    """
    training = sections["training"]
    is_sharded = engine.parallel is not None and engine.parallel.is_sharded
    own = {name: training[name] for name in OWN}
    stateful = [callback for callback in callbacks if keeps_state(callback)]
    own["callbacks"] = [
        item | ({"state": None} if callback.is_replicated and not is_sharded else {})
        for item, callback in zip(training["callbacks"], stateful, strict=True)
    ]
    if is_sharded or not training["engine"]["reduced"]:
        own["gradients"] = training["engine"]["gradients"]
    if is_sharded:
        return {"resume": resume, "training": own, "model": sections["model"], "optimizer": sections["optimizer"]}
    names = {plain_name(name) for name, _ in engine.model.named_buffers()}
    buffers = {name: value for name, value in sections["model"].items() if name in names}
    return {"resume": resume, "training": own, "model": buffers}


def deal_anew(state: ResumeState, train: DataSource, val: DataSource | None) -> None:
    """Have the data go on where another number of ranks stood: what they have not read is dealt to those of now."""
    if state.train is not None and not state.train.exhausted:
        train.take_over(state.epoch, state.train.batch_idx + (state.phase in CONSUMED))
    if val is not None and state.val is not None and state.phase is not TrainerPhase.VAL_START_EPOCH:
        val.take_over(state.validations - 1, state.val.batch_idx + (state.phase is TrainerPhase.VAL_BATCH_END))


def of_all_ranks(lines: Iterable[str], team: Team) -> list[str]:
    """What all ranks have to say, each line with its rank if there are several."""
    told = team.gather(list(lines))
    return told[0] if team.size == 1 else [f"{line} of rank {rank}" for rank, each in enumerate(told) for line in each]


def is_divided(checkpoint: Checkpoint) -> bool:
    """Whether its model was divided among the ranks."""
    return any(map(is_piece, checkpoint.sections["model"].values()))


def shares_of(
    checkpoint: Checkpoint, team: Team, engine: Engine, live: Callable[[], Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training state and the sections that a rank continues with.

    Where the number of ranks has changed, rank 0 keeps its random streams and gets the sums of all; accumulated
    gradients become their mean, which is what they would have been brought together to.

    Args:
        checkpoint: to continue from.
        team: the ranks of now.
        engine: has their model.
        live: gives the section `training` of this run as it is.

    Raises:
        CheckpointError: the model is divided now, and the optimizer's state cannot be.
    """
    parallel = engine.parallel
    is_sharded, was_sharded = parallel is not None and parallel.is_sharded, is_divided(checkpoint)
    if team.size != ranks_of(checkpoint) or was_sharded != is_sharded:
        resume, sections = _redistributed(checkpoint, team.rank)
    elif team.is_first:
        resume, sections = checkpoint.resume, checkpoint.sections
    else:
        own = checkpoint.sections[section_of(team.rank)]
        resume, sections = own["resume"], _overlaid(checkpoint.sections, own)
    if is_sharded and not was_sharded:
        from mtf_trainer.distributed.dividing import to_divide

        sections = to_divide(sections, engine, live, source=str(checkpoint.path))
    return resume, (whole(sections) if parallel is None else parallel.to_load(sections))


def _overlaid(sections: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    training, mine = sections["training"], dict(own["training"])
    engine = dict(training["engine"])
    if "gradients" in mine:
        engine["gradients"] = mine.pop("gradients")
    pairs = zip(training["callbacks"], mine.pop("callbacks"), strict=True)
    callbacks = [first if second["state"] is None else second for first, second in pairs]
    return {
        "model": {**sections["model"], **own["model"]},
        "optimizer": own.get("optimizer", sections["optimizer"]),
        "training": {**training, **mine, "engine": engine, "callbacks": callbacks},
    }


def _redistributed(checkpoint: Checkpoint, rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
    sections = checkpoint.sections
    training = sections["training"]
    others = [sections[section_of(other)] for other in range(1, ranks_of(checkpoint))]
    resume = copy.deepcopy(dict(checkpoint.resume))
    for part, name in SUMS:
        if resume[part] is not None:
            every = [checkpoint.resume[part][name], *(other["resume"][part][name] for other in others)]
            resume[part][name] = _added(every) if rank == 0 else {}
    if is_divided(checkpoint):
        sections = _joined(sections, others)
        training = sections["training"]
    else:
        gradients = [training["engine"]["gradients"]]
        gradients += [other["training"]["gradients"] for other in others if "gradients" in other["training"]]
        training = {**training, "engine": {**training["engine"], "gradients": _mean(gradients)}}
    shared = {**training, "upcoming": None}
    if rank > 0:
        with rng.preserved():
            rng.seed_everything(derive_seed(checkpoint.fingerprint["seed"], "rank", rank, checkpoint.global_step))
            streams = rng.capture()
        shared |= {"rng": streams.state_dict(), "canary": canary(streams)}
    return resume, {"model": sections["model"], "optimizer": sections["optimizer"], "training": shared}


def _joined(sections: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sections with whole tensors, put together from the pieces of all ranks."""
    training = sections["training"]
    ranks = [sections, *others]
    gradients = [training["engine"]["gradients"], *(other["training"]["gradients"] for other in others)]
    callbacks = [each["training"]["callbacks"] for each in ranks]
    return {
        "model": joined([each["model"] for each in ranks]),
        "optimizer": joined([each["optimizer"] for each in ranks]),
        "training": {
            **training,
            "engine": {**training["engine"], "gradients": joined(gradients)},
            "callbacks": [
                {"type": items[0]["type"], "state": joined([item["state"] for item in items])}
                for items in zip(*callbacks, strict=True)
            ],
        },
    }


def _added(every: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for sums in every for name in sums)
    return {
        name: [math.fsum(sums[name][index] for sums in every if name in sums) for index in (0, 1)] for name in names
    }


def _mean(ranks: Sequence[Sequence[torch.Tensor | None]]) -> list[torch.Tensor | None]:
    means: list[torch.Tensor | None] = []
    for held in zip(*ranks, strict=True):
        present = [gradient for gradient in held if gradient is not None]
        means.append(torch.stack(present).sum(dim=0) / len(ranks) if present else None)
    return means
