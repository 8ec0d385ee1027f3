"""Saves in the background: what is copied when, what is allowed meanwhile, and what happens to what was not."""

from __future__ import annotations

import logging
import time

import pytest
import torch

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot, directory, read_checkpoint
from mtf_trainer.checkpoint.bandwidth import Bandwidth
from mtf_trainer.errors import CheckpointError, CheckpointTimeoutError
from mtf_utils.sections import CheckpointConfig

KEEP_ALL = CheckpointConfig(keep_last=1000)


@pytest.fixture
def store(tmp_path):
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run") as opened:
        yield opened


def make_state(value):
    """Tensors of every layout, each full of a number."""
    base = torch.full((300, 500), float(value))
    return {
        "large": base.clone(),
        "transposed": base.t().clone().t(),
        "strided": base[::2, ::3],
        "scalar": torch.tensor(float(value)),
        "empty": torch.empty(0, 3),
        "complex": torch.full((7,), complex(value, value)),
        "half": torch.full((33,), float(value), dtype=torch.bfloat16),
        "flags": torch.full((5,), bool(value % 2)),
    }


def snapshot(state, step, **options):
    return Snapshot({}, {"model": state, "training": {"buffer": torch.tensor([step])}}, 0, step, **options)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_is_steady_is_copied_before_the_join_and_free_afterwards(store):
    state = make_state(0)
    for step in (1, 2, 3):
        for tensor in state.values():
            tensor.fill_(step)
        expected = {name: tensor.clone() for name, tensor in state.items()}
        whole = snapshot(state, step, steady=list(state.values()))
        store.save_in_background(whole, kind=Kind.PERIODIC)
        whole.sections["training"]["buffer"].fill_(-1)  # not steady: copied at once
        store.join_copies()
        for tensor in state.values():
            tensor.fill_(99)
        checkpoint = read_checkpoint(store.wait())
        assert same(checkpoint.sections["model"], expected)
        assert checkpoint.sections["training"]["buffer"].tolist() == [step]


def test_nothing_is_published_before_it_is_known_that_the_copies_are_good(store, tmp_path):
    state = make_state(1)
    store.save_in_background(snapshot(state, 1, steady=list(state.values())), kind=Kind.PERIODIC)
    until(lambda: list(tmp_path.glob(".writing-*/manifest.json")))
    assert store.paths() == []
    assert store.is_saving
    store.join_copies()
    assert store.wait().name == "ckpt-000001-step-00000001"


def test_a_tensor_that_was_written_to_too_early_spoils_that_save_only(store, caplog):
    state = make_state(1)
    first = store.save(snapshot(state, 1), kind=Kind.PERIODIC)
    store.save_in_background(snapshot(state, 2, steady=list(state.values())), kind=Kind.PERIODIC)
    state["transposed"].add_(1)
    with caplog.at_level(logging.WARNING):
        store.join_copies()
    assert "model.transposed was written to between two updates" in caplog.text
    assert "checkpoint of step 2" in caplog.text
    assert store.wait() is None
    assert store.paths() == [first]
    expected = {name: tensor.clone() for name, tensor in state.items()}
    store.save_in_background(snapshot(state, 3, steady=list(state.values())), kind=Kind.PERIODIC)
    for tensor in state.values():
        tensor.fill_(0)  # everything was copied at once
    assert same(read_checkpoint(store.wait()).sections["model"], expected)
    assert len(store.paths()) == 2


def test_without_overlap_everything_is_copied_at_once(tmp_path):
    with CheckpointStore(tmp_path, CheckpointConfig(overlap_copy=False), run_id="run") as store:
        state = make_state(1)
        expected = {name: tensor.clone() for name, tensor in state.items()}
        store.save_in_background(snapshot(state, 1, steady=list(state.values())), kind=Kind.PERIODIC)
        for tensor in state.values():
            tensor.data.zero_()
        assert same(read_checkpoint(store.wait()).sections["model"], expected)


def test_memory_may_be_reserved_and_is_used(store):
    state = make_state(1)
    store.reserve(sum(tensor.nbytes for tensor in state.values()) + 8, pinned=False)
    for step in (1, 2):
        store.save_in_background(snapshot(state, step, steady=list(state.values())), kind=Kind.PERIODIC)
        assert same(read_checkpoint(store.wait()).sections["model"], state)


