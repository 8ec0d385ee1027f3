"""The callbacks that come with the trainer: what each one does. That none is disturbed by stops is shown elsewhere."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    CheckpointError,
    EarlyStopping,
    GenericTrainer,
    GenericTrainerConfig,
    GradientNorm,
    LearningRateMonitor,
    LoggingConfig,
    ModelSummary,
    Profiler,
    Throughput,
    TrainerError,
    TrainingCallback,
    TrainingPreempted,
    best_checkpoint,
    load_weights,
    summarize,
)
from mtf_utils.rundir import read_metrics


def data(size: int = 8) -> DataLoader[Any]:
    inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=2)


VAL = data(4)


class Fit(GenericTrainer):
    """Linear regression."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        inputs, targets = batch
        return {"loss": nn.functional.mse_loss(self.model(inputs).float(), targets)}


def train(
    folder: Path,
    *callbacks: TrainingCallback,
    model: nn.Module | None = None,
    groups: Any = None,
    log_every: int = 1,
    val: DataLoader[Any] | None = VAL,
    **changes: Any,
) -> Fit:
    settings: dict[str, Any] = {
        "epochs": 2,
        "seed": 1,
        "checkpoint": CheckpointConfig(checkpoint_dir=str(folder)),
        "logging": LoggingConfig(log_every_n_steps=log_every),
    }
    trainer = Fit(GenericTrainerConfig(**(settings | changes)))
    for callback in callbacks:
        trainer.add_callback(callback)
    model = model if model is not None else nn.Linear(3, 1)
    trainer.fit(model, torch.optim.SGD(groups or model.parameters(), lr=0.05), data(), val)
    return trainer


def records(folder: Path, event: str = "train") -> list[dict[str, Any]]:
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["event"] == event]


class Asked:
    """Stands where the trainer does for a callback that only asks for a stop."""

    stopped = False

    def request_stop(self) -> None:
        self.stopped = True


@given(
    values=st.lists(st.floats(-5, 5) | st.just(math.nan), max_size=12),
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.5]),
)
def test_early_stopping_counts_what_is_no_improvement(values: list[float], patience: int, min_delta: float) -> None:
    smallest, largest = (
        EarlyStopping("val_loss", patience=patience, mode=mode, min_delta=min_delta) for mode in ("min", "max")
    )
    best, waited = math.inf, 0
    for value in values:
        improves = best - value > min_delta
        best, waited = (value, 0) if improves else (best, waited + 1)
        for callback, seen in ((smallest, value), (largest, -value)):
            trainer = Asked()
            callback.on_validation_end(trainer, {"val_loss": seen})  # type: ignore[arg-type]
            assert callback.waited == waited
            assert trainer.stopped == (waited >= patience)
            restored = EarlyStopping("val_loss", patience=patience)
            restored.load_state_dict(json.loads(json.dumps(callback.state_dict())))
            assert (restored.best, restored.waited) == (callback.best, callback.waited)


def test_early_stopping_ends_training_after_validation_or_epoch(tmp_path: Path) -> None:
    for monitor in ("val_loss", "train_loss"):
        trainer = train(tmp_path / monitor, EarlyStopping(monitor, patience=2, min_delta=1e6), epochs=9)
        assert trainer.current_epoch == 3  # the first look sets the mark, the next two are in vain
        assert trainer.state.stop_requested


def test_early_stopping_after_a_validation_by_step_trains_no_further_batch(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_loss", patience=1, min_delta=1e6)
    trainer = train(tmp_path, stopping, validate_every_n_steps=1)
    assert (trainer.global_step, trainer.current_epoch) == (2, 1)
    assert len(records(tmp_path, "validation")) == 2


@pytest.mark.parametrize("changes", [{"val": None}, {"validate_every_n_epochs": None}])
def test_early_stopping_without_validations_says_so_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(TrainerError, match=r"'val_loss', but there are no validations: give fit\(\) a val_loader"):
        train(tmp_path, EarlyStopping(), **changes)
    assert records(tmp_path) == []
    train(tmp_path / "train", EarlyStopping("train_loss"), **changes)


def test_early_stopping_on_a_metric_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"monitors 'val_accuracy', but there is: val_loss"):
        train(tmp_path, EarlyStopping("val_accuracy"))


class Watch(TrainingCallback):
    """Keeps the weights after every batch and those that validations see."""

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        self.trained.append(trainer.model.weight.detach().double().clone())

    def on_validation_start(self, trainer: GenericTrainer) -> None:
        self.validated.append(trainer.model.weight.detach().clone())


