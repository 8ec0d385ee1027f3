"""A save that is cut off after any of its system calls, with and without what was not yet synced."""

from __future__ import annotations

import logging
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch

from crash_model import Disk, Op, record
from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_utils.sections import CheckpointConfig

CONFIG = CheckpointConfig(keep_last=1, save_top_k=0)
SAVE = """
# In small pieces, so that a file is a number of writes, all but the last past the page cache.
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_crash_points import CONFIG, snapshot
from mtf_trainer.checkpoint import CheckpointStore, Kind, writing
writing.PIECE = 4096
with CheckpointStore(Path({folder!r}), CONFIG, run_id="run") as store:
    open({begin!r}, "w").close()
    if {background}:
        store.save_in_background(snapshot(2), kind=Kind.PERIODIC)
        store.join_copies()
        store.wait()
    else:
        store.save(snapshot(2), kind=Kind.PERIODIC)
    open({end!r}, "w").close()
"""


def snapshot(step: int) -> Snapshot:
    model = {f"layer.{index}": torch.full((2000,), step + index / 8) for index in range(3)}
    return Snapshot({"step": step}, {"model": model, "training": {"step": step}}, 0, step, steady=list(model.values()))


@pytest.fixture(params=[False, True], ids=["foreground", "background"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path, list[Op]]:
    """The folder before and after a save, its recorded path, and the calls between."""
    if shutil.which("strace") is None:
        pytest.skip("strace records the system calls")
    folder, before = tmp_path / "checkpoints", tmp_path / "before"
    with CheckpointStore(folder, CONFIG, run_id="run") as store:
        store.save(snapshot(1), kind=Kind.INITIAL)
    shutil.copytree(folder, before)
    marks = {name: str(folder / name) for name in ("begin", "end")}
    code = SAVE.format(here=str(Path(__file__).parent), folder=str(folder), background=request.param, **marks)
    ops = record([sys.executable, "-c", code], folder, tmp_path / "strace.log")
    begin, end = (ops.index(Op("create", mark)) for mark in marks.values())
    for mark in marks.values():
        Path(mark).unlink()
    return before, folder, folder, ops[begin + 1 : end]


def content_of(ops: list[Op], folder: Path) -> dict[str, bytes]:
    """The content of every file by the name under which it was made, found where it was renamed to."""
    content = {}
    for index, op in enumerate(ops):
        if op.name != "create":
            continue
        path = op.path
        for later in ops[index:]:
            if later.name == "rename" and (path == later.path or path.startswith(f"{later.path}/")):
                path = later.target + path[len(later.path) :]
        content[op.path] = Path(path).read_bytes() if Path(path).exists() else b""
    return content


def resumed_step(folder: Path) -> int:
    """The step that a new process goes on from; what it finds must be right."""
    with CheckpointStore(folder, CONFIG, run_id="run") as store:
        checkpoint = store.newest()
    assert checkpoint is not None
    step = checkpoint.global_step
    expected = snapshot(step).sections["model"]
    assert checkpoint.resume == {"step": step}
    assert all(torch.equal(value, expected[name]) for name, value in checkpoint.sections["model"].items())
    return step


def test_every_crash_point_resumes(
    recorded: tuple[Path, Path, Path, list[Op]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    before, after, root, ops = recorded
    final, place = content_of(ops, after), tmp_path / "crashed"
    published = next(i for i, op in enumerate(ops) if op.name == "rename" and "ckpt-000002" in Path(op.target).name)
    durable = next(i for i, op in enumerate(ops) if i > published and op == Op("sync", str(root)))
    draw, cases, newer = random.Random(0), 0, 0
    for count in range(len(ops) + 1):
        disk = Disk(before, after, root)
        for op in ops[:count]:
            disk.apply(op, final)
        outcomes = [(1.0, True), (0.0, False), (1.0, False), (0.0, True), *[(draw, False)] * 6, *[(draw, True)] * 2]
        for names, data in outcomes:
            disk.write_to(place, names=names, data=data)
            step = resumed_step(place)
            assert step == 2 or count <= durable, (count, ops[count - 1], names, data)
            cases, newer = cases + 1, newer + (step == 2)
        if count < len(ops) and ops[count].name == "write":
            for torn in {0, 1, ops[count].count // 2, ops[count].count - 1}:
                disk = Disk(before, after, root)
                for op in ops[:count]:
                    disk.apply(op, final)
                disk.apply(ops[count], final, torn=torn)
                disk.write_to(place, names=1.0, data=True)
                assert resumed_step(place) in (1, 2)
                cases += 1
    print(f"{len(ops)} calls, {cases} crashes, {newer} of them with the new checkpoint: all resumed")
    assert len(ops) > 30
    assert cases > 400
    assert 0 < newer < cases


def test_a_save_that_does_not_sync_would_be_caught(recorded: tuple[Path, Path, Path, list[Op]], tmp_path: Path) -> None:
    """The model itself must be able to fail: without the syncs a published checkpoint comes back empty."""
    before, after, root, ops = recorded
    final = content_of(ops, after)
    disk = Disk(before, after, root)
    published = next(i for i, op in enumerate(ops) if op.name == "rename" and "ckpt-000002" in Path(op.target).name)
    for op in ops[: published + 1]:
        if op.name != "sync":
            disk.apply(op, final)
    disk.write_to(tmp_path / "crashed", names=1.0, data=False)
    with CheckpointStore(tmp_path / "crashed", CONFIG, run_id="run") as store:
        newest = store.newest()
    assert newest is not None
    assert newest.global_step == 1
    assert list((tmp_path / "crashed").glob("*.damaged"))