def test_what_a_checkpoint_refers_to_is_durable_before_it_is_published(store):
    seen = []
    whole = snapshot({}, 1, refers_to=lambda: seen.append(store.paths()))
    store.save_in_background(whole, kind=Kind.PERIODIC)
    path = store.wait()
    store.save(snapshot({}, 2, refers_to=lambda: seen.append(store.paths())), kind=Kind.PERIODIC)
    assert seen == [[], [path]]


def test_a_reference_that_cannot_be_made_durable_is_an_error(store):
    def fail():
        raise OSError(5, "Input/output error")

    store.save_in_background(snapshot({}, 1, refers_to=fail), kind=Kind.PERIODIC)
    with pytest.raises(OSError, match="Input/output error"):
        store.wait()
    assert store.paths() == []


def test_saves_that_come_too_fast_hold_the_loop_back_and_say_so(store, caplog):
    state = make_state(1)
    store.save_in_background(snapshot(state, 1, steady=list(state.values())), kind=Kind.PERIODIC)
    with caplog.at_level(logging.DEBUG):
        store.save_in_background(snapshot(state, 2, steady=list(state.values())), kind=Kind.PERIODIC)
    store.wait()
    assert [path.name for path in store.paths()] == ["ckpt-000001-step-00000001", "ckpt-000002-step-00000002"]
    assert "until the checkpoint of step 1 was durable" in caplog.text


def test_closing_ends_what_is_under_way(tmp_path):
    state = make_state(1)
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run") as store:
        store.save_in_background(snapshot(state, 1, steady=list(state.values())), kind=Kind.PERIODIC)
    assert same(read_checkpoint(store.paths()[0]).sections["model"], state)


def test_estimates_come_from_the_slowest_of_the_latest_saves():
    bandwidth = Bandwidth()
    assert bandwidth.estimate_s(100) is None
    for seconds in (50.0, 1.0, 4.0, 2.0, 2.0, 2.0):
        bandwidth.learn(100, seconds)
    assert bandwidth.estimate_s(200) == 8.0
    bandwidth.learn(0, 1.0)
    assert bandwidth.estimate_s(0) == 0.0


def test_a_save_teaches_how_long_the_next_one_takes(store):
    assert store.next_save_s() is None
    store.save(snapshot(make_state(1), 1), kind=Kind.INITIAL)
    assert store.next_save_s() > 0


def test_errors_of_time_name_the_last_durable_checkpoint(store, tmp_path):
    with pytest.raises(CheckpointTimeoutError, match="there is no durable one yet"):
        store.save(snapshot({}, 1), kind=Kind.PERIODIC, deadline_s=0)
    path = store.save(snapshot({}, 1), kind=Kind.PERIODIC)
    with pytest.raises(CheckpointTimeoutError, match=f"last durable one is intact: {path}") as caught:
        store.save(snapshot({}, 2), kind=Kind.PERIODIC, deadline_s=0)
    assert caught.value.path == path
    assert isinstance(caught.value, CheckpointError)


def test_a_nameless_run_keeps_its_id_and_a_named_one_has_its_own(tmp_path):
    with CheckpointStore(tmp_path / "a", KEEP_ALL, run_id=None) as store:
        first = store.run_id
        store.save(snapshot({}, 1), kind=Kind.FINAL)
    with CheckpointStore(tmp_path / "a", KEEP_ALL, run_id=None) as store:
        assert store.run_id == first
        assert read_checkpoint(store.paths()[0]).manifest.run_id == first
    with CheckpointStore(tmp_path / "b", KEEP_ALL, run_id=None) as store:
        assert store.run_id != first
    with CheckpointStore(tmp_path / "a", KEEP_ALL, run_id="named") as store:
        assert store.run_id == "named"
        store.save(snapshot({}, 2), kind=Kind.FINAL)
    with CheckpointStore(tmp_path / "a", KEEP_ALL, run_id=None) as store:
        assert store.run_id not in (first, "named")


def test_what_a_nameless_run_left_before_its_first_checkpoint_is_removed(tmp_path):
    with CheckpointStore(tmp_path, KEEP_ALL, run_id=None) as store:
        first = store.run_id
    left = directory.new_temporary(tmp_path / "ckpt-000001-step-00000000", first)  # as a kill leaves it
    others = directory.new_temporary(tmp_path / "ckpt-000001-step-00000000", "another")
    with CheckpointStore(tmp_path, KEEP_ALL, run_id=None) as store:
        assert store.run_id == first
        assert not left.exists()
        assert others.exists()
        with pytest.raises(CheckpointError, match="another checkpoint store of this process"):
            CheckpointStore(tmp_path, KEEP_ALL, run_id=None)
        assert store.run_id == first