@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("every", [1, 2])
def test_ema_is_the_moving_average_and_validations_see_it(tmp_path: Path, warm_up: bool, every: int) -> None:
    torch.manual_seed(1)
    ema, watch = EMA(0.9, warm_up=warm_up, every_n_steps=every), Watch()
    model = nn.Linear(3, 1)
    average = model.weight.detach().double().clone()
    train(tmp_path, ema, watch, model=model)
    for number, weight in enumerate(watch.trained[every - 1 :: every], 1):
        decay = min(0.9, (1 + number) / (10 + number)) if warm_up else 0.9
        average = decay * average + (1 - decay) * weight
    assert ema.updates == 8 // every
    torch.testing.assert_close(ema.weights["weight"].double(), average, rtol=1e-5, atol=1e-6)
    assert torch.equal(watch.validated[-1], ema.weights["weight"])
    assert torch.equal(model.weight.double(), watch.trained[-1])
    with ema.averaged():
        assert torch.equal(model.weight, ema.weights["weight"])
    assert torch.equal(model.weight.double(), watch.trained[-1])


def test_of_two_averages_one_is_seen_by_validations(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="give one validate=False"):
        train(tmp_path / "both", EMA(0.9), EMA(0.5))
    alone, watch = EMA(0.5), Watch()
    train(tmp_path / "alone", alone, watch)
    slow, fast, again = EMA(0.9), EMA(0.5, validate=False), Watch()
    trainer = train(tmp_path / "two", slow, fast, again)
    assert torch.equal(fast.weights["weight"], alone.weights["weight"])
    assert torch.equal(again.validated[-1], slow.weights["weight"])
    assert torch.equal(trainer.model.weight.double(), watch.trained[-1])


def test_averages_can_be_had_from_a_checkpoint_of_the_best(tmp_path: Path) -> None:
    class Rising(Fit):
        def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            return {"loss": float((self.current_epoch - 1) ** 2)}

    ema, model = EMA(0.9), nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    settings = GenericTrainerConfig(epochs=5, seed=1, checkpoint=CheckpointConfig(checkpoint_dir=str(tmp_path)))
    trainer = Rising(settings)
    trainer.add_callback(ema)
    averages: list[dict[str, torch.Tensor]] = []

    class Keep(TrainingCallback):
        def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
            averages.append({name: value.clone() for name, value in ema.weights.items()})

    trainer.add_callback(Keep())
    trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.05), data(), data(4))
    best = best_checkpoint(tmp_path)
    fresh = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    load_weights(fresh, best, averaged=True)
    for name, value in averages[1].items():
        assert torch.equal(fresh.state_dict()[name], value), name
    assert fresh[1].num_batches_tracked == 8  # no average of a whole number
    load_weights(fresh, best)
    assert not torch.equal(fresh[0].weight, averages[1]["0.weight"])


def test_a_checkpoint_without_averages_or_validations_says_so(tmp_path: Path) -> None:
    train(tmp_path, val=None)
    with pytest.raises(CheckpointError, match="none of its checkpoints has been validated"):
        best_checkpoint(tmp_path)
    newest = sorted(tmp_path.glob("ckpt-*"))[-1]
    with pytest.raises(CheckpointError, match="its run had no EMA callback"):
        load_weights(nn.Linear(3, 1), newest, averaged=True)
    with pytest.raises(CheckpointError, match="which alone has averages"):
        load_weights(nn.Linear(3, 1), newest / "model.safetensors", averaged=True)
    with pytest.raises(CheckpointError, match=r"best_checkpoint\(\) and `mtf checkpoint ls` find"):
        load_weights(nn.Linear(3, 1), tmp_path)


def test_ema_of_16_bit_weights_keeps_its_own_precision_through_validations(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 3, dtype=torch.bfloat16))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(inputs.bfloat16(), self.weight)

    ema = EMA(0.99)
    train(tmp_path, ema, model=Half())
    average = ema.weights["weight"]
    assert average.dtype == torch.float32
    assert not torch.equal(average, average.bfloat16().float())


def test_a_checkpoint_has_raw_and_averaged_weights_also_in_mid_validation(tmp_path: Path) -> None:
    class StopInValidation(Fit):
        def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            return self.training_step(batch, batch_idx)

    settings = GenericTrainerConfig(epochs=1, seed=1, checkpoint=CheckpointConfig(checkpoint_dir=str(tmp_path)))
    trainer, ema, watch, model = StopInValidation(settings), EMA(0.9), Watch(), nn.Linear(3, 1)
    trainer.add_callback(ema)
    trainer.add_callback(watch)
    with pytest.raises(TrainingPreempted) as stop:
        trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.05), data(), data(4))

    again, restored, other = Fit(settings), EMA(0.9), nn.Linear(3, 1)
    state = again.load_checkpoint(stop.value.checkpoint)
    assert state.val is not None
    again.add_callback(restored)
    again.fit(other, torch.optim.SGD(other.parameters(), lr=0.05), data(), data(4))
    assert torch.equal(other.weight.double(), watch.trained[-1])
    assert torch.equal(restored.weights["weight"], watch.validated[-1])


