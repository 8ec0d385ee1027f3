"""Random streams: seed, capture, restore and compare every one that training draws from."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtf_trainer.errors import TrainerError

__all__ = ["RNGState", "capture", "derive_seed", "preserved", "restore", "seed_everything", "seed_host"]

logger = logging.getLogger(__name__)

_UINT32 = 0xFFFF_FFFF
_UINT64 = 0xFFFF_FFFF_FFFF_FFFF


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 64-bit seed for one purpose, the same on every machine and Python version.

    Args:
        seed: the run's seed; any integer.
        parts: what the seed is for, for example a stream's name, an epoch and a batch number. Order and type matter:
            `1` and `"1"` differ, and so do `("ab", "c")` and `("a", "bc")`.

    Returns:
        An integer in [0, 2**64).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        is_text = isinstance(part, str)
        text = str(part if is_text else int(part)).encode()
        digest.update(b"%c%d:%s" % (b"s" if is_text else b"i", len(text), text))
    return int.from_bytes(digest.digest(), "little")


def seed_host(seed: int) -> None:
    """Seed the global streams of python, numpy and torch on the CPU; accelerators are left alone.

    Args:
        seed: an integer in [0, 2**64).
    """
    random.seed(seed)
    np.random.seed(seed if seed <= _UINT32 else [seed & _UINT32, seed >> 32])
    torch.default_generator.manual_seed(seed)


def seed_everything(seed: int) -> None:
    """Seed the global streams of python, numpy (the legacy one), torch on the CPU and every accelerator.

    Args:
        seed: an integer in [0, 2**64).

    Raises:
        TrainerError: if the seed is not such an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _UINT64:
        raise TrainerError(f"a seed is an integer from 0 to 2**64 - 1, found {seed!r}")
    seed_host(seed)
    torch.manual_seed(seed)  # accelerators too; those not started yet are seeded when they start


@dataclass
class RNGState:
    """The state of every global random stream of a process.

    Attributes:
        python: `words` (int64 tensor), `version` and `gauss` of the `random` module.
        numpy: the state of numpy's global `RandomState`, arrays as int64 tensors.
        torch: the CPU generator's state, a uint8 tensor.
        accelerators: a uint8 tensor per device that is in use, by name (`cuda:0`).
    """

    python: dict[str, Any]
    numpy: dict[str, Any]
    torch: Tensor
    accelerators: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data, for a checkpoint."""
        return {
            "python": dict(self.python),
            "numpy": dict(self.numpy),
            "torch": self.torch,
            "accelerators": dict(self.accelerators),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> RNGState:
        """Build the value from what `state_dict` returned.

        Raises:
            TrainerError: if a stream is missing; the message names it.
        """
        for name in ("python", "numpy", "torch", "accelerators"):
            if name not in state:
                raise TrainerError(f"the saved random state has no stream {name!r}; it has: {', '.join(state)}")
        return cls(
            python=dict(state["python"]),
            numpy=dict(state["numpy"]),
            torch=state["torch"],
            accelerators=dict(state["accelerators"]),
        )

    def differing(self, other: RNGState) -> list[str]:
        """Names of the streams that differ (`python`, `numpy`, `torch`, `cuda:0`, ...), in that order."""
        names = [name for name in ("python", "numpy", "torch") if not _same(getattr(self, name), getattr(other, name))]
        devices = sorted(self.accelerators.keys() | other.accelerators.keys())
        return names + [
            name for name in devices if not _same(self.accelerators.get(name), other.accelerators.get(name))
        ]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and bool(torch.equal(left.cpu(), right.cpu()))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def python_state(stream: random.Random) -> dict[str, Any]:
    """The state of a `random.Random` as tensors and plain data."""
    version, words, gauss = stream.getstate()
    return {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss}


def set_python_state(stream: random.Random, state: Mapping[str, Any]) -> None:
    """Put back what `python_state` returned."""
    stream.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))


def freeze_numpy(state: Any) -> Any:
    """A numpy generator's state with arrays as int64 tensors and numbers as plain ones."""
    if isinstance(state, Mapping):
        return {key: freeze_numpy(value) for key, value in state.items()}
    if isinstance(state, np.ndarray):
        # Unsigned 64-bit words keep their bits as signed ones: safetensors and torch know those everywhere.
        signed = state.view(np.int64) if state.dtype == np.uint64 else state.astype(np.int64)
        return torch.from_numpy(signed.copy())
    return state.item() if isinstance(state, np.generic) else state


