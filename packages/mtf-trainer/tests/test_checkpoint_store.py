"""The store: what is published, what is kept, what is found again, and what happens when writing fails."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import json
import logging
import os
import resource
import subprocess
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_trainer.checkpoint import CheckpointStore, DamagedCheckpointError, Kind, Manifest, Snapshot, read_checkpoint
from mtf_trainer.checkpoint.retention import superseded
from mtf_trainer.errors import CheckpointError, CheckpointTimeoutError, PreemptionTimeoutError
from mtf_utils.sections import CheckpointConfig

KEEP_ALL = CheckpointConfig(keep_last=1000)


def snapshot(step, metric=None, size=10):
    sections = {"model": {"weight": torch.full((size,), float(step))}, "training": {"step": step}}
    return Snapshot(resume={"step": step}, sections=sections, epoch=0, global_step=step, metric=metric)


@pytest.fixture
def store(tmp_path):
    with CheckpointStore(tmp_path / "run" / "checkpoints", KEEP_ALL, run_id="run") as opened:
        yield opened


def names(store):
    return [path.name for path in store.paths()]


def steps(store):
    return [int(name.rsplit("-", 1)[1]) for name in names(store)]


def visible(store):
    """Every entry of the directory but the lock."""
    return sorted(entry.name for entry in store.paths()[0].parent.iterdir() if entry.name != ".lock")


def test_an_empty_directory_has_no_newest(store):
    assert store.newest() is None
    assert store.paths() == []
    assert store.wait() is None


def test_names_order_and_latest(store):
    first = store.save(snapshot(20), kind=Kind.INITIAL)
    second = store.save(snapshot(20), kind=Kind.PERIODIC)
    third = store.save(snapshot(3), kind=Kind.MANUAL)
    assert names(store) == ["ckpt-000001-step-00000020", "ckpt-000002-step-00000020", "ckpt-000003-step-00000003"]
    assert store.paths() == [first, second, third]
    assert (first.parent / "latest").read_text() == "ckpt-000003-step-00000003\n"
    newest = store.newest()
    assert (newest.path, newest.kind, newest.global_step) == (third, Kind.MANUAL, 3)
    assert store.load(first).kind is Kind.INITIAL
    assert visible(store) == [*names(store), "latest"]


def test_order_is_by_number_even_when_numbers_outgrow_their_width(tmp_path):
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run") as store:
        (tmp_path / "ckpt-999999-step-00000001").mkdir()
        store.save(snapshot(123456789), kind=Kind.PERIODIC)
        assert names(store) == ["ckpt-999999-step-00000001", "ckpt-1000000-step-123456789"]
        assert store.newest().global_step == 123456789


def test_numbers_are_never_used_twice(tmp_path):
    config = CheckpointConfig(keep_last=1, save_top_k=0)
    for step in range(3):
        with CheckpointStore(tmp_path, config, run_id="run") as store:
            store.save(snapshot(step), kind=Kind.FINAL)
    (tmp_path / "ckpt-000003-step-00000002").rename(tmp_path / "ckpt-000003-step-00000002.damaged")
    with CheckpointStore(tmp_path, config, run_id="run") as store:
        assert store.save(snapshot(2), kind=Kind.FINAL).name == "ckpt-000004-step-00000002"


def test_the_newest_the_best_and_the_pinned_are_kept(tmp_path):
    config = CheckpointConfig(keep_last=2, save_top_k=2, mode="max")
    with CheckpointStore(tmp_path, config, run_id="run") as store:
        for step, metric in enumerate([0.1, 0.9, None, float("nan"), 0.9, 0.5, None, None]):
            store.save(snapshot(step, metric), kind=Kind.PERIODIC, pinned=step == 2)
        assert steps(store) == [1, 2, 4, 6, 7]
        assert visible(store) == [*names(store), "latest"]
    with CheckpointStore(tmp_path, config, run_id="run") as store:
        store.save(snapshot(8, 1.0), kind=Kind.PERIODIC)
        assert steps(store) == [1, 2, 7, 8]


def test_what_another_run_wrote_or_nobody_knows_is_left_alone(tmp_path):
    config = CheckpointConfig(keep_last=1, save_top_k=0)
    with CheckpointStore(tmp_path, config, run_id="other") as store:
        store.save(snapshot(1), kind=Kind.FINAL)
    (tmp_path / "ckpt-000000-step-00000000").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / ".writing-of-somebody").mkdir()
    with CheckpointStore(tmp_path, config, run_id="run") as store:
        store.save(snapshot(2), kind=Kind.PERIODIC)
        store.save(snapshot(3), kind=Kind.PERIODIC)
        assert steps(store) == [0, 1, 3]
    assert (tmp_path / "notes").exists()
    assert (tmp_path / ".writing-of-somebody").exists()


def manifest(sequence, metric, pinned):
    return Manifest(
        kind=Kind.PERIODIC,
        sequence=sequence,
        global_step=0,
        epoch=0,
        metric=metric,
        run_id="run",
        pinned=pinned,
        created_at="",
        sections=(),
        files={},
    )


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.none() | st.floats(), st.booleans()), max_size=8),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(["min", "max"]),
)
def test_retention_keeps_what_it_promises(entries, keep_last, save_top_k, mode):
    manifests = {index: manifest(index, *entry) for index, entry in enumerate(entries)}
    dropped = superseded(manifests, keep_last=keep_last, save_top_k=save_top_k, mode=mode)
    kept = [index for index in manifests if index not in dropped]
    assert kept[-keep_last:] == list(manifests)[-keep_last:]
    assert not any(manifests[index].pinned for index in dropped)
    sign = 1 if mode == "min" else -1
    for index in dropped:
        value = manifests[index].metric
        if value is not None and value == value:
            at_least_as_good = [
                other for other in kept if (m := manifests[other].metric) is not None and sign * m <= sign * value
            ]
            assert len(at_least_as_good) >= save_top_k
    assert dropped == sorted(dropped)


def spoil(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def test_damaged_ones_are_set_aside_with_a_warning_and_the_newest_valid_one_is_used(store, caplog):
    paths = [store.save(snapshot(step), kind=Kind.PERIODIC) for step in range(4)]
    spoil(paths[3])
    (paths[2] / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        newest = store.newest()
    assert newest.path == paths[1]
    text = caplog.text
    assert "ckpt-000004-step-00000003/model.safetensors: the bytes of the tensor 'weight'" in text
    assert "ckpt-000003-step-00000002/manifest.json: this file is missing" in text
    assert "using ckpt-000002-step-00000001" in text
    assert visible(store) == [
        *("ckpt-000001-step-00000000", "ckpt-000002-step-00000001"),
        *("ckpt-000003-step-00000002.damaged", "ckpt-000004-step-00000003.damaged", "latest"),
    ]
    assert (paths[0].parent / "latest").read_text() == "ckpt-000002-step-00000001\n"
    assert store.save(snapshot(9), kind=Kind.PERIODIC).name == "ckpt-000005-step-00000009"


def test_none_valid_is_an_error_every_time_and_never_a_fresh_start(store):
    for step in range(2):
        spoil(store.save(snapshot(step), kind=Kind.PERIODIC))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"(?s)not one checkpoint is valid.*000002.*000001") as caught:
            store.newest()
        assert not isinstance(caught.value, DamagedCheckpointError)


def test_damage_that_nobody_asked_to_load_stays(store):
    path = store.save(snapshot(1), kind=Kind.PERIODIC)
    spoil(path)
    with pytest.raises(DamagedCheckpointError, match="weight"):
        store.load(path)
    assert store.paths() == [path]


def test_a_background_save_does_not_see_later_changes(store):
    state = snapshot(1, size=100_000)
    weight, inner = state.sections["model"]["weight"], state.sections["training"]
    inner["array"] = torch.zeros(3).numpy()
    for step in (1, 2, 3):
        weight.fill_(step)
        inner |= {"step": step}
        inner["array"][:] = step
        state.resume["step"] = step
        store.save_in_background(state, kind=Kind.PERIODIC)
        weight.fill_(-1)
        inner["array"][:] = -1
        inner["step"] = state.resume["step"] = -1
        checkpoint = read_checkpoint(store.wait())
        assert checkpoint.resume == {"step": step}
        assert checkpoint.sections["training"]["step"] == step
        assert checkpoint.sections["training"]["array"].tolist() == [step] * 3
        assert (checkpoint.sections["model"]["weight"] == step).all()


def test_a_state_whose_shapes_change_is_copied_right(store):
    for size in (10, 1000, 3):
        store.save_in_background(snapshot(size, size=size), kind=Kind.PERIODIC)
    assert steps(store)[:2] == [10, 1000]
    assert store.newest().sections["model"]["weight"].tolist() == [3.0] * 3


def test_background_saves_follow_each_other(store):
    for step in range(10):
        store.save_in_background(snapshot(step), kind=Kind.PERIODIC)
    assert store.save(snapshot(10), kind=Kind.FINAL).name == "ckpt-000011-step-00000010"
    assert steps(store) == list(range(11))
    assert store.wait() is None


@contextlib.contextmanager
def file_size_limit(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_the_rest_intact(store):
    first = store.save(snapshot(1), kind=Kind.PERIODIC)
    with file_size_limit(100_000), pytest.raises(CheckpointError, match=r"model\.safetensors: File too large; raise"):
        store.save(snapshot(2, size=100_000), kind=Kind.PERIODIC)
    assert visible(store) == [first.name, "latest"]
    assert store.newest().path == first


def join_writers():
    for thread in threading.enumerate():
        if thread.name == "checkpoint-writer":
            thread.join()


@pytest.mark.parametrize("call", ["check", "wait", "newest", "save", "save_in_background", "load", "close"])
def test_an_error_of_the_writer_surfaces_in_the_next_call(store, call):
    first = store.save(snapshot(1), kind=Kind.PERIODIC)
    with file_size_limit(100_000):
        store.save_in_background(snapshot(2, size=100_000), kind=Kind.PERIODIC)
        join_writers()
    arguments = {"save": [snapshot(3)], "save_in_background": [snapshot(3)], "load": [first]}.get(call, [])
    options = {"kind": Kind.MANUAL} if "save" in call else {}
    with pytest.raises(CheckpointError, match="File too large"):
        getattr(store, call)(*arguments, **options)
    assert visible(store) == [first.name, "latest"]
    if call != "close":
        assert store.newest().path == first


def test_an_emergency_save_goes_on_after_a_failed_one(store, caplog):
    with file_size_limit(100_000):
        store.save_in_background(snapshot(2, size=100_000), kind=Kind.PERIODIC)
        path = store.save(snapshot(3), kind=Kind.EMERGENCY, deadline_s=600)
    assert read_checkpoint(path).global_step == 3
    assert "File too large" in caplog.text


def save_and_wait(store, save, state):
    save(state, kind=Kind.PERIODIC)
    store.wait()


def tiny_file_system(path):
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_is_an_error_and_leaves_the_rest_intact(tmp_path):
    disk = tmp_path / "disk"
    if not tiny_file_system(disk):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with CheckpointStore(disk / "checkpoints", KEEP_ALL, run_id="run") as store:
            first = store.save(snapshot(1), kind=Kind.PERIODIC)
            for save in (store.save, store.save_in_background):
                with pytest.raises(CheckpointError, match=r"ckpt-000002.*No space left on device; free some space"):
                    save_and_wait(store, save, snapshot(2, size=100_000))
                assert visible(store) == [first.name, "latest"]
            assert store.newest().path == first
            assert store.save(snapshot(3), kind=Kind.PERIODIC).name == "ckpt-000002-step-00000003"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot create .*file/checkpoints: Not a directory"):
        CheckpointStore(tmp_path / "file" / "checkpoints", KEEP_ALL, run_id="run")


def test_a_directory_that_vanishes_is_an_error(tmp_path):
    directory = tmp_path / "checkpoints"
    with CheckpointStore(directory, KEEP_ALL, run_id="run") as store:
        (directory / ".lock").unlink()
        directory.rmdir()
        with pytest.raises(CheckpointError, match=r"cannot list .*checkpoints: No such file"):
            store.save(snapshot(1), kind=Kind.PERIODIC)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_an_error(store):
    first = store.save(snapshot(1), kind=Kind.PERIODIC)
    first.parent.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match=r"Permission denied; check who owns"):
            store.save(snapshot(2), kind=Kind.PERIODIC)
    finally:
        first.parent.chmod(0o700)
    assert store.newest().path == first


def test_a_state_that_cannot_be_stored_leaves_nothing_behind(store):
    first = store.save(snapshot(1), kind=Kind.PERIODIC)
    broken = snapshot(2)
    broken.sections["training"]["callback"] = object()
    for save in (store.save, store.save_in_background):
        with pytest.raises(CheckpointError, match=r"training\['callback'\] is a object"):
            save(broken, kind=Kind.PERIODIC)
    assert visible(store) == [first.name, "latest"]


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.EMERGENCY, PreemptionTimeoutError), (Kind.PERIODIC, CheckpointTimeoutError)]
)
def test_a_save_that_is_late_at_any_point_is_given_up_or_published(tmp_path, kind, error):
    """The clock moves a second at each look: the deadline passes at every point of a save in turn."""
    outcomes = []
    for limit in itertools.count(1):
        directory = tmp_path / str(limit)
        with CheckpointStore(directory, KEEP_ALL, run_id="run", clock=itertools.count().__next__) as store:
            first = store.save(snapshot(1), kind=Kind.PERIODIC)
            try:
                path = store.save(snapshot(2), kind=kind, deadline_s=limit)
            except error as late:
                outcomes.append(str(late))
                assert visible(store) == [first.name, "latest"]
                assert store.newest().path == first
            else:
                assert store.newest().path == path
                break
    assert len(outcomes) > 5
    assert any("while writing model.safetensors" in text for text in outcomes)
    assert any("while syncing manifest.json" in text for text in outcomes)


class Gate:
    """A clock that stops whoever looks at it in the writer's thread until it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        if threading.current_thread().name == "checkpoint-writer":
            self.reached.set()
            self.opened.wait(60)
        return 0.0


