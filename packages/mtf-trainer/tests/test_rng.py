"""Random streams: what is captured comes back, what differs is named, derived seeds are stable."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtf_trainer import rng
from mtf_trainer.errors import TrainerError

PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=20)), max_size=5)


def draws() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(1)),
        float(torch.randn(1)),
    ]


def untouched() -> list[float]:
    """The next draws of every stream, without moving it."""
    state = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    values = draws()
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    return values


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_one_seed_determines_every_stream(seed):
    rng.seed_everything(seed)
    first = draws()
    draws()
    rng.seed_everything(seed)
    assert draws() == first
    rng.seed_everything(seed ^ 1)
    assert all(mine != other for mine, other in zip(draws(), first, strict=True))


def test_seeds_are_the_ones_that_people_know():
    rng.seed_everything(7)
    assert draws() == [
        (python := random.Random(7)).random(),
        python.gauss(0, 1),
        (legacy := np.random.RandomState(7)).rand(),
        legacy.randn(),
        float(torch.rand(1, generator=(generator := torch.Generator().manual_seed(7)))),
        float(torch.randn(1, generator=generator)),
    ]


@pytest.mark.parametrize("bad", [-1, 2**64, 1.0, "1", None, True])
def test_a_bad_seed_is_named(bad):
    with pytest.raises(TrainerError, match="a seed is an integer"):
        rng.seed_everything(bad)


def test_capture_draws_nothing():
    before = untouched()
    rng.capture()
    assert draws() == before


@given(st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_restored_streams_go_on_as_captured(seed, drawn):
    rng.seed_everything(seed)
    for _ in range(drawn):
        draws()
    random.gauss(0, 1), np.random.randn()  # half of a pair of normal draws is pending in each
    state = rng.capture()
    expected = [draws() for _ in range(3)]
    rng.restore(state)
    assert [draws() for _ in range(3)] == expected


def test_state_survives_json_and_tensors_bitwise():
    rng.seed_everything(3)
    draws(), random.gauss(0, 1), np.random.randn()
    state = rng.capture()
    tensors = []

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, torch.Tensor):
            tensors.append(value.clone())
            return {"tensor": len(tensors) - 1}
        return value

    def back(value):
        if isinstance(value, dict):
            return tensors[value["tensor"]] if "tensor" in value else {k: back(v) for k, v in value.items()}
        return value

    again = rng.RNGState.from_state_dict(back(json.loads(json.dumps(plain(state.state_dict())))))
    assert state.differing(again) == []
    expected = untouched()
    rng.seed_everything(4)
    rng.restore(again)
    assert draws() == expected


@pytest.mark.parametrize(
    ("name", "draw"),
    [("python", random.random), ("numpy", np.random.rand), ("torch", lambda: torch.rand(1))],
)
def test_differing_names_the_stream_that_moved(name, draw):
    before = rng.capture()
    draw()
    assert before.differing(rng.capture()) == [name]
    assert before.differing(before) == []


def test_differing_names_devices():
    left, right = rng.capture(), rng.capture()
    left.accelerators = {"cuda:0": torch.zeros(3, dtype=torch.uint8), "cuda:1": torch.zeros(3, dtype=torch.uint8)}
    right.accelerators = {"cuda:0": torch.zeros(3, dtype=torch.uint8)}
    assert left.differing(right) == ["cuda:1"]


def test_a_missing_stream_is_named():
    state = rng.capture().state_dict()
    del state["numpy"]
    with pytest.raises(TrainerError, match="'numpy'"):
        rng.RNGState.from_state_dict(state)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("python", lambda state: state.python.update(words=torch.zeros(3, dtype=torch.int64))),
        ("numpy", lambda state: state.numpy.update(bit_generator="PCG64")),
        ("torch", lambda state: setattr(state, "torch", torch.zeros(3, dtype=torch.uint8))),
        ("weird:0", lambda state: state.accelerators.update({"weird:0": torch.zeros(3, dtype=torch.uint8)})),
    ],
)
def test_a_stream_that_cannot_be_restored_is_an_error_unless_allowed(name, spoil, caplog):
    state = rng.capture()
    spoil(state)
    with pytest.raises(TrainerError, match=f"'{name}'"):
        rng.restore(state)
    rng.restore(state, strict=False)
    assert f"'{name}'" in caplog.text


def test_preserved_holds_even_through_an_error():
    before = untouched()

    @rng.preserved()
    def fail():
        rng.seed_everything(1)
        draws()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert draws() == before


@pytest.mark.parametrize("make", [np.random.PCG64, np.random.Philox, np.random.SFC64, np.random.MT19937])
def test_numpy_states_of_every_kind_come_back(make):
    generator = np.random.Generator(make(5))
    generator.random(3)
    state = rng.freeze_numpy(generator.bit_generator.state)
    expected = generator.random(5).tolist()
    generator.bit_generator.state = rng.thaw_numpy(state, generator.bit_generator.state)
    assert generator.random(5).tolist() == expected


def test_derived_seeds_never_change():
    assert rng.derive_seed(0) == 9549033805879814570
    assert rng.derive_seed(42, "train", 3, 17) == 8325823992121856488


@given(st.integers(), PARTS)
def test_derived_seeds_are_64_bits_and_repeatable(seed, parts):
    value = rng.derive_seed(seed, *parts)
    assert 0 <= value < 2**64
    assert value == rng.derive_seed(seed, *parts)


@given(st.lists(st.tuples(st.integers(), PARTS.map(tuple)), min_size=2, max_size=20, unique=True))
def test_different_purposes_get_different_seeds(purposes):
    seeds = {rng.derive_seed(seed, *parts) for seed, parts in purposes}
    assert len(seeds) == len(purposes)


def test_parts_are_told_apart_by_type_and_border():
    assert len({rng.derive_seed(1, "1"), rng.derive_seed(1, 1), rng.derive_seed(11), rng.derive_seed(1, "", "1")}) == 4
    assert rng.derive_seed(0, "ab", "c") != rng.derive_seed(0, "a", "bc")