def thaw_numpy(state: Any, like: Any) -> Any:
    """Undo `freeze_numpy`; `like` is a present state of the same kind of generator."""
    if isinstance(state, Mapping):
        return {key: thaw_numpy(value, like[key]) for key, value in state.items()}
    if isinstance(state, Tensor):
        signed = state.cpu().numpy()
        return signed.view(np.uint64) if like.dtype == np.uint64 else signed.astype(like.dtype)
    return state


def _global_numpy() -> dict[str, Any]:
    state: dict[str, Any] = np.random.get_state(legacy=False)
    return state


def _accelerator() -> tuple[str, Any] | None:
    """Name and torch module of the accelerator that this process uses; None if there is none or it was not started.

    One that was not started has drawn nothing, and asking it for its state would start it.
    """
    if not torch.accelerator.is_available():
        return None
    device = torch.accelerator.current_accelerator()
    if device is None:
        return None
    module = torch.get_device_module(device)
    if hasattr(module, "is_initialized") and not module.is_initialized():
        return None
    return device.type, module


def _capture_accelerators() -> dict[str, Tensor]:
    found = _accelerator()
    if found is None:
        return {}
    name, module = found
    if name == "mps":
        return {"mps:0": module.get_rng_state()}
    return {f"{name}:{index}": module.get_rng_state(index) for index in range(module.device_count())}


def capture(*, accelerators: bool = True) -> RNGState:
    """The state of every global stream; draws nothing.

    Args:
        accelerators: also those of accelerators that were started.
    """
    return RNGState(
        python=python_state(random._inst),
        numpy=freeze_numpy(_global_numpy()),
        torch=torch.default_generator.get_state(),
        accelerators=_capture_accelerators() if accelerators else {},
    )


def _restore_python(state: Mapping[str, Any]) -> None:
    set_python_state(random._inst, state)


def _restore_numpy(state: Mapping[str, Any]) -> None:
    present = _global_numpy()
    if present["bit_generator"] != state["bit_generator"]:
        raise ValueError(
            f"it was saved from {state['bit_generator']}, this process has {present['bit_generator']}; "
            "call numpy.random.set_bit_generator as the saved run did"
        )
    np.random.set_state(thaw_numpy(state, present))


def _restore_accelerator(name: str, state: Tensor) -> None:
    kind, _, index = name.partition(":")
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if present is None or present.type != kind:
        raise ValueError(f"this process has {'no accelerator' if present is None else present.type}")
    module = torch.get_device_module(present)
    if int(index) >= module.device_count():
        raise ValueError(f"this process sees {module.device_count()} such devices")
    if kind == "mps":
        module.set_rng_state(state.cpu())
    else:
        module.set_rng_state(state.cpu(), int(index))


def restore(state: RNGState, *, strict: bool = True) -> None:
    """Put every global stream back.

    Args:
        state: what `capture` returned.
        strict: whether a stream that cannot be restored is an error; otherwise it is left as it is, with a warning.

    Raises:
        TrainerError: if a stream cannot be restored; the message names it. The others may have been restored.
    """
    jobs: list[tuple[str, Any, Any]] = [
        ("python", _restore_python, state.python),
        ("numpy", _restore_numpy, state.numpy),
        ("torch", torch.default_generator.set_state, state.torch.cpu()),
    ]
    for name, put_back, value in jobs:
        _attempt(name, put_back, (value,), strict)
    for name, value in state.accelerators.items():
        _attempt(name, _restore_accelerator, (name, value), strict)


def _attempt(name: str, put_back: Any, arguments: tuple[Any, ...], strict: bool) -> None:
    try:
        put_back(*arguments)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        message = f"the random stream {name!r} cannot be restored: {error}"
        if strict:
            raise TrainerError(message) from error
        logger.warning("%s; it goes on from where it is, so the continuation is not exact", message)


@contextmanager
def preserved() -> Iterator[None]:
    """Leave the global streams after the block as they were before it, whatever happens inside."""
    before = capture()
    try:
        yield
    finally:
        restore(before)
