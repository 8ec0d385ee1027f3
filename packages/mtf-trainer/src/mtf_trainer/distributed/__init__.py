"""Several processes that train one model: who they are, what they tell each other, how they stop together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from mtf_trainer.distributed.accord import check_accord, layout_of
from mtf_trainer.distributed.team import Team
from mtf_trainer.distributed.world import World, find_world
from mtf_trainer.errors import TrainingPreempted, TrainingStopped
from mtf_trainer.preemption import StopFlag
from mtf_utils.sections import DistributedConfig

if TYPE_CHECKING:
    from mtf_trainer.distributed.agreement import Agreement
    from mtf_trainer.distributed.parallel import Parallel

__all__ = ["Ranks", "Team", "World", "find_world", "together", "world_of"]

PATIENCE_S: Final = 10.0
"""How long a rank may take to answer when all have to stop, and to end by itself when another has failed."""


@dataclass(frozen=True)
class Ranks:
    """What a call of `fit` has to do with other ranks.

    Attributes:
        team: all of them.
        agreement: when all of them stop; None if there is nobody to agree with.
    """

    team: Team
    agreement: Agreement | None = None

    def spread(self, model: nn.Module, config: DistributedConfig) -> Parallel | None:
        """Have all ranks train the model; None if there is one.

        Raises:
            TrainerError: they were given different models.
        """
        if self.team.size == 1:
            return None
        check_accord(self.team, {"strategy": config.strategy, "model": layout_of(model)})
        if config.strategy == "fsdp":
            from mtf_trainer.distributed.sharded import Sharded

            return Sharded(model, self.team)
        from mtf_trainer.distributed.replicas import Replicas

        return Replicas(model, self.team, unused_parameters=config.unused_parameters)


def world_of(config: DistributedConfig) -> World:
    """The ranks that train together under a configuration."""
    if config.strategy == "none":
        return World()
    world = find_world()
    if world.size == 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        group = torch.distributed
        return World(rank=group.get_rank(), size=group.get_world_size(), address="localhost")
    return world


@contextlib.contextmanager
def together(
    config: DistributedConfig, flag: StopFlag, device: torch.device, *, patience_s: float = PATIENCE_S
) -> Iterator[Ranks]:
    """Train with the other ranks while the block runs.

    Args:
        config: whether there are others.
        flag: whether this process was told to stop.
        device: of this rank.
        patience_s: how long another rank may take to answer when all have to stop.

    Yields:
        What there is to do with them.

    Raises:
        TrainerError: another rank has failed, or cannot be reached.
    """
    world = world_of(config)
    if world.size == 1:
        yield Ranks(Team())
        return
    from mtf_trainer.distributed.agreement import Agreement, cannot_go_on
    from mtf_trainer.distributed.processes import assemble, is_lost, why_lost

    team = assemble(config, world, device)
    agreement = Agreement(team, flag, patience_s=patience_s)
    agreement.start()
    try:
        yield Ranks(team, agreement)
        agreement.close()
        team.close()
    except (TrainingPreempted, TrainingStopped) as stop:
        if isinstance(stop.__cause__, Exception):  # this rank failed once too often
            agreement.fail(stop.__cause__)
        else:  # told to go, and so are all; the state is durable, whatever becomes of the others
            agreement.close()
            with contextlib.suppress(RuntimeError):
                team.close()
        raise
    except BaseException as error:
        if not isinstance(error, Exception) or not is_lost(error):
            agreement.fail(error)
            raise
        heard = cannot_go_on(agreement.failure() or why_lost(error, config))
        agreement.fail(heard)
        raise heard from error
    finally:
        agreement.close()
