"""Precision, compilation, recomputed activations and memory layout: what each does, and that runs stay exact."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    PerformanceConfig,
    TrainerError,
    TrainingCallback,
    TrainingPreempted,
    checkpoint_activations,
    load_weights,
)
from mtf_utils import SettingsError


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors are no work for several, and tests run beside others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Block(nn.Module):
    """Convolution with everything whose state a second forward pass could spoil."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.3)
        self.forwards = {True: 0, False: 0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards[self.training] += 1
        return x + self.dropout(torch.relu(self.norm(self.conv(x))))


class Plain(Block):
    """The same without Python's own counting, which compiled code would have to be compiled anew for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(torch.relu(self.norm(self.conv(x))))


class Net(nn.Module):
    """A small network for images."""

    def __init__(self, block: type[Block] = Block) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(block(4), block(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class Classifier(GenericTrainer):
    """Remembers what its batches and outputs were like."""

    seen: tuple[torch.dtype, bool] | None = None

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        images, labels = batch
        outputs = self.model(images)
        self.seen = outputs.dtype, images.is_contiguous(memory_format=torch.channels_last)
        return {"loss": nn.functional.cross_entropy(outputs, labels)}


class Stop(TrainingCallback):
    """Tells this process to go, once."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        if trainer.global_step == self.step and batch_idx % 2 == 0:  # in the middle of an accumulation window
            os.kill(os.getpid(), signal.SIGTERM)


def configured(folder: Path, **changes: Any) -> GenericTrainerConfig:
    settings: dict[str, Any] = {
        "epochs": 2,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.1,
        "seed": 4,
        "checkpoint": CheckpointConfig(checkpoint_dir=str(folder)),
        "logging": LoggingConfig(log_every_n_steps=1, log_level="WARNING"),
    }
    return GenericTrainerConfig(**(settings | changes))


def train(
    folder: Path, *, stop: int | None = None, wrap: Any = None, block: type[Block] = Plain, **changes: Any
) -> Classifier:
    """Train, or go on training; told to go after some step, and back when the run ended either way."""
    torch._dynamo.reset()
    trainer = Classifier(configured(folder, **changes))
    trainer.add_callback(Stop(stop))
    net = Net(block)
    model = net if wrap is None else wrap(net)
    source = torch.Generator().manual_seed(0)
    images, labels = torch.randn(22, 3, 6, 6, generator=source), torch.randint(2, (22,), generator=source)
    data = TensorDataset(images, labels)
    loader = DataLoader(data, batch_size=4, shuffle=True)  # the last batch of an epoch has two samples
    try:
        trainer.fit(model, torch.optim.AdamW(model.parameters(), lr=0.05), loader, DataLoader(data, batch_size=11))
    except TrainingPreempted:
        assert stop is not None
    else:
        assert stop is None
    return trainer


def outcome(trainer: GenericTrainer) -> list[bytes]:
    """Weights, buffers and the optimizer's state, bit for bit."""
    tensors = list(trainer.model.state_dict().values())
    for parameter in trainer.model.parameters():
        tensors += trainer.optimizer.state[parameter].values()
    return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]


def saved_names(folder: Path) -> list[str]:
    """The names in the model's part of the newest checkpoint."""
    report = load_weights(Net(), next(folder.glob("*final*"), None) or newest(folder))
    assert report.complete
    return list(report.loaded)


def newest(folder: Path) -> Path:
    return folder / (folder / "latest").read_text().strip()


