"""Clipping the norm of gradients: what torch does, at the price of its operations alone where they are all alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["clip_norm"]

EPSILON = 1e-6
"""What torch adds to a norm before it divides by it."""


def clip_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scale the gradients of parameters, which must have one, so that their common 2-norm is at most `max_norm`.

    The numbers are those of `torch.nn.utils.clip_grad_norm_`. That looks for kinds of gradients twice and enters three
    contexts, which takes longer than the arithmetic on a small model; ordinary tensors of one kind need none of it.

    Args:
        parameters: at least one.
        max_norm: the limit.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dtype, device = gradients[0].dtype, gradients[0].device
    for gradient in gradients:
        if type(gradient) is not torch.Tensor or gradient.dtype is not dtype or gradient.device != device:
            nn.utils.clip_grad_norm_(parameters, max_norm)
            return
    if device.type not in ("cpu", "cuda"):  # where torch itself takes these operations
        nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    with torch.no_grad():
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)), 2.0)
        torch._foreach_mul_(gradients, torch.clamp(max_norm / (norm + EPSILON), max=1.0))