def test_waiting_has_a_limit_and_the_save_goes_on(tmp_path):
    gate = Gate()
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run", clock=gate) as store:
        store.save_in_background(snapshot(1), kind=Kind.PERIODIC, deadline_s=1)
        assert gate.reached.wait(60)
        with pytest.raises(CheckpointTimeoutError, match=r"still being written after 0\.001 s"):
            store.wait(0.001)
        with pytest.raises(CheckpointTimeoutError, match="waiting for the save in the background"):
            store.save(snapshot(2), kind=Kind.MANUAL, deadline_s=0.001)
        gate.opened.set()
        assert store.wait().name == "ckpt-000001-step-00000001"


def test_an_emergency_save_cancels_one_in_the_background_that_takes_too_long(tmp_path):
    gate = Gate()
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run", clock=gate) as store:
        store.save_in_background(snapshot(1), kind=Kind.PERIODIC, deadline_s=1)
        assert gate.reached.wait(60)
        with pytest.raises(PreemptionTimeoutError, match="waiting for the save of step 1"):
            store.save(snapshot(2), kind=Kind.EMERGENCY, deadline_s=0.002)
        gate.opened.set()
        join_writers()
        assert store.paths() == []  # what was given up is never published
        path = store.save(snapshot(2), kind=Kind.EMERGENCY, deadline_s=60)
        assert visible(store) == [path.name, "latest"]


