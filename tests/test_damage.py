"""A thousand injuries to the checkpoints of a folder: none is loaded, and the newest valid one is used instead."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

import pytest
import torch

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_utils.sections import CheckpointConfig

INJURIES = 1000
CONFIG = CheckpointConfig(keep_last=100)


def snapshot(step: int) -> Snapshot:
    draw = torch.Generator().manual_seed(step)
    model = {f"layer.{index}": torch.randn(40, generator=draw) for index in range(3)}
    optimizer = {"state": {0: {"step": torch.tensor(float(step)), "m": torch.randn(40, generator=draw)}}}
    return Snapshot({"step": step}, {"model": model, "optimizer": optimizer}, 0, step, metric=0.25)


def injure(folder: Path, others: Path, draw: random.Random) -> tuple[str, str]:
    """Do one harm to a checkpoint; returns the file and what was done."""
    victim = draw.choice(sorted(folder.iterdir()))
    data = bytearray(victim.read_bytes())
    kind = draw.choice(["flip", "flip", "truncate", "extend", "delete", "swap", "other file", "garbage", "no file"])
    if kind == "flip":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "truncate":
        del data[draw.randrange(len(data)) :]
    elif kind == "extend":
        data += bytes(draw.randrange(1, 9))
    elif kind == "swap":
        data = bytearray((others / victim.name).read_bytes())
    elif kind == "other file":
        data = bytearray(draw.choice([file for file in sorted(folder.iterdir()) if file != victim]).read_bytes())
    if kind in ("swap", "other file") and data == victim.read_bytes():  # some files are the same in all of them
        kind = "flip"
        data[-1] ^= 1
    if kind == "garbage":
        start = draw.randrange(len(data))
        data[start : start + 64] = bytes(byte ^ 0xA5 for byte in data[start : start + 64])
    if kind in ("delete", "no file"):
        victim.unlink()
        if kind == "no file":
            victim.mkdir()
    else:
        victim.write_bytes(data)
    return victim.name, kind


def test_no_injury_is_loaded_and_the_newest_valid_checkpoint_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original = tmp_path / "original"
    with CheckpointStore(original, CONFIG, run_id="run") as store:
        for step in range(4):
            store.save(snapshot(step), kind=Kind.PERIODIC)
    draw, done, seen = random.Random(7), 0, set()
    while done < INJURIES:
        folder = tmp_path / "injured"
        shutil.copytree(original, folder)
        paths = sorted(folder.glob("ckpt-*"))
        count = draw.randrange(1, 4)
        injuries = [injure(path, paths[0], draw) for path in paths[-count:]]
        caplog.clear()
        with caplog.at_level(logging.WARNING), CheckpointStore(folder, CONFIG, run_id="run") as store:
            checkpoint = store.newest()
            left = store.paths()
        expected = snapshot(3 - count)
        assert checkpoint is not None
        assert checkpoint.global_step == expected.global_step, injuries
        for name, value in expected.sections["model"].items():
            assert torch.equal(checkpoint.sections["model"][name], value), injuries
        assert left == paths[:-count]
        for (name, kind), path in zip(injuries, paths[-count:], strict=True):
            # A whole manifest of another checkpoint is found out by the files, or by the folder's name.
            named = path.name if (name, kind) == ("manifest.json", "swap") else f"{path.name}/{name}"
            assert named in caplog.text, (name, kind, caplog.text)
        seen.update(injuries)
        done += count
        shutil.rmtree(folder)
    assert len(seen) > 30
