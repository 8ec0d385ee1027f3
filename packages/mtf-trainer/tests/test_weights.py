"""Weights taken over from a checkpoint or a safetensors file, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mtf_trainer import CheckpointError, load_weights
from mtf_trainer.checkpoint import Kind, Snapshot, write_checkpoint


def build(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(1)
    model, folder = build(), tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder, Snapshot({}, {"model": model.state_dict()}, 0, 1), kind=Kind.MANUAL, run_id="run")
    return folder, model


def equal(left: nn.Module, right: nn.Module) -> bool:
    state = right.state_dict()
    return all(torch.equal(value, state[name]) for name, value in left.state_dict().items())


def test_weights_of_a_checkpoint(checkpoint: tuple[Path, nn.Module]) -> None:
    folder, original = checkpoint
    model = build()
    report = load_weights(model, folder)
    assert equal(model, original)
    assert report.complete
    assert report.loaded == tuple(original.state_dict())
    assert str(report) == "9 loaded"


def test_weights_of_any_safetensors_file_in_the_dtype_of_the_model(tmp_path: Path) -> None:
    original = build().double()
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    model = build()
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert equal(model, original.float())


def test_tied_weights_are_found_under_every_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder, Snapshot({}, {"model": model.state_dict()}, 0, 1), kind=Kind.MANUAL, run_id="run")
    for source in (folder, folder / "model.safetensors"):
        untied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
        load_weights(untied, source)
        assert torch.equal(untied["b"].weight, model["a"].weight)


@pytest.mark.parametrize("mapping", [{r"module\.": ""}, lambda name: name.removeprefix("module.")])
def test_names_are_mapped(checkpoint: tuple[Path, nn.Module], tmp_path: Path, mapping: object) -> None:
    original = checkpoint[1]
    save_file({f"module.{name}": value for name, value in original.state_dict().items()}, tmp_path / "w.safetensors")
    model = build()
    load_weights(model, tmp_path / "w.safetensors", mapping)
    assert equal(model, original)


def test_what_does_not_fit_is_an_error_and_changes_nothing(checkpoint: tuple[Path, nn.Module]) -> None:
    folder, _ = checkpoint
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2 missing: 3.weight, 3.bias; 2 mismatched: 0.weight \(\[4, 3\], here"):
        load_weights(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = load_weights(model, folder, strict=False)
    assert report.missing == ("3.weight", "3.bias")
    assert len(report.loaded) == 7
    assert not report.complete
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])


def test_a_part_may_be_left_out(checkpoint: tuple[Path, nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    report = load_weights(model, checkpoint[0], lambda name: name if name.startswith("0.") else None)
    assert report.complete
    assert len(report.left_out) == 7


def test_mistakes_are_named(checkpoint: tuple[Path, nn.Module], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'0\.weight' and '0\.bias' are mapped to the same name 'x'"):
        load_weights(build(), checkpoint[0], lambda name: "x")
    with pytest.raises(CheckpointError, match="not one name fits the model"):
        load_weights(build(), checkpoint[0], {"": "prefix."}, strict=False)
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        load_weights(build(), tmp_path)
    (tmp_path / "w.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="claims a header of 1152921504606846976 bytes"):
        load_weights(build(), tmp_path / "w.safetensors")


def test_damaged_weights_are_refused(checkpoint: tuple[Path, nn.Module]) -> None:
    file = checkpoint[0] / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="not those that were written"):
        load_weights(build(), checkpoint[0])


def test_a_file_of_torch_save_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    model = build()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"looks like a file of torch\.save.*safetensors\.torch\.save_file"):
        load_weights(model, tmp_path / "weights.pt")