def test_a_second_store_of_the_same_process_is_refused(store, tmp_path):
    directory = store.save(snapshot(1), kind=Kind.PERIODIC).parent
    for alias in (directory, directory / ".." / "checkpoints"):
        with pytest.raises(
            CheckpointError, match=rf"in use by another checkpoint store of this process.*{os.getpid()}"
        ):
            CheckpointStore(alias, KEEP_ALL, run_id="run")
    store.close()
    store.close()
    with CheckpointStore(directory, KEEP_ALL, run_id="run") as second:
        assert steps(second) == [1]
    with pytest.raises(CheckpointError, match="this store is closed"):
        store.save(snapshot(2), kind=Kind.PERIODIC)


def test_a_store_that_nobody_holds_any_more_lets_go(tmp_path):
    CheckpointStore(tmp_path, KEEP_ALL, run_id="run")
    gc.collect()
    CheckpointStore(tmp_path, KEEP_ALL, run_id="run").close()


def test_a_file_system_without_locks_is_named_and_work_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with CheckpointStore(tmp_path, KEEP_ALL, run_id="run") as store:
        store.save(snapshot(1), kind=Kind.PERIODIC)
    assert "has no locks (No locks available); make sure that only one run" in caplog.text


def test_the_lock_file_says_who_holds_it(store):
    holder = json.loads((store.save(snapshot(1), kind=Kind.PERIODIC).parent / ".lock").read_text())
    assert (holder["pid"], holder["run_id"]) == (os.getpid(), "run")
