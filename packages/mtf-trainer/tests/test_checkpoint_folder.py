"""One checkpoint on the disk: others can read it, and what is not as it was written is refused."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
import xxhash

from mtf_trainer.checkpoint import DamagedCheckpointError, Kind, Snapshot, read_checkpoint, write_checkpoint
from mtf_trainer.checkpoint.manifest import MANIFEST, read_manifest
from mtf_trainer.errors import CheckpointError


def snapshot(step=7):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(5, 3, generator=generator)
    bias = {"layer.bias": torch.zeros(3, dtype=torch.bfloat16), f"bias.{step}": torch.ones(2)}
    return Snapshot(
        resume={"phase": "EPOCH_END", "step": step, "losses": [0.5, float("nan"), -0.0]},
        sections={
            "model": {"layer.weight": weight, "head.weight": weight} | bias,
            "optimizer": {
                "lr": 0.1 * step,
                "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5, 3, generator=generator)}},
            },
            "training": {"seed": 2**80 + step, "history": [(1, 2)]},
        },
        epoch=1,
        global_step=step,
        metric=0.25,
        fingerprint={"parameters": {"layer.weight": [5, 3]}, "$odd": float("inf")},
    )


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "ckpt-000001-step-00000007"
    path.mkdir()
    write_checkpoint(path, snapshot(), kind=Kind.MANUAL, run_id="run", sequence=1)
    return path


def reseal(folder, change):
    """Change the manifest as someone would who knows the format: its own hash is right again."""
    path = folder / MANIFEST
    content = json.loads(path.read_bytes())
    change(content)
    content["hash"] = "0" * 32
    text = json.dumps(content, indent=2) + "\n"
    head, _, tail = text.rpartition("0" * 32)
    path.write_text(head + xxhash.xxh3_128_hexdigest(text.encode()) + tail)


def replace_file(folder, name, data):
    """Put another content into a file, and tell the manifest."""
    (folder / name).write_bytes(data)

    def change(content):
        content["files"][name] |= {"size": len(data), "xxh3": xxhash.xxh3_128_hexdigest(data)}

    reseal(folder, change)


def test_what_is_read_is_what_was_written(folder):
    checkpoint, expected = read_checkpoint(folder), snapshot()
    assert (checkpoint.kind, checkpoint.epoch, checkpoint.global_step, checkpoint.metric) == (Kind.MANUAL, 1, 7, 0.25)
    assert repr(checkpoint.resume) == repr(expected.resume)
    assert checkpoint.fingerprint == expected.fingerprint
    assert list(checkpoint.sections) == ["model", "optimizer", "training"]
    assert checkpoint.sections["training"] == expected.sections["training"]
    model = checkpoint.sections["model"]
    assert all(torch.equal(model[key], value) for key, value in expected.sections["model"].items())
    assert model["layer.weight"] is model["head.weight"]
    average = checkpoint.sections["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(average, expected.sections["optimizer"]["state"][0]["exp_avg"])
    assert checkpoint.manifest.versions["torch"] == torch.__version__


def test_each_tensor_read_has_memory_of_its_own(folder):
    model = read_checkpoint(folder).sections["model"]
    assert model["layer.weight"].untyped_storage().nbytes() == 5 * 3 * 4


def test_any_safetensors_reader_reads_the_model(folder):
    loaded = safetensors.torch.load_file(folder / "model.safetensors")
    expected = snapshot().sections["model"]
    assert sorted(loaded) == ["bias.7", "layer.bias", "layer.weight"]
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.items())


def test_a_model_with_tied_weights_loads_with_the_safetensors_library(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4, bias=False)
            self.head.weight = self.embed.weight

    model, other = Tied(), Tied()
    write_checkpoint(tmp_path, Snapshot({}, {"model": model.state_dict()}, 0, 0), kind=Kind.FINAL, run_id="run")
    safetensors.torch.load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(model.embed.weight, other.head.weight)


def test_every_dtype_is_known_to_the_safetensors_library(tmp_path):
    dtypes = (torch.bool, torch.uint16, torch.int64, torch.bfloat16, torch.float64, torch.float8_e5m2, torch.complex128)
    model = {str(dtype): torch.ones(3, dtype=torch.float32).to(dtype) for dtype in dtypes}
    write_checkpoint(tmp_path, Snapshot({}, {"model": model}, 0, 0), kind=Kind.FINAL, run_id="run")
    loaded = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert sorted(loaded) == sorted(model)
    assert loaded["torch.complex128"].shape == (3, 2)


def test_the_hashes_are_plain_xxh3_128(folder):
    content = json.loads((folder / MANIFEST).read_bytes())
    for name, entry in content["files"].items():
        data = (folder / name).read_bytes()
        assert (entry["size"], entry["xxh3"]) == (len(data), xxhash.xxh3_128_hexdigest(data))
    tensor = safetensors.torch.load_file(folder / "model.safetensors")["layer.weight"]
    assert content["files"]["model.safetensors"]["tensors"]["layer.weight"] == (
        xxhash.xxh3_128_hexdigest(tensor.numpy().tobytes())
    )


def test_a_copy_under_another_name_is_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "best")
    assert read_checkpoint(tmp_path / "best").global_step == 7


def test_a_folder_under_the_name_of_another_checkpoint_is_refused(folder):
    renamed = folder.rename(folder.with_name("ckpt-000002-step-00000009"))
    with pytest.raises(DamagedCheckpointError, match=r"holds the checkpoint ckpt-000001-step-00000007"):
        read_checkpoint(renamed)


@pytest.mark.parametrize("where", ["resume", "fingerprint"])
def test_tensors_are_refused_where_plain_data_belongs(tmp_path, where):
    broken = snapshot()
    getattr(broken, where)["x"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=f"{where} must be plain data, but 'x'"):
        write_checkpoint(tmp_path, broken, kind=Kind.MANUAL, run_id="run")


@pytest.mark.parametrize("name", ["manifest", "resume", "../model", "Model", ""])
def test_names_that_sections_cannot_have(tmp_path, name):
    with pytest.raises(CheckpointError, match="cannot name a section"):
        write_checkpoint(tmp_path, Snapshot({}, {name: {}}, 0, 0), kind=Kind.MANUAL, run_id="run")


def test_numbers_of_numpy_and_torch_serve_as_step_epoch_and_metric(tmp_path):
    state = Snapshot({}, {}, epoch=np.int64(2), global_step=torch.tensor(5), metric=np.float32(0.5))
    write_checkpoint(tmp_path, state, kind=Kind.MANUAL, run_id="run")
    checkpoint = read_checkpoint(tmp_path)
    assert (checkpoint.epoch, checkpoint.global_step, checkpoint.metric) == (2, 5, 0.5)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="epoch is -1"):
        write_checkpoint(tmp_path, Snapshot({}, {}, -1, 0), kind=Kind.MANUAL, run_id="run")


def damage(folder, generator, others):
    """One random injury; returns what was done."""
    victim = generator.choice(sorted(folder.iterdir()))
    data = bytearray(victim.read_bytes())
    injury = generator.choice(["flip", "flip", "flip", "truncate", "extend", "delete", "swap", "zero", "folder"])
    if injury == "flip":
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        victim.write_bytes(data)
    elif injury == "truncate":
        victim.write_bytes(data[: generator.randrange(len(data))])
    elif injury == "extend":
        victim.write_bytes(data + bytes([generator.randrange(256)]))
    elif injury == "delete":
        victim.unlink()
    elif injury == "swap":
        shutil.copyfile(others / victim.name, victim)
    elif injury == "zero":
        start = generator.randrange(len(data))
        end = min(len(data), start + 64)
        victim.write_bytes(data[:start] + bytes(byte ^ 0xFF for byte in data[start:end]) + data[end:])
    else:
        victim.unlink()
        victim.mkdir()
    return f"{injury} of {victim.name}"


def test_no_injury_is_loaded_silently(folder, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    write_checkpoint(others, snapshot(8), kind=Kind.MANUAL, run_id="run", sequence=2)
    for seed in range(400):
        copy = tmp_path / str(seed)
        shutil.copytree(folder, copy)
        injury = damage(copy, random.Random(seed), others)
        if injury == "swap of manifest.json":
            expected = "bytes where|not those that were written"
        else:
            expected = injury.split()[-1].replace(".", r"\.")
        with pytest.raises(DamagedCheckpointError, match=expected):
            read_checkpoint(copy)
        shutil.rmtree(copy)


def test_every_bit_of_the_manifest_is_guarded(folder):
    path = folder / MANIFEST
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(DamagedCheckpointError, match="manifest"):
            read_manifest(folder)


def test_damage_to_a_tensor_names_the_tensor(folder):
    path = folder / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DamagedCheckpointError, match=r"optimizer\.safetensors: the bytes of the tensor 'state\.0\.step'"
    ):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "sub/file", "..", ".hidden", "", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    reseal(folder, lambda content: content["files"].update({name: {"size": 1, "xxh3": "0" * 32}}))
    with pytest.raises(DamagedCheckpointError, match="cannot be the name of a file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("kind"),
        lambda content: content.update(kind="other"),
        lambda content: content.update(sequence=-1),
        lambda content: content.update(sequence=True),
        lambda content: content.update(metric="best"),
        lambda content: content.update(format="1"),
        lambda content: content.update(sections=["../x"]),
        lambda content: content.update(sections=["model", "optimizer", "training", "more"]),
        lambda content: content.update(sections="model"),
        lambda content: content["files"].pop("resume.json"),
        lambda content: content["files"].pop("model.safetensors"),
        lambda content: content["files"].update({"model.pt": {"size": 1, "xxh3": "0" * 32}}),
        lambda content: content["files"]["resume.json"].update(size=2**60),
        lambda content: content["files"]["resume.json"].update(size=-1),
        lambda content: content["files"]["resume.json"].update(xxh3=5),
        lambda content: content.update(files=[]),
        lambda content: content.update(fingerprint={"$tensor": "x"}),
    ],
)
def test_manifests_that_make_no_sense_are_refused(folder, change):
    reseal(folder, change)
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(folder)


def test_the_format_of_a_later_release_is_not_called_damage(folder):
    reseal(folder, lambda content: content.update(format=2))
    with pytest.raises(CheckpointError, match=r"format 2; this release reads up to 1: update mtf-trainer") as caught:
        read_checkpoint(folder)
    assert not isinstance(caught.value, DamagedCheckpointError)


def tensor_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        tensor_file(b"[]"),
        tensor_file(b"{"),
        tensor_file({"x": 1}),
        tensor_file({"x": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
        tensor_file({"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        tensor_file({"x": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
        tensor_file({"x": {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}}),
        tensor_file({"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"1234"),
        tensor_file({"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"1234"),
        tensor_file({"x": {"dtype": "P64", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        tensor_file({"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        tensor_file({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        tensor_file({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        tensor_file({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345678"),
        tensor_file({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "xy"}, b"1234"),
    ],
    ids=range(19),
)
def test_tensor_files_that_lie_about_themselves_are_refused(folder, data):
    replace_file(folder, "model.safetensors", data)
    with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors"):
        read_checkpoint(folder)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "resume.json"])
def test_a_pickle_is_never_executed(folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.pt").write_bytes(pickle.dumps(Trap()))
    assert read_checkpoint(folder).global_step == 7
    replace_file(folder, name, pickle.dumps(Trap()))
    with pytest.raises(DamagedCheckpointError, match=name):
        read_checkpoint(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["manifest.json", "resume.json", "model.safetensors"])
def test_symbolic_links_inside_a_checkpoint_are_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCheckpointError, match=f"{name}: a symbolic link"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["manifest.json", "resume.json"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DamagedCheckpointError, match=f"{name}: not a regular file"):
        read_checkpoint(folder)