performance = PerformanceConfig
SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "medium": {"float32_matmul_precision": "medium"},
    "compile": {"performance": performance(compile={"backend": "aot_eager"})},
    "compile-bf16": {"performance": performance(compile={"backend": "aot_eager"}), "precision": "bf16"},
    "activation_checkpointing": {"performance": performance(activation_checkpointing=["Plain"])},
    "channels_last": {"performance": performance(channels_last=True)},
    "all": {
        "performance": performance(
            compile={"backend": "aot_eager"}, activation_checkpointing=["blocks.*"], channels_last=True
        ),
        "precision": "bf16",
        "float32_matmul_precision": "high",
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stop_changes_nothing(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    undisturbed = train(tmp_path / "undisturbed", **SETTINGS[name])
    for step in (1, 4):  # in the first epoch and, after the smaller batch, in the second
        train(tmp_path / str(step), stop=step, **SETTINGS[name])
        with caplog.at_level(logging.INFO, "mtf_trainer.session"):
            again = train(tmp_path / str(step), **SETTINGS[name])
        assert outcome(again) == outcome(undisturbed)
        assert caplog.messages[-1 if "restored" in caplog.messages[-1] else -2].endswith(": exact"), caplog.messages
        caplog.clear()


@pytest.mark.parametrize("forward", [1, 2, 5, 8])
def test_a_stop_right_before_the_optimizer_step_changes_nothing_under_fp16(forward: int, tmp_path: Path) -> None:
    """Then the next process takes the step without having scaled a loss."""

    def told(net: Net) -> Net:
        passes = 0

        def count(*_: Any) -> None:
            nonlocal passes
            passes += net.training
            if passes == forward and net.training:
                os.kill(os.getpid(), signal.SIGTERM)

        net.register_forward_pre_hook(count)
        return net

    undisturbed = train(tmp_path / "undisturbed", precision="fp16")
    train(tmp_path / "stopped", stop=-1, wrap=told, precision="fp16")
    assert outcome(train(tmp_path / "stopped", precision="fp16")) == outcome(undisturbed)


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_activations_have_the_precision_and_weights_32_bits(
    tmp_path: Path, precision: str, expected: torch.dtype
) -> None:
    trainer = train(tmp_path, precision=precision)
    assert trainer.seen is not None
    assert trainer.seen[0] is expected
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


def test_the_scale_of_fp16_gradients_is_in_the_checkpoint(tmp_path: Path) -> None:
    trainer = Classifier(configured(tmp_path, precision="fp16", max_steps=4))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model[1].bias.register_hook(lambda gradient: gradient * (torch.inf if trainer.global_step == 2 else 1))
    loader = DataLoader(TensorDataset(torch.randn(16, 12), torch.zeros(16, dtype=torch.long)), batch_size=2)
    trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    state = trainer.load_checkpoint(newest(tmp_path))
    assert state.global_step == 4
    scales = [
        json.loads(path.read_text())["engine"]["scaler"]["scale"]
        for path in newest(tmp_path).glob("training*.json")
        if "engine" in json.loads(path.read_text())
    ]
    assert scales == [32768.0]


@pytest.mark.parametrize(("asked", "during"), [(None, "high"), ("medium", "medium"), ("highest", "highest")])
def test_matrices_are_multiplied_as_configured_while_training(
    tmp_path: Path, asked: Any, during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Look(TrainingCallback):
        def on_epoch_start(self, trainer: GenericTrainer, epoch: int) -> None:
            seen.append(torch.get_float32_matmul_precision())

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        trainer = Classifier(configured(tmp_path, float32_matmul_precision=asked, epochs=1))
        trainer.add_callback(Look())
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        loader = DataLoader(TensorDataset(torch.randn(4, 12), torch.zeros(4, dtype=torch.long)))
        trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
        assert seen == [during]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


class Counting:
    """A backend of torch.compile that only counts what it is given, and by which sizes."""

    def __init__(self) -> None:
        self.sizes: list[Any] = []

    def __call__(self, graph: Any, inputs: list[Any]) -> Any:
        self.sizes += [each.shape[0] for each in inputs if isinstance(each, torch.Tensor) and each.dim() == 4]
        return graph.forward


def test_the_call_of_the_model_is_compiled_every_shape_for_itself(tmp_path: Path) -> None:
    backend = Counting()
    trainer = train(tmp_path, performance=performance(compile={"backend": backend}))
    assert {type(size) for size in backend.sizes} == {int}
    assert {4, 2, 11} <= set(backend.sizes)  # two sizes of training batches, one of validation
    assert type(trainer.model) is Net
    assert trainer.model._compiled_call_impl is None
    assert saved_names(tmp_path) == list(Net().state_dict())


def test_a_checkpoint_goes_from_compiled_to_not_compiled_and_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiled = {"performance": performance(compile={"backend": "eager"})}
    wrapped = {"wrap": lambda net: torch.compile(net, backend="eager")}
    inner = {"wrap": lambda net: net.register_module("blocks", torch.compile(net.blocks, backend="eager")) or net}
    ways: dict[str, dict[str, Any]] = {"plain": {}, "compiled": compiled, "wrapped": wrapped, "inner": inner}
    expected = outcome(train(tmp_path / "undisturbed"))
    for first, then in [("plain", "compiled"), ("compiled", "plain"), ("wrapped", "plain"), ("inner", "wrapped")]:
        folder = tmp_path / f"{first}-{then}"
        train(folder, stop=2, **ways[first])
        assert saved_names(folder) == list(Net().state_dict())
        caplog.clear()
        assert outcome(train(folder, **ways[then])) == expected  # this backend computes what uncompiled code does
        if (first, then) != ("inner", "wrapped"):
            assert any("no longer exact: compile was" in message for message in caplog.messages)
        assert not any("but not exact" in message for message in caplog.messages)


def test_averages_of_a_compiled_model_have_its_own_names(tmp_path: Path) -> None:
    trainer = Classifier(configured(tmp_path, epochs=1))
    ema = EMA()
    trainer.add_callback(ema)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    loader = DataLoader(TensorDataset(torch.randn(4, 12), torch.zeros(4, dtype=torch.long)))
    wrapped = torch.compile(model, backend="eager")
    trainer.fit(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.1), loader)
    assert list(ema.weights) == ["1.weight", "1.bias"]


@pytest.mark.parametrize("which", ["Block", "blocks.?"])
def test_recomputing_changes_nothing_but_the_number_of_forward_passes(tmp_path: Path, which: str) -> None:
    plain = train(tmp_path / "plain", block=Block)
    recomputed = train(tmp_path / "recomputed", block=Block, performance=performance(activation_checkpointing=[which]))
    assert outcome(recomputed) == outcome(plain)
    once, twice = plain.model.blocks[0].forwards, recomputed.model.blocks[0].forwards
    assert once == {True: 12, False: 4}
    assert twice == {True: 24, False: 4}
    assert "forward" not in recomputed.model.blocks[0].__dict__
    assert saved_names(tmp_path / "recomputed") == list(Net().state_dict())


def test_modules_are_chosen_by_a_function_too_and_the_outermost_counts() -> None:
    model = Net()
    assert checkpoint_activations(model, lambda name, module: isinstance(module, nn.Sequential | Block)) == ["blocks"]
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert model.blocks[0].forwards == {True: 2, False: 0}
    checkpoint_activations(model, ["Sequential"])  # once is enough
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert model.blocks[0].forwards == {True: 4, False: 0}


def test_what_was_there_before_is_there_again(tmp_path: Path) -> None:
    """A `forward` that a module was given of its own, and modules that were chosen before by hand."""
    asked: dict[str, Any] = {"performance": performance(activation_checkpointing=["blocks.?"])}

    def adapted(net: Net) -> Net:
        inner = net.blocks[0].forward
        net.blocks[0].forward = lambda x: inner(x) + 1
        checkpoint_activations(net, ["blocks.1"])
        return net

    model = train(tmp_path / "recomputed", block=Block, wrap=adapted, **asked).model
    assert outcome(train(tmp_path / "plain", block=Block, wrap=adapted)) == outcome(
        train(tmp_path / "recomputed", block=Block, wrap=adapted, **asked)
    )
    assert model.blocks[0].__dict__["forward"].__name__ == "<lambda>"
    before = dict(model.blocks[1].forwards)
    model.train()(torch.randn(2, 3, 4, 4)).sum().backward()
    assert model.blocks[1].forwards[True] == before[True] + 2


def test_a_name_that_no_module_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"Blok, stem\.\* chooses no module; the model has the classes .*Block"):
        train(tmp_path, block=Block, performance=performance(activation_checkpointing=["Blok", "stem.*"]))


@pytest.mark.parametrize("asked", [False, True])
def test_weights_and_batches_lie_as_configured(tmp_path: Path, asked: bool) -> None:
    trainer = train(tmp_path, performance=performance(channels_last=asked))
    assert trainer.seen is not None
    assert trainer.seen[1] is asked
    weight = trainer.model.blocks[0].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is asked
    assert trainer.optimizer.state[weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last) is asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"performance": {"compile": {"beckend": "eager"}}},
            r"performance\.compile\.beckend: .*did you mean 'backend'",
        ),
        ({"performance": {"compile": ""}}, r"performance\.compile: expected the name of a mode"),
        ({"performance": {"compile": 3}}, r"performance\.compile: expected true or false or a string or a mapping"),
        ({"performance": {"compile": "max-autotune"}}, r"performance\.compile: 'max-autotune' together with determ"),
        (
            {"performance": {"compile": {"options": {"max_autotune": True}}}},
            r"performance\.compile: .*together with determ",
        ),
        (
            {"performance": {"compile": "reduce-overhed"}},
            r"compile: expected one of default, .*did you mean 'reduce-overhead'",
        ),
        (
            {"performance": {"compile": {"backend": "inductr"}}},
            r"compile\.backend: expected one of .*did you mean 'inductor'",
        ),
        (
            {"performance": {"compile": {"fullgraph": "yes"}}},
            r"compile\.fullgraph: expected true or false, found .*'yes'",
        ),
        (
            {"performance": {"compile": {"mode": "default", "options": {}}}},
            r"compile\.mode: .*a mode or options, not both",
        ),
        ({"performance": {"compile": {"options": {"epilog_fusion": 1}}}}, r"did you mean 'epilogue_fusion'"),
        (
            {"performance": {"compile": {"options": {"epilogue-fusion": "yes"}}}},
            r"compile\.options\.epilogue-fusion: expected a value of type bool, found the string 'yes'",
        ),
        ({"float32_matmul_precision": "low"}, r"float32_matmul_precision: expected one of highest, high, medium"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        GenericTrainerConfig.from_dict(changes)


def test_options_of_the_compiler_are_taken_as_torch_takes_them() -> None:
    options = {"epilogue_fusion": False, "triton.cudagraphs": True, "max_fusion_size": 32, "group_fusion": True}
    config = GenericTrainerConfig.from_dict({"performance": {"compile": {"options": options}}})
    assert config.performance.compile == {"options": options}


def test_kernels_may_be_chosen_by_timing_where_results_need_not_repeat() -> None:
    config = GenericTrainerConfig.from_dict({"deterministic": False, "performance": {"compile": "max-autotune"}})
    assert config.performance.compile == "max-autotune"
