"""What every rank has of its own in a checkpoint, and how it gets it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from mtf_trainer.callbacks import TrainingCallback
from mtf_trainer.checkpoint import Checkpoint
from mtf_trainer.checkpoint.pieces import whole
from mtf_trainer.distributed.redistribution import is_divided, ranks_of, redistributed, section_of
from mtf_trainer.distributed.team import Team
from mtf_trainer.preparation import plain_name
from mtf_trainer.restoring import keeps_state
from mtf_trainer.steps import Engine
from mtf_utils.stateful import Stateful

__all__ = ["is_as_saved", "of_all_ranks", "own_section", "shares_of", "wanted_by"]

OWN: Final = ("rng", "canary", "data", "upcoming", "registered")
"""Keys of the section `training` that differ from rank to rank."""


def wanted_by(rank: int, *, as_saved: bool) -> Callable[[str], bool]:
    """Which sections of a checkpoint a rank reads: its own, or all if the ranks are not those that saved it."""
    if not as_saved:
        return lambda name: True
    return lambda name: not name.startswith("rank_") or name == section_of(rank)


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
    is_sharded = _is_sharded(engine)
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


def of_all_ranks(lines: Iterable[str], team: Team) -> list[str]:
    """What all ranks have to say, each line with its rank if there are several."""
    told = team.gather(list(lines))
    return told[0] if team.size == 1 else [f"{line} of rank {rank}" for rank, each in enumerate(told) for line in each]


def is_as_saved(checkpoint: Checkpoint, team: Team, engine: Engine) -> bool:
    """Whether every rank finds its own share in a checkpoint."""
    return team.size == ranks_of(checkpoint) and is_divided(checkpoint) == _is_sharded(engine)


def _is_sharded(engine: Engine) -> bool:
    return engine.parallel is not None and engine.parallel.is_sharded


def shares_of(
    checkpoint: Checkpoint,
    team: Team,
    engine: Engine,
    live: Callable[[], Mapping[str, Any]],
    registered: Mapping[str, Stateful],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training state and the sections that a rank continues with.

    Args:
        checkpoint: to continue from.
        team: the ranks of now.
        engine: has their model.
        live: gives the section `training` of this run as it is.
        registered: what has a state of its own, by name.

    Raises:
        CheckpointError: the model is divided now, and the optimizer's state cannot be.
    """
    parallel = engine.parallel
    if not is_as_saved(checkpoint, team, engine):
        resume, sections = redistributed(checkpoint, team.rank, registered)
    elif team.is_first:
        resume, sections = checkpoint.resume, checkpoint.sections
    else:
        own = checkpoint.sections[section_of(team.rank)]
        resume, sections = own["resume"], _overlaid(checkpoint.sections, own)
    if _is_sharded(engine) and not is_divided(checkpoint):
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
