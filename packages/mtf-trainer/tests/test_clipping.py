"""Clipped gradients are those of torch, to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mtf_trainer.clipping import clip_norm

SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


def both(parameters: list[nn.Parameter], max_norm: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    given_gradients = [parameter.grad.clone() for parameter in parameters]
    clip_norm(parameters, max_norm)
    ours = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, given_gradients, strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, max_norm)
    return ours, [parameter.grad for parameter in parameters]


@given(SHAPES, st.data(), st.floats(1e-3, 1e3), st.floats(1e-6, 1e4), st.integers(0, 2**31))
def test_the_numbers_are_those_of_torch(
    shapes: list[list[int]], data: st.DataObject, max_norm: float, size: float, seed: int
) -> None:
    one = data.draw(DTYPES)
    dtypes = data.draw(st.one_of(st.just([one] * len(shapes)), st.lists(DTYPES, min_size=6, max_size=6)))
    source = torch.Generator().manual_seed(seed)
    parameters = []
    for shape, dtype in zip(shapes, dtypes, strict=False):
        parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = (torch.randn(shape, generator=source) * size).to(dtype)
        parameters.append(parameter)
    for ours, theirs in zip(*both(parameters, max_norm), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_becomes_what_torch_makes_of_it(bad: float) -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    parameters[0].grad = torch.tensor([1.0, bad, -2.0])
    parameters[1].grad = torch.ones(2, 2)
    for ours, theirs in zip(*both(parameters, 1.0), strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))
