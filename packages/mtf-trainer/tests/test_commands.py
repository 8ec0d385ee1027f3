"""`mtf checkpoint`: what its actions print, write and return."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot
from mtf_trainer.commands import CHECKPOINT
from mtf_utils.cli import DONE, USER_MISTAKE, WORK_FAILED, CommandError
from mtf_utils.sections import CheckpointConfig


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser(prog="mtf checkpoint")
    CHECKPOINT.configure(parser)
    return CHECKPOINT.run(parser.parse_args([str(argument) for argument in arguments]))


def snapshot(step: int) -> Snapshot:
    shared = torch.full((3, 2), float(step))
    model = {"weight": shared, "tied": shared, "bias": torch.zeros(4), "scale": torch.tensor(1 + 2j)}
    return Snapshot({"phase": "x", "step": step}, {"model": model, "training": {"lr": 0.1 * step}}, 0, step, metric=0.5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with CheckpointStore(tmp_path / "checkpoints", CheckpointConfig(), run_id="a-run") as store:
        store.save(snapshot(1), kind=Kind.INITIAL)
        store.save(snapshot(2), kind=Kind.PERIODIC, pinned=True)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = DONE) -> Any:
    assert call(*arguments) == status
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["verb"], envelope["version"]) == ("checkpoint", 1)
    return envelope["data"]


def spoil(run: Path) -> Path:
    file = run / "checkpoints" / "ckpt-000002-step-00000002" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return file


def test_ls(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ls", run) == DONE
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ckpt-000001-step-00000001  initial    0 epochs done")
    assert second.endswith("a-run  metric 0.5  pinned")
    rows = output(capsys, "ls", run / "checkpoints", "--json")["checkpoints"]
    assert [row["global_step"] for row in rows] == [1, 2]
    (run / "checkpoints" / rows[0]["name"] / "manifest.json").unlink()
    assert call("ls", run) == DONE
    assert "damaged" in capsys.readouterr().out.splitlines()[0]


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", run) == DONE
    assert capsys.readouterr().out.count(": valid") == 2
    file = spoil(run)
    assert call("verify", run) == WORK_FAILED
    assert f"damaged: {file}: the bytes of the tensor" in capsys.readouterr().out
    assert call("verify", "--json", file.parent) == WORK_FAILED
    assert [row["valid"] for row in json.loads(capsys.readouterr().out)["data"]["checkpoints"]] == [False]


def test_show(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", run) == DONE
    text = capsys.readouterr().out
    assert "ckpt-000002-step-00000002" in text
    assert "model.safetensors" in text
    shown = output(capsys, "show", "--json", run / "checkpoints" / "ckpt-000001-step-00000001")
    assert (shown["kind"], shown["files"]["model.safetensors"]["tensors"]) == ("initial", 3)


def test_diff(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run / "checkpoints" / "ckpt-000001-step-00000001", run
    assert call("diff", first, first) == DONE
    assert "no differences" in capsys.readouterr().out
    assert call("diff", first, second) == WORK_FAILED
    text = capsys.readouterr().out
    assert "model.weight: 6 of 6 elements of float32[3, 2] differ, by 1 at most" in text
    assert "training.lr: 0.1 and 0.2" in text
    found = output(capsys, "diff", "--json", first, second, status=WORK_FAILED)["differences"]
    assert [row["place"] for row in found] == ["resume.step", "model.weight", "model.tied", "training.lr"]
    assert found[1]["max_abs"] == 1.0


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_export(run: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        with pytest.raises(CommandError, match=r"'scale' is torch\.complex64, which safetensors does not have"):
            call("export", run, target)
        assert not target.exists()
        with CheckpointStore(run / "checkpoints", CheckpointConfig(), run_id="a-run") as store:
            last = snapshot(3)
            del last.sections["model"]["scale"]
            store.save(last, kind=Kind.FINAL)
    assert call("export", run, target) == DONE
    loaded = load_file(target) if ending == "safetensors" else torch.load(target, weights_only=True)
    assert torch.equal(loaded["weight"], loaded["tied"])
    with pytest.raises(CommandError, match="exists already"):
        call("export", run, target)


def test_export_of_the_best_and_of_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with CheckpointStore(tmp_path, CheckpointConfig(), run_id="a-run") as store:
        for step, metric in ((1, 0.75), (2, 0.25), (3, 0.5)):
            state = {"updates": step, "raw": None, "weights": {"weight": torch.full((2,), step + 0.5)}}
            sections = {
                "model": {"weight": torch.full((2,), float(step)), "count": torch.tensor(step)},
                "training": {"callbacks": [{"type": "Other", "state": {}}, {"type": "MyAverage", "state": state}]},
            }
            resume = {"best": {"metric": "val_loss", "value": 0.25}}
            store.save(Snapshot(resume, sections, 0, step, metric=metric), kind=Kind.PERIODIC)
    for flags, weight in (((), 3.0), (("--best",), 2.0), (("--best", "--averaged"), 2.5)):
        target = tmp_path / f"weights-{len(flags)}.safetensors"
        assert call("export", *flags, tmp_path, target) == DONE
        assert load_file(target)["weight"].tolist() == [weight, weight]
    assert load_file(target)["count"] == 2
    assert "2 tensors, 16 B, from ckpt-000002-step-00000002" in capsys.readouterr().out


def test_mistakes_and_damage_have_their_own_status(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such folder") as caught:
        call("show", tmp_path / "nowhere")
    assert caught.value.exit_status == USER_MISTAKE
    with pytest.raises(CommandError, match=r"\.safetensors, \.pt"):
        call("export", run, tmp_path / "weights.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="no checkpoints there"):
        call("verify", tmp_path / "empty")
    spoil(run)
    with pytest.raises(CommandError, match="the bytes of the tensor") as caught:
        call("export", run, tmp_path / "weights.safetensors")
    assert caught.value.exit_status == WORK_FAILED