def test_learning_rates_of_all_groups_are_recorded_by_name(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    groups = [
        {"params": [model.weight], "lr": 0.2, "name": "head", "momentum": 0.5},
        {"params": [model.bias], "weight_decay": 0.1},
    ]
    train(tmp_path, LearningRateMonitor(momentum=True, weight_decay=True), model=model, groups=groups)
    (*_, record) = records(tmp_path)
    found = {key: value for key, value in record.items() if key.endswith(("_head", "_1"))}
    assert found == {
        "lr_head": 0.2,
        "momentum_head": 0.5,
        "weight_decay_head": 0.0,
        "lr_1": 0.05,
        "momentum_1": 0.0,
        "weight_decay_1": 0.1,
    }


class Gradients(TrainingCallback):
    """Keeps the norm of the gradients before and after clipping."""

    def __init__(self) -> None:
        self.before: list[float] = []

    def on_before_optimizer_step(self, trainer: GenericTrainer) -> None:
        flat = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        self.before.append(float(flat.norm()))
        with pytest.raises(TrainerError, match="while a batch is under way"):
            trainer.save_checkpoint()


def test_the_gradient_norm_is_that_before_clipping_of_the_recorded_steps(tmp_path: Path) -> None:
    seen = Gradients()
    train(tmp_path, GradientNorm(), seen, max_grad_norm=1e-3, gradient_accumulation_steps=2, log_every=2)
    assert [record["step"] for record in records(tmp_path)] == [2, 4]
    assert [record["grad_norm"] for record in records(tmp_path)] == pytest.approx(seen.before[1::2])
    assert min(seen.before) > 1e-3


def test_throughput_counts_time_in_training_only(tmp_path: Path) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()

    class Passes(TrainingCallback):
        def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
            clock.now += 0.5

        def on_validation_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
            clock.now += 100.0

    train(tmp_path, Throughput(clock=clock), Passes(), log_every=2, epochs=3)
    told = [(record["samples_per_s"], record["steps_per_s"]) for record in records(tmp_path)]
    # One pause of half a second lies between the two batches of the first record, two between those of any other.
    assert told == [(8.0, 4.0), (4.0, 2.0), (4.0, 2.0), (4.0, 2.0), (4.0, 2.0), (4.0, 2.0)]


def test_throughput_leaves_out_the_time_between_two_processes(tmp_path: Path) -> None:
    now = [10.0]
    first, second = (Throughput(clock=lambda: now[0]) for _ in range(2))
    first.on_batch_start(None, 0)  # type: ignore[arg-type]
    now[0] = 12.0
    saved = first.state_dict()
    assert saved == {"elapsed": 2.0, "samples": 0.0, "steps": 0}
    now[0] = 1000.0
    second.load_state_dict(saved)
    assert second.state_dict() == saved


def test_a_trace_of_the_window_is_written(tmp_path: Path) -> None:
    train(tmp_path, Profiler(start_step=2, num_steps=3, record_shapes=True))
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == "steps-2-5.json"
    events = json.loads(path.read_text())["traceEvents"]
    steps = [event for event in events if str(event.get("name", "")).startswith("Optimizer.step")]
    assert len(steps) == 3


def test_a_window_beyond_the_end_is_written_as_far_as_it_goes(tmp_path: Path) -> None:
    train(tmp_path, Profiler(start_step=7, num_steps=100))
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["steps-7-8.json"]


def test_the_model_is_summarised_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.BatchNorm1d(2)), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    for _ in range(2):
        train(tmp_path, ModelSummary(max_depth=2), model=model)
    (text,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("the model:")]
    rows = [line.split() for line in text.splitlines()[1:]]
    assert rows == [
        ["module", "type", "parameters", "trainable"],
        ["0", "Linear", "8", "0"],
        ["1", "Sequential", "4", "4"],
        ["1.0", "BatchNorm1d", "4", "4"],
        ["2", "Linear", "3", "3"],
        ["in", "all", "Sequential", "15", "7"],
        ["0.0", "MB", "with", "buffers"],
    ]
    assert summarize(model, max_depth=0).splitlines()[0].split() == ["in", "all", "Sequential", "15", "7"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(mode="least"),  # type: ignore[arg-type]
        lambda: EMA(1.0),
        lambda: EMA(every_n_steps=0),
        lambda: Profiler(-1),
        lambda: Profiler(num_steps=0),
    ],
)
def test_impossible_settings_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()
