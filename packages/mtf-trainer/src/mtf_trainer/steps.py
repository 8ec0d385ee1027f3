"""What the phases of the loop do with the model, the optimizer, the scaler and the schedulers."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtf_trainer import determinism, habits
from mtf_trainer.clipping import clip_norm
from mtf_trainer.errors import TrainerError
from mtf_trainer.metrics import Scalar, to_scalars
from mtf_trainer.preparation import plain_name

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig
    from mtf_trainer.distributed.parallel import Parallel

__all__ = ["Engine", "LossWatch", "Place", "at", "is_finite", "modes_of", "restore_modes", "to_device"]


Place = tuple[int, int, int]
"""Which batch something is about: epoch, batch, step."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def at(place: Place) -> str:
    """A place, for people: they count epochs and batches from 1."""
    epoch, batch, step = place
    return f"epoch {epoch + 1}, batch {batch + 1}, step {step}"


class Engine:
    """Model, optimizer, scheduler and gradient scaler of a run, and the steps they take.

    Attributes:
        parallel: how several ranks train the model, if there are several.
    """

    def __init__(
        self,
        config: GenericTrainerConfig,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any | None,
        device: torch.device,
    ) -> None:
        self.config = config
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if config.precision == "fp16" else None
        self.watch = LossWatch()
        dtype = _DTYPES.get(config.precision)
        self._autocast = None if dtype is None else torch.autocast(device.type, dtype=dtype)
        self._parameters: list[nn.Parameter] = []
        self.parallel: Parallel | None = None

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer updates, in the order of its groups; the list is kept while its length is right."""
        groups, count = self.optimizer.param_groups, 0
        for group in groups:
            count += len(group["params"])
        if len(self._parameters) != count:
            self._parameters = [parameter for group in groups for parameter in group["params"]]
        return self._parameters

    def gradient_holders(self) -> list[nn.Parameter]:
        """Everything whose gradient is state between two micro-batches, in an order that does not change."""
        known = {id(parameter) for parameter in self.parameters()}
        return self.parameters() + [p for p in self.model.parameters() if id(p) not in known]

    def steady(self) -> list[torch.Tensor]:
        """What nothing changes between two updates: parameters and the optimizer's state.

        A parameter that shares memory with a buffer is left out: a forward pass may write to buffers.
        """
        moving = {buffer.untyped_storage().data_ptr() for buffer in self.model.buffers()}
        tensors: list[torch.Tensor] = [parameter.detach() for parameter in self.gradient_holders()]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        if self.parallel is not None:
            tensors = [self.parallel.local(tensor) for tensor in tensors]
        return [tensor for tensor in tensors if tensor.untyped_storage().data_ptr() not in moving]

    def forward(self, step: Any, name: str, batch: Any, batch_idx: int) -> tuple[Mapping[str, Any], dict[str, Scalar]]:
        """Call a user's step under the run's precision; its outputs as they are, and their metrics."""
        try:
            if self._autocast is None:
                outputs = step(batch, batch_idx)
            else:
                with self._autocast:
                    outputs = step(batch, batch_idx)
        except RuntimeError as error:
            determinism.explain(error)
            raise
        except AttributeError as error:
            habits.explain(error)
            raise
        if not isinstance(outputs, dict) and not isinstance(outputs, Mapping):
            raise TrainerError(
                f"{name} returned {type(outputs).__name__}: expected a dict of metrics, such as {{'loss': loss}}"
            )
        return outputs, to_scalars(outputs, step=name)

    def check_loss(self, outputs: Mapping[str, Any], place: Place) -> torch.Tensor:
        """The loss to go back from.

        Args:
            outputs: of a training step.
            place: of its batch.

        Raises:
            TrainerError: there is none, or it is not one differentiable number.
        """
        loss = outputs.get("loss")
        if not isinstance(loss, torch.Tensor):
            found = f"a {type(loss).__name__}" if "loss" in outputs else f"only {sorted(outputs) or 'nothing'}"
            raise TrainerError(
                f"training_step must return a dict with a tensor under 'loss', found {found} at {at(place)}"
            )
        if not loss.requires_grad:
            raise TrainerError(f"the loss at {at(place)} has requires_grad=False: expected one differentiable number")
        return loss

    def backward(self, loss: torch.Tensor, window: int) -> None:
        """Add the gradients of the micro-batch, as one of `window` of equal weight."""
        if window > 1:
            loss = loss / window
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            determinism.explain(error)
            raise
        if self.parallel is not None:
            self.parallel.is_reduced = self.parallel.syncs

    def before_validation(self) -> None:
        """Have all ranks validate the same model."""
        if self.parallel is not None:
            self.parallel.before_validation()

    def optimizer_step(self, *, correction: float = 1.0, inspect: Callable[[], None] | None = None) -> None:
        """Clip, step, and clear the gradients.

        Args:
            correction: factor for gradients that were divided by the wrong window size, because the loader's end
                came as a surprise.
            inspect: called when the gradients are complete, before they are clipped.
        """
        if self.parallel is not None:
            self.parallel.reduce(self.gradient_holders())
        parameters = [parameter for parameter in self.parameters() if parameter.grad is not None]
        if not parameters:  # every micro-batch of the window was left out
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if correction != 1.0:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], correction)
        if inspect is not None:
            inspect()
        if self.config.max_grad_value is not None:
            nn.utils.clip_grad_value_(parameters, self.config.max_grad_value)
        if self.config.max_grad_norm is not None:
            clip_norm(parameters, self.config.max_grad_norm)
        try:
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
        except RuntimeError as error:
            determinism.explain(error)
            raise
        self._clear_gradients(parameters)

    def _clear_gradients(self, parameters: list[nn.Parameter]) -> None:
        """What `zero_grad` of torch's optimizers does, without the time it takes to tell a profiler."""
        if type(self.optimizer).zero_grad is torch.optim.Optimizer.zero_grad:
            for parameter in parameters:
                parameter.grad = None
        else:
            self.optimizer.zero_grad(set_to_none=True)

    def scheduler_step(self, metric: float | None = None) -> None:
        """Move the learning rate on."""
        if self.scheduler is not None:
            self.scheduler.step() if metric is None else self.scheduler.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """What goes into the checkpoint beside the model's and the optimizer's own state."""
        return {
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "gradients": [parameter.grad for parameter in self.gradient_holders()],
            "reduced": self.parallel is None or self.parallel.is_reduced,
            "modes": modes_of(self.model),
            "frozen": [plain_name(name) for name, each in self.model.named_parameters() if not each.requires_grad],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; model and optimizer have their own state already.

        Raises:
            TrainerError: the run has a scheduler or a scaler and the state has none, or the other way round.
        """
        for name, part in (("scheduler", self.scheduler), ("scaler", self.scaler)):
            if (part is None) != (state[name] is None):
                now, then = ("without", "with") if part is None else ("with", "without")
                raise TrainerError(f"the checkpoint was made {then} a {name}, this run is {now} one")
            if part is not None:
                part.load_state_dict(state[name])
        if self.scaler is not None:
            # torch makes its tensors when the first loss is scaled; a run that goes on behind that scales none before
            self.scaler.scale(torch.zeros((), device=self.device))
        frozen = set(state["frozen"])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(plain_name(name) not in frozen)
        holders = self.gradient_holders()
        if len(holders) != len(state["gradients"]):
            raise TrainerError(
                f"the checkpoint has gradients of {len(state['gradients'])} parameters, this run has {len(holders)}"
            )
        for parameter, gradient in zip(holders, state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        if self.parallel is not None:
            self.parallel.is_reduced = state.get("reduced", False)
        restore_modes(self.model, state["modes"])


class LossWatch:
    """Looks for losses that are not finite without making the loop wait for an accelerator.

    There a loss is looked at when the next one comes: by then it has long been computed.
    """

    def __init__(self) -> None:
        self._pending: tuple[torch.Tensor, torch.cuda.Event, Place] | None = None

    def see(self, loss: Scalar, place: Place) -> Place | None:
        """Take a loss; returns the place of one that is not finite, this one's or the one's before."""
        if not isinstance(loss, torch.Tensor):
            return None if math.isfinite(loss) else place
        if not loss.is_cuda:
            return None if is_finite(loss) else place
        bad = self._look()
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
        copy.copy_(loss, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending = (copy, event, place)
        return bad

    def _look(self) -> Place | None:
        if self._pending is None:
            return None
        copy, event, place = self._pending
        event.synchronize()
        return None if is_finite(copy) else place


def modes_of(model: nn.Module) -> list[str]:
    """The names of the modules that are in evaluation mode."""
    return list(dict.fromkeys(plain_name(name) for name, module in model.named_modules() if not module.training))


def restore_modes(model: nn.Module, evaluating: list[str]) -> None:
    """Put exactly these modules into evaluation mode and all others into training mode."""
    names = set(evaluating)
    for name, module in model.named_modules():
        module.training = plain_name(name) not in names


def to_device(batch: Any, device: torch.device, layout: torch.memory_format | None = None) -> Any:
    """The batch with every tensor in it on the device; containers keep their type.

    Args:
        batch: what the loader gave.
        device: where to.
        layout: of tensors with four dimensions in plain containers; None leaves it as it is.
    """
    if isinstance(batch, torch.Tensor):
        if layout is not None and batch.dim() == 4:
            return batch.to(device, non_blocking=True, memory_format=layout)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        if type(batch) is not dict and hasattr(batch, "to"):  # such as a tokenizer's output
            return batch.to(device)
        return {key: to_device(value, device, layout) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device, layout) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device, layout) for value in batch)
    if hasattr(batch, "to"):
        return batch.to(device)
    if dataclasses.is_dataclass(batch):
        moved = copy.copy(batch)
        for item in dataclasses.fields(batch):
            value = to_device(getattr(batch, item.name), device, layout)
            object.__setattr__(moved, item.name, value)  # it may be frozen
        return moved
    return batch


def is_finite(value: Scalar) -> bool:
    """Whether a loss is an ordinary number; asks an accelerator and waits for it."""
    return math.isfinite(float(value))
