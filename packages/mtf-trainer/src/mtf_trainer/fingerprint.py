"""What must agree between a checkpoint and the run that continues it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy
import torch
from torch import nn

from mtf_trainer.builders import DEFAULTS
from mtf_trainer.compiling import compilation
from mtf_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from mtf_trainer.config import GenericTrainerConfig
    from mtf_trainer.data import DataSource

__all__ = ["check_model", "compare", "data", "environment", "trainer_part"]

INEXACT_DATA_KEYS: Final = frozenset({"num_workers", "streams"})
"""Differences of the data that cost exactness and nothing else."""

UNSAID: Final = {
    "compile": False,
    "strategy": "ddp",
    "channels_last": False,
    "float32_matmul_precision": "highest",
    "ranks": 1,
    "threads": None,  # their number is restored
}
"""What an environment is that does not say."""

RUN_SECTIONS: Final = ("model", "training", "data", "optimizer", "scheduler", "custom_params")
ABSENT: Final = object()
"""In place of a value that one of two pieces of JSON does not have; as good as null."""

TRAINER_FIELDS: Final = (
    "gradient_accumulation_steps",
    "max_grad_norm",
    "max_grad_value",
    "precision",
    "validate_every_n_epochs",
    "validate_every_n_steps",
    "scheduler_interval",
    "non_finite_loss",
    "deterministic",
    "benchmark",
)


def trainer_part(config: GenericTrainerConfig, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The settings that decide what training computes, as plain JSON."""
    defaults = {
        key: value for key, value in optimizer.defaults.items() if isinstance(value, bool | int | float | str | None)
    }
    return {
        "run": _declared(config.run),
        "trainer": {name: getattr(config, name) for name in TRAINER_FIELDS},
        "optimizer": {"class": type(optimizer).__name__, **defaults},
    }


def _declared(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration declares beyond the trainer's own settings, with the builders' defaults spelled out."""
    parts = {name: run[name] for name in RUN_SECTIONS if run.get(name)}
    for name, defaults in DEFAULTS.items():
        section = parts.get(name, {} if parts and name == "training" else None)
        if isinstance(section, Mapping):
            kept = {key: section[key] for key in section if name != "training" or key in defaults}
            parts[name] = {**defaults, **kept}
    return parts


def data(train: DataSource, val: DataSource | None) -> dict[str, Any]:
    """What the run reads."""
    return {"train": train.fingerprint(), "val": None if val is None else val.fingerprint()}


def environment(
    config: GenericTrainerConfig, model: nn.Module, device: torch.device, *, ranks: int = 1
) -> dict[str, Any]:
    """Where and with what the results are computed: exact only while this stays the same."""
    precision = config.float32_matmul_precision or torch.get_float32_matmul_precision()
    return {
        **_chosen("compile", _compiled(config, model)),
        **_chosen("strategy", "fsdp" if ranks > 1 and config.distributed.strategy == "fsdp" else None),
        **_chosen("channels_last", config.performance.channels_last),
        **_chosen("float32_matmul_precision", None if precision == "highest" else precision),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "ranks": ranks,
    }


def _chosen(name: str, value: Any) -> dict[str, Any]:
    """What is not as it is by default, so that older checkpoints, which say nothing, agree with the default."""
    return {name: value} if value else {}


def _compiled(config: GenericTrainerConfig, model: nn.Module) -> Any:
    """What the model is compiled with, as plain JSON; of one that came compiled only that it did."""
    options = compilation(config.performance)
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        return "by the user"
    if options is None:
        return "by the user" if any(module._compiled_call_impl for module in model.modules()) else None
    return {key: repr(value) if callable(value) else value for key, value in options.items()}


def compare(saved: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare a checkpoint's fingerprint with that of the run that wants to continue it.

    Returns:
        What makes it another run, and what only costs exactness; one line each.
    """
    then, now = ({**item["settings"], "run": _declared(item["settings"]["run"])} for item in (saved, current))
    faults = list(differences(then, now))
    before, after = ({**UNSAID, **item["environment"], "threads": None} for item in (saved, current))
    inexact = list(differences(before, after))
    for part in ("train", "val"):
        was, now = saved["data"][part], current["data"][part]
        if was is None or now is None:
            if was is not now:
                added = was is None
                inexact.append(f"{part}_loader: {'none' if added else 'one'} then, {'one' if added else 'none'} now")
            continue
        if (
            was.get("kind") == now.get("kind") == "map" and was["streams"] == now["streams"]
        ):  # then their number is free
            was, now = ({key: value for key, value in item.items() if key != "num_workers"} for item in (was, now))
        for line in differences(was, now, part):
            key = line.split(" ", 1)[0].rpartition(".")[2]
            (inexact if key in INEXACT_DATA_KEYS else faults).append(line)
    return faults, inexact


def differences(saved: Any, current: Any, path: str = "") -> Iterator[str]:
    """One line for every place where two pieces of plain JSON differ: `training.batch_size was 32, is 64`."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in {**saved, **current}:
            place = f"{path}.{key}" if path else str(key)
            yield from differences(saved.get(key, ABSENT), current.get(key, ABSENT), place)
    elif _plain(saved) != _plain(current):
        yield f"{path} was {_shown(saved)}, is {_shown(current)}"


def _plain(value: Any) -> Any:
    return None if value is ABSENT else list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return "not set" if value is ABSENT else repr(value)


def check_model(current: Mapping[str, Any], saved: Mapping[str, Any], *, source: str) -> None:
    """Compare the names and shapes of a saved state of a model with those of the one that is to take it up.

    Raises:
        CheckpointError: they differ; the first few differences are named.
    """
    faults = [f"{name} is missing from the checkpoint" for name in current if name not in saved]
    faults += [f"{name} is not in this model" for name in saved if name not in current]
    for name, tensor in current.items():
        other = saved.get(name)
        if not isinstance(tensor, torch.Tensor) or not isinstance(other, torch.Tensor):
            continue
        if (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
            faults.append(f"{name} was {_shape(other)}, is {_shape(tensor)}")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(f"{source} belongs to another model: {shown}")


def _shape(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
