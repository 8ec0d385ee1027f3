"""How a run goes on with another number of ranks than made its checkpoint: what is brought together, what is dealt."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from mtf_trainer import rng
from mtf_trainer.attestation import alike, canary
from mtf_trainer.checkpoint import Checkpoint
from mtf_trainer.checkpoint.pieces import is_piece, joined
from mtf_trainer.data import DataSource
from mtf_trainer.metric_objects import MetricState
from mtf_trainer.phases import CONSUMED, TrainerPhase
from mtf_trainer.rng import derive_seed
from mtf_trainer.state import ResumeState
from mtf_utils.stateful import Stateful

__all__ = ["deal_anew", "is_divided", "left_behind", "ranks_of", "redistributed", "section_of"]

SUMS: Final = (("train", "epoch_sums"), ("train", "record_sums"), ("val", "sums"))
"""Running sums in the training state: each rank has those of its own batches."""


def section_of(rank: int) -> str:
    """The section of a rank other than the first."""
    return f"rank_{rank}"


def ranks_of(checkpoint: Checkpoint) -> int:
    """By how many ranks it was made."""
    return int(checkpoint.fingerprint["environment"].get("ranks", 1))


def is_divided(checkpoint: Checkpoint) -> bool:
    """Whether its model was divided among the ranks."""
    return any(map(is_piece, checkpoint.sections["model"].values()))


def deal_anew(state: ResumeState, train: DataSource, val: DataSource | None) -> None:
    """Have the data go on where another number of ranks stood: what they have not read is dealt to those of now."""
    if state.train is not None and not state.train.exhausted:
        train.take_over(state.epoch, state.train.batch_idx + (state.phase in CONSUMED))
    if val is not None and state.val is not None and state.phase is not TrainerPhase.VAL_START_EPOCH:
        val.take_over(state.validations - 1, state.val.batch_idx + (state.phase is TrainerPhase.VAL_BATCH_END))


def redistributed(
    checkpoint: Checkpoint, rank: int, registered: Mapping[str, Stateful]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training state and the sections with which a rank continues what another number of ranks began.

    Rank 0 keeps its random streams and gets the sums of all, and what the metric objects of all have collected;
    accumulated gradients become their mean, which is what they would have been brought together to. Callbacks and other
    registered objects go on as they were on rank 0, on every rank.
    """
    sections = checkpoint.sections
    training = sections["training"]
    others = _others(checkpoint)
    resume = copy.deepcopy(dict(checkpoint.resume))
    resume["stop_asked"] = any(each.get("stop_asked", False) for each in (resume, *(o["resume"] for o in others)))
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
    shared = {**training, "upcoming": None, "registered": _registered(training, others, registered, is_first=rank == 0)}
    if rank > 0:
        with rng.preserved():
            rng.seed_everything(derive_seed(checkpoint.fingerprint["seed"], "rank", rank, checkpoint.global_step))
            streams = rng.capture()
        shared |= {"rng": streams.state_dict(), "canary": canary(streams)}
    return resume, {"model": sections["model"], "optimizer": sections["optimizer"], "training": shared}


def left_behind(checkpoint: Checkpoint, registered: Mapping[str, Stateful]) -> Iterator[str]:
    """What of other ranks than the first `redistributed` has no place for, named for a person.

    Args:
        checkpoint: that other numbers of ranks continue.
        registered: what has a state of its own, by name; not loaded yet.
    """
    training, others = checkpoint.sections["training"], [other["training"] for other in _others(checkpoint)]
    for place, first in enumerate(training["callbacks"]):
        theirs = [other["callbacks"][place]["state"] for other in others]
        if not all(state is None or alike(first["state"], state) for state in theirs):
            yield f"callback {first['type']}"
    for name, stateful in registered.items():
        if name not in training["registered"]:
            continue  # which is refused later
        states = [each["registered"][name] for each in (training, *others)]
        if isinstance(stateful, MetricState):
            if stateful.is_lossy(states):
                yield name
        elif not all(alike(states[0], state) for state in states[1:]):
            yield f"registered state {name}"


def _others(checkpoint: Checkpoint) -> list[Mapping[str, Any]]:
    return [checkpoint.sections[section_of(rank)] for rank in range(1, ranks_of(checkpoint))]


def _registered(
    training: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    registered: Mapping[str, Stateful],
    *,
    is_first: bool,
) -> dict[str, Any]:
    taken = dict(training["registered"])
    for name, stateful in registered.items():
        if isinstance(stateful, MetricState) and name in taken:
            states = [taken[name], *(other["training"]["registered"][name] for other in others)]
            taken[name] = stateful.merged(states, is_first=is_first)
    return taken


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
