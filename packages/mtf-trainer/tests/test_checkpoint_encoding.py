"""Nested state goes through a JSON tree and tensors, and comes back bitwise."""

from __future__ import annotations

import collections
import enum
import json
import random
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mtf_trainer.checkpoint import DamagedCheckpointError, decode, encode
from mtf_trainer.checkpoint.strictjson import dumps, loads
from mtf_trainer.errors import CheckpointError


def through_json(tree):
    encoded, tensors = encode(tree)
    return decode(loads(dumps(encoded)), tensors)


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(left, right):
    """Equality of type, structure and every bit; a dict's order counts too."""
    if isinstance(left, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        if left.dtype.is_complex:
            left, right = torch.view_as_real(left.detach().resolve_conj()), torch.view_as_real(right)
        return torch.equal(raw(left), raw(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True)
        return len(left) == len(right) and all(same(k, m) and same(v, w) for (k, v), (m, w) in pairs)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


floats = st.floats(allow_nan=True, allow_subnormal=True) | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]
)
texts = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["$tensor", "$dict", "$int", "", "\ud800", "\ud83d\ude00"]
)
scalars = st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | floats | texts
scalars |= st.complex_numbers() | st.binary(max_size=8)
keys = st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False) | st.tuples(st.integers(), texts)
arrays = st_numpy.arrays(
    st.sampled_from(["<f4", ">f8", "<i8", "|b1", "<c16", "<U3", "<M8[ns]", "|S2", "<u2", "<f2"]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


@st.composite
def tensors(draw):
    dtype = draw(
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8])
    )
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.tensor(draw(st.integers(0, 2**30)), dtype=torch.int64)
    tensor = (torch.arange(int(np.prod(shape)), dtype=torch.int64) * 37 + values).reshape(shape).to(dtype)
    return tensor.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor


states = st.recursive(
    scalars | tensors() | arrays | st.sampled_from([torch.float16, torch.Size([2, 0]), torch.device("cuda:1")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3)
        | st.sets(st.integers() | texts, max_size=3)
        | st.frozensets(st.integers() | st.binary(max_size=3), max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(states)
def test_any_state_comes_back_bitwise(state):
    assert same(state, through_json(state))


@settings(max_examples=100, deadline=None)
@given(states)
def test_the_tree_is_strict_json(state):
    def refuse(name):
        raise AssertionError(name)

    encoded, _ = encode(state)
    assert json.loads(dumps(encoded), parse_constant=refuse) == encoded


DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64),
    *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3)], ids=str)
def test_every_bit_pattern_of_every_dtype(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    width = torch.empty((), dtype=dtype).element_size()
    count = int(np.prod(shape))
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (count * width,), dtype=torch.uint8, generator=generator)
    if dtype.is_complex:
        half = torch.float32 if dtype is torch.complex64 else torch.float64
        tensor = torch.view_as_complex(bits.view(half).reshape(*shape, 2))
    else:
        tensor = bits.view(dtype).reshape(shape)
    assert same(tensor, through_json({"x": tensor})["x"])


def test_layouts_that_are_dense_keep_their_strides():
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert through_json(image).stride() == image.stride()
    assert same(image, through_json(image))


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(12.0)[::2], torch.arange(3.0).expand(4, 3), torch.randn(3, 4, dtype=torch.complex64).conj()],
    ids=["sliced", "expanded", "conjugated"],
)
def test_other_layouts_keep_their_values(tensor):
    result = through_json([tensor])[0]
    assert torch.equal(result, tensor)


def test_numpy_arrays_of_any_layout():
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    frozen = np.arange(3)
    frozen.flags.writeable = False
    state = {
        "reversed": base[::-1, ::2],
        "fortran": np.asfortranarray(base),
        "frozen": frozen,
        "scalar": np.float32(0.1),
    }
    assert same(state, through_json(state))


def test_tied_tensors_are_stored_once_and_come_back_tied():
    weight = torch.nn.Parameter(torch.randn(3, 2))
    state = {"embed": weight, "head": weight, "same-memory": weight.detach().view(3, 2), "other": weight.detach().t()}
    encoded, stored = encode(state)
    assert sorted(stored) == ["embed", "other"]
    result = decode(encoded, {name: tensor.clone() for name, tensor in stored.items()})
    assert result["embed"] is result["head"] is result["same-memory"]
    assert result["other"] is not result["embed"]
    assert type(result["embed"]) is torch.Tensor


def test_equal_tensors_that_are_not_tied_stay_apart():
    state = {"a": torch.zeros(3), "b": torch.zeros(3), "c": torch.zeros(0), "d": torch.zeros(0)}
    result = through_json(state)
    result["a"][0] = 1
    assert result["b"][0] == 0
    assert result["c"] is not result["d"]


def test_a_tensor_that_dies_while_encoding_does_not_lend_its_address():
    class Fresh(torch.nn.Module):
        def state_dict(self):
            return [torch.full((1000,), float(index)) for index in range(50)]

    result = through_json(Fresh().state_dict())
    assert [tensor[0].item() for tensor in result] == list(range(50))


def test_tensors_of_a_flat_state_dict_are_named_by_their_keys():
    state = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "list": [torch.zeros(2)], "__metadata__": torch.zeros(3)}
    _, stored = encode(state)
    assert torch.equal(stored["a.b"], torch.ones(1))
    assert sorted(stored) == ["__metadata__#2", "a.b", "a.b#2", "list.0"]
    assert same(state, through_json(state))


def test_real_training_state_is_unchanged():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    rng = {"python": random.getstate(), "numpy": np.random.default_rng(3).bit_generator.state}
    state = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": rng | {"old": np.random.RandomState(1).get_state(), "torch": torch.get_rng_state()},
        "grads": {name: parameter.grad for name, parameter in model.named_parameters()},
    }
    assert same(state, through_json(state))


def test_ordered_dicts_come_back_as_dicts_in_order():
    state = collections.OrderedDict([("b", 1), ("a", 2)])
    assert through_json(state) == {"b": 1, "a": 2}
    assert list(through_json(state)) == ["b", "a"]


def test_plain_state_stays_plain_json():
    state = {"epoch": 3, "name": "Zoë", "values": [1.5, -0.0, None, True], "nested": {"a": {}}}
    encoded, stored = encode(state)
    assert encoded == state
    assert stored == {}


def test_a_hundred_levels_are_possible():
    state = {1: (0,)}
    for _ in range(95):
        state = {1: state}
    assert through_json(state) == state


class Color(enum.IntEnum):
    RED = 1


class Unknown:
    pass


class Subclass(torch.Tensor):
    pass


Pair = collections.namedtuple("Pair", "x y")
itself = []
itself.append(itself)


@pytest.mark.parametrize(
    ("value", "type_name", "remedy"),
    [
        (Unknown(), "Unknown", "plain|rebuild"),
        (torch.nn.Linear(1, 1), "Linear", r"state_dict\(\)"),
        (Color.RED, "Color", r"int\(value\)"),
        (Pair(1, 2), "Pair", r"tuple\(value\)"),
        (collections.defaultdict(list), "defaultdict", r"dict\(value\)"),
        (np.str_("a"), r"numpy\.str_", r"str\(value\)"),
        (np.array([object()]), "dtype object", "numbers"),
        (np.ma.masked_array([1]), "MaskedArray", "numbers"),
        (np.zeros(1, dtype=[("a", "f4")]), "numpy array of dtype", "numbers"),
        (torch.zeros(2, 2).to_sparse(), "sparse", "to_dense"),
        (torch.zeros(2, device="meta"), "meta", "materialise"),
        (torch.zeros(2).as_subclass(Subclass), "Subclass", "as_subclass"),
        (torch.nn.UninitializedParameter(), "lazy", "batch"),
        (lambda: None, "function", "rebuild"),
        (itself, "levels deep", "itself"),
        ({frozenset(): 1}, "key of type frozenset", "string or a number"),
        ({Unknown}, "key of type type", "string or a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused_with_place_type_and_remedy(value, type_name, remedy):
    with pytest.raises(CheckpointError, match=rf"^callbacks\['ema'\]\[0\].*{type_name}.*{remedy}") as caught:
        encode({"ema": [value]}, where="callbacks")
    assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize(
    "tree",
    [
        {"$unknown": 1},
        {"$int": "12"},
        {"$int": 5},
        {"$float": "1.0"},
        {"$tensor": "missing"},
        {"$tensor": ["x"]},
        {"$tensor": "x", "strides": [2**62, 1]},
        {"$tensor": "x", "strides": [1]},
        {"$tensor": "x", "dtype": "load"},
        {"$tensor": "x", "dtype": "complex128"},
        {"$tensor": "x", "other": 1},
        {"$array": "x", "dtype": "|O", "shape": [4]},
        {"$array": "x", "dtype": "<f4", "shape": [2**40]},
        {"$array": "x", "dtype": "f4,f4", "shape": [2]},
        {"$scalar": "00", "dtype": "<f8"},
        {"$bytes": "not base64!"},
        {"$str": "zz"},
        {"$dict": [[[], 1]]},
        {"$dict": [[1, 1], [1, 2]]},
        {"$dict": {"a": 1}},
        {"$set": [1, 1]},
        {"$complex": [1.0]},
        {"$complex": [1.0, "x"]},
        {"$dtype": "save"},
        {"$device": "nowhere"},
        {"$size": ["a"]},
        {"a": 1, "$int": "0x1"},
    ],
    ids=str,
)
def test_trees_that_no_encoder_writes_are_refused(tree):
    with pytest.raises(DamagedCheckpointError):
        decode([tree], {"x": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    "text", [b'{"a": NaN}', b"[Infinity]", b"[1e999]", b'{"a": 1, "a": 2}', b"\xff", b"[1", b"[" * 100_000]
)
def test_loose_json_is_refused(text):
    with pytest.raises(ValueError):
        loads(text)
