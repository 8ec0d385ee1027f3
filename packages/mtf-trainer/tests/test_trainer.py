"""What `GenericTrainer` does with models, loaders, callbacks and checkpoints, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    CheckpointError,
    CsvLogger,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    LogRecord,
    PreemptionConfig,
    ResumeState,
    TrainerError,
    TrainerPhase,
    TrainingCallback,
    TrainingPreempted,
    TrainingStopped,
    preemption,
)
from mtf_trainer.metrics import count_samples
from mtf_trainer.state import MIGRATIONS, TrainMicroState
from mtf_trainer.steps import to_device
from mtf_utils.rundir import GoalFile, Outcome, RunDirectory, read_metrics


def data(size: int = 12) -> TensorDataset:
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, 3, generator=source)
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


class Fit(GenericTrainer):
    """Linear regression."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        inputs, targets = batch
        return {"loss": nn.functional.mse_loss(self.model(inputs), targets)}


def config(folder: Path, *, checkpoint: dict[str, Any] | None = None, **changes: Any) -> GenericTrainerConfig:
    settings: dict[str, Any] = {
        "epochs": 2,
        "seed": 1,
        "checkpoint": CheckpointConfig(checkpoint_dir=str(folder), **(checkpoint or {})),
        "logging": LoggingConfig(log_every_n_steps=1),
    }
    return GenericTrainerConfig(**(settings | changes))


def run(
    trainer: GenericTrainer,
    *,
    model: nn.Module | None = None,
    loader: Any = None,
    val_loader: Any = None,
    lr: float = 0.1,
    **others: Any,
) -> nn.Module:
    model = model if model is not None else nn.Linear(3, 1)
    loader = loader if loader is not None else DataLoader(data(), batch_size=4)
    trainer.fit(model, torch.optim.SGD(model.parameters(), lr=lr), loader, val_loader, **others)
    return model


class Stop(TrainingCallback):
    """Sends this process a signal once, at the end of some batch."""

    def __init__(self, after: int, number: int = signal.SIGTERM) -> None:
        self.after = after
        self.number = number

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
        if trainer.global_step == self.after:
            os.kill(os.getpid(), self.number)


def test_partial_windows_are_normalised_by_their_own_size(tmp_path: Path) -> None:
    trainer = Fit(config(tmp_path, epochs=1, gradient_accumulation_steps=2))
    model = run(trainer, loader=DataLoader(data(10), batch_size=2))
    torch.manual_seed(1)
    Fit(config(tmp_path / "other"))  # seeds as the first one did
    by_hand = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    batches = list(DataLoader(data(10), batch_size=2))
    for window in (batches[0:2], batches[2:4], batches[4:5]):
        for inputs, targets in window:
            (nn.functional.mse_loss(by_hand(inputs), targets) / len(window)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert trainer.global_step == 3
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class Endless(IterableDataset):
    """Five samples, of which no one knows how many there are."""

    def __iter__(self) -> Any:
        yield from data(5)


def test_a_loader_without_a_length_trains_like_one_with(tmp_path: Path) -> None:
    expected = run(
        Fit(config(tmp_path / "map", gradient_accumulation_steps=2)), loader=DataLoader(data(5), batch_size=1)
    )
    model = run(Fit(config(tmp_path / "it", gradient_accumulation_steps=2)), loader=DataLoader(Endless(), batch_size=1))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_means_are_weighted_by_the_number_of_samples(tmp_path: Path) -> None:
    logs: list[dict[str, Any]] = []

    class Keep(TrainingCallback):
        def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs_: dict[str, Any]) -> None:
            logs.append(logs_)

    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss = trainer.model(batch[0]).mean()
        return {"loss": loss, "size": len(batch[0]), "counted": batch_idx, "num_samples": 1 + 2 * batch_idx}

    trainer = GenericTrainer(config(tmp_path, epochs=1), training_step=step)
    trainer.add_callback(Keep())
    run(trainer, loader=DataLoader(data(7), batch_size=4))
    assert logs[0]["train_counted"] == pytest.approx((0 * 1 + 1 * 3) / 4)
    assert logs[0]["train_size"] == pytest.approx((4 * 1 + 3 * 3) / 4)


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path: Path) -> None:
    model = run(Fit(config(tmp_path)))
    again = Fit(config(tmp_path))

    class Never(TrainingCallback):
        def on_training_start(self, trainer: GenericTrainer) -> None:
            raise AssertionError

    fresh = nn.Linear(3, 1)
    run(again, model=fresh)
    assert torch.equal(fresh.weight, model.weight)
    assert again.current_epoch == 2
    assert again.state.phase is TrainerPhase.TRAINING_COMPLETE


def test_more_epochs_prolong_a_finished_run(tmp_path: Path) -> None:
    run(Fit(config(tmp_path / "two", epochs=2)))
    longer = Fit(config(tmp_path / "two", epochs=3))
    model = run(longer)
    at_once = run(Fit(config(tmp_path / "three", epochs=3)))
    assert longer.current_epoch == 3
    assert torch.equal(model.weight, at_once.weight)


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({"model": nn.Linear(3, 1, bias=False)}, "bias is not in this model"),
        ({"loader": DataLoader(data(13), batch_size=4)}, r"train\..* was 12, is 13"),
        ({"loader": DataLoader(data(), batch_size=3)}, "batch_size was 4, is 3"),
        ({"lr": 0.2}, r"optimizer\.lr was 0\.1, is 0\.2"),
    ],
)
def test_checkpoints_of_another_run_are_refused(tmp_path: Path, again: dict[str, Any], message: str) -> None:
    run(Fit(config(tmp_path)))
    with pytest.raises(CheckpointError, match=message):
        run(Fit(config(tmp_path)), **again)


def test_another_seed_is_refused_and_a_drawn_one_is_kept(tmp_path: Path) -> None:
    run(Fit(config(tmp_path / "given")))
    with pytest.raises(CheckpointError, match="seed 1, this one has 2"):
        run(Fit(config(tmp_path / "given", seed=2)))
    first = Fit(config(tmp_path / "drawn", seed=None))
    run(first)
    second = Fit(config(tmp_path / "drawn", seed=None))
    run(second)
    assert second.seed == first.seed
    assert json.loads((tmp_path / "drawn" / "result.json").read_text())["seed"] == first.seed


def test_never_resume_refuses_existing_checkpoints(tmp_path: Path) -> None:
    run(Fit(config(tmp_path, checkpoint={"resume": "never"})))
    with pytest.raises(CheckpointError, match="holds checkpoints already"):
        run(Fit(config(tmp_path, checkpoint={"resume": "never"})))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: loss, "expected a dict of metrics"),
        (lambda loss: {}, "a tensor under 'loss', found only nothing"),
        (lambda loss: {"loss": 1.0}, "found a float"),
        (lambda loss: {"loss": loss.detach()}, "requires_grad=False"),
        (lambda loss: {"loss": loss, "text": "good"}, "'text' as str"),
        (lambda loss: {"loss": loss, "many": torch.ones(2)}, r"'many' with shape \(2,\)"),
        (lambda loss: {"loss": loss * float("nan")}, "loss at epoch 1, batch 1, step 0 is not finite"),
    ],
)
def test_what_a_step_may_not_return(tmp_path: Path, returned: Any, message: str) -> None:
    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> Any:
        return returned(trainer.model(batch[0]).mean())

    with pytest.raises(TrainerError, match=message):
        run(GenericTrainer(config(tmp_path), training_step=step))


def test_skipped_batches_leave_no_trace(tmp_path: Path) -> None:
    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.mse_loss(trainer.model(batch[0]), batch[1])
        return {"loss": loss * float("inf") if batch_idx == 1 else loss}

    trainer = GenericTrainer(config(tmp_path, epochs=1, non_finite_loss="skip"), training_step=step)
    model = run(trainer)
    assert torch.isfinite(model.weight).all()
    assert trainer.global_step == 3


def test_without_a_step_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="override training_step"):
        run(GenericTrainer(config(tmp_path)))


@pytest.mark.parametrize(("name", "told"), [("log", "return the numbers"), ("optimizers", "is called optimizer")])
def test_a_step_for_another_trainer_is_told_what_to_write(tmp_path: Path, name: str, told: str) -> None:
    def step(trainer: Any, batch: Any, batch_idx: int) -> Any:
        return getattr(trainer, name)("loss", 1.0)

    with pytest.raises(AttributeError, match=f"no attribute '{name}'") as caught:
        run(GenericTrainer(config(tmp_path), training_step=step))
    assert told in "".join(caught.value.__notes__)


def test_other_errors_of_a_step_are_as_they_are(tmp_path: Path) -> None:
    def step(trainer: Any, batch: Any, batch_idx: int) -> Any:
        return batch.log

    with pytest.raises(AttributeError) as caught:
        run(GenericTrainer(config(tmp_path), training_step=step))
    assert not hasattr(caught.value, "__notes__")


def test_an_empty_loader_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="gave no batch in epoch 1"):
        run(Fit(config(tmp_path)), loader=DataLoader(data(3), batch_size=4, drop_last=True))


def test_an_unknown_monitor_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="'val_f1', but validation gives: val_loss"):
        run(Fit(config(tmp_path, checkpoint={"monitor": "val_f1"})), val_loader=DataLoader(data(4), batch_size=4))


def test_a_callback_that_raises_is_named_and_training_can_go_on(tmp_path: Path) -> None:
    class Broken(TrainingCallback):
        healed = False

        def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
            if epoch == 1 and not self.healed:
                raise ValueError("no")

    trainer = Fit(config(tmp_path))
    trainer.add_callback(Broken())
    with pytest.raises(TrainerError, match=r"Broken.on_epoch_end raised ValueError: no"):
        run(trainer)
    Broken.healed = True
    again = Fit(config(tmp_path))
    again.add_callback(Broken())
    model = run(again)
    assert torch.equal(model.weight, run(Fit(config(tmp_path / "undisturbed"))).weight)


def test_callbacks_hear_of_checkpoints_preemptions_and_errors(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listen(Stop):
        def on_checkpoint(self, trainer: GenericTrainer) -> None:
            heard.append(f"checkpoint {trainer.global_step}")

        def on_preemption(self, trainer: GenericTrainer, signal_name: str) -> None:
            heard.append(signal_name)
            raise ValueError("does no harm here")

        def on_exception(self, trainer: GenericTrainer, error: BaseException) -> None:
            heard.append(f"{error}")

        def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
            raise TrainerError("too bad")

    for after, expected in [(4, TrainingPreempted), (-1, TrainerError)]:
        trainer = Fit(config(tmp_path))
        trainer.add_callback(Listen(after))
        with pytest.raises(expected):
            run(trainer)
    assert heard == ["checkpoint 3", "SIGTERM", "too bad"]


def test_saving_in_a_callback_and_after_fit_but_not_in_a_step(tmp_path: Path) -> None:
    paths: list[Path] = []

    class Save(TrainingCallback):
        def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: dict[str, Any]) -> None:
            if trainer.global_step == 2:
                paths.append(trainer.save_checkpoint())

    trainer = Fit(config(tmp_path))
    with pytest.raises(TrainerError, match="before fit"):
        trainer.save_checkpoint()
    trainer.add_callback(Save())
    run(trainer)
    after = trainer.save_checkpoint()
    assert after.is_dir()
    state = Fit(config(tmp_path)).load_checkpoint(after)
    assert state.phase is TrainerPhase.TRAINING_COMPLETE
    assert state.rng is not None
    assert len(paths) == 1

    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> Any:
        trainer.save_checkpoint()

    with pytest.raises(TrainerError, match="while a batch is under way"):
        run(GenericTrainer(config(tmp_path / "inside"), training_step=step))


def test_an_armed_checkpoint_is_where_the_next_fit_begins(tmp_path: Path) -> None:
    first = Fit(config(tmp_path, checkpoint={"keep_last": 9, "save_every_n_steps": 2}))
    model = run(first)
    early = sorted(tmp_path.glob("ckpt-*"))[1]
    again = Fit(config(tmp_path, checkpoint={"keep_last": 9, "save_every_n_steps": 2}))
    state = again.load_checkpoint(early)
    assert 0 < state.global_step < 6
    assert torch.equal(run(again).weight, model.weight)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Fit(config(tmp_path / "none")).load_checkpoint()


def test_registered_state_is_a_part_of_the_checkpoint(tmp_path: Path) -> None:
    class Counter:
        count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    first = Fit(config(tmp_path))
    counter = Counter()
    first.register_state("counter", counter)
    counter.count = 7
    run(first)
    second, other = Fit(config(tmp_path)), Counter()
    second.register_state("counter", other)
    run(second)
    assert other.count == 7
    with pytest.raises(TrainerError, match="registered already"):
        second.register_state("counter", other)
    with pytest.raises(CheckpointError, match="registered"):
        run(Fit(config(tmp_path)))


def test_state_that_cannot_be_saved_fails_before_the_first_batch(tmp_path: Path) -> None:
    class Bad(TrainingCallback):
        def state_dict(self) -> dict[str, Any]:
            return {"lock": object()}

        def on_training_start(self, trainer: GenericTrainer) -> None:
            raise AssertionError("too late")

    trainer = Fit(config(tmp_path))
    trainer.add_callback(Bad())
    with pytest.raises(CheckpointError, match="lock"):
        run(trainer)


def test_max_steps_and_an_early_stop_end_the_epoch_properly(tmp_path: Path) -> None:
    val = DataLoader(data(4), batch_size=4)
    trainer = Fit(config(tmp_path / "steps", epochs=5, max_steps=4))
    run(trainer, val_loader=val)
    assert (trainer.global_step, trainer.current_epoch) == (4, 2)
    events = [record["event"] for record in read_metrics(tmp_path / "steps" / "metrics.jsonl")]
    assert events[-2:] == ["validation", "epoch"]

    class Enough(TrainingCallback):
        def on_epoch_end(self, trainer: GenericTrainer, epoch: int, logs: dict[str, Any]) -> None:
            trainer.request_stop()

    stopped = Fit(config(tmp_path / "stop", epochs=5))
    stopped.add_callback(Enough())
    run(stopped)
    assert stopped.current_epoch == 1


def test_a_scheduler_by_metric_sees_the_monitored_value(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, factor=0.5)
    trainer = Fit(config(tmp_path, epochs=3, scheduler_interval="metric", max_grad_value=1e-9))
    trainer.fit(model, optimizer, DataLoader(data(), batch_size=4), DataLoader(data(4), batch_size=4), scheduler)
    # with this threshold nothing is ever an improvement: the rate is halved after each of the three validations
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125)


def test_optimizer_and_scheduler_may_be_made_by_fit(tmp_path: Path) -> None:
    trainer = Fit(config(tmp_path, epochs=1))
    trainer.fit(
        nn.Linear(3, 1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        DataLoader(data(), batch_size=4),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1),
    )
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)


def test_frozen_parameters_and_modes_survive_a_stop(tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(4)
        return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    class Freeze(TrainingCallback):
        def on_training_start(self, trainer: GenericTrainer) -> None:
            trainer.model[1].eval()  # type: ignore[index]
            trainer.model[0].requires_grad_(False)  # type: ignore[index]

    def prepared(folder: Path, stop: int) -> GenericTrainer:
        trainer = Fit(config(folder, epochs=3))
        trainer.add_callback(Freeze())
        trainer.add_callback(Stop(stop))
        return trainer

    val = DataLoader(data(4), batch_size=4)
    expected = run(prepared(tmp_path / "a", -1), model=build(), val_loader=val)
    with pytest.raises(TrainingPreempted):
        run(prepared(tmp_path / "b", 4), model=build(), val_loader=val)
    model = run(prepared(tmp_path / "b", -1), model=build(), val_loader=val)
    assert not model[1].training  # type: ignore[index]
    for (name, ours), theirs in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_says_so(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunDirectory(tmp_path / "run")
    folder.attempt(1).path.mkdir(parents=True)
    monkeypatch.setenv("MTF_RUN_DIR", str(folder.path))
    monkeypatch.setenv("MTF_ATTEMPT", "1")
    trainer = Fit(config(Path("checkpoints")))
    trainer.add_callback(Stop(2, number))
    before = signal.getsignal(number)
    with pytest.raises(TrainingPreempted) as stop:
        run(trainer)
    assert signal.getsignal(number) is before
    assert stop.value.code == 75
    assert stop.value.checkpoint.parent == folder.checkpoints_dir
    assert GoalFile.read(folder.goal_file) == GoalFile(epochs=2, total_steps=6)
    receipt = folder.attempt(1).finished()
    assert receipt is not None
    assert receipt.outcome is Outcome.PREEMPTED
    assert signal.Signals(number).name in str(receipt.reason)
    again = Fit(config(Path("checkpoints")))
    again.add_callback(Stop(-1))
    run(again)
    assert folder.attempt(1).finished() is None
    result = folder.result()
    assert result is not None
    assert result.global_step == 6
    assert (folder.path / result.checkpoint / "manifest.json").is_file()


@pytest.mark.parametrize("launched", [False, True])
def test_ctrl_c_that_torchrun_passes_on_once_more_interrupts_nothing(
    monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    flag = preemption.StopFlag()
    with preemption.listening(flag, []):
        flag.request("SIGINT")  # another rank was told first
        signal.raise_signal(signal.SIGINT)
        if launched:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class Clumsy(TrainingCallback):
    """A callback and a logger of one's own that cannot let go."""

    def teardown(self, trainer: GenericTrainer) -> None:
        raise ValueError("no teardown")

    def open(self, journal: Path, position: int | None) -> None:
        """Nothing to open."""

    def log(self, record: LogRecord) -> None:
        """Nothing to write."""

    def close(self) -> None:
        raise ValueError("no close")


def test_what_cannot_be_closed_does_not_hide_how_training_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, clumsy = Fit(config(tmp_path)), Clumsy()
    trainer.add_callback(clumsy)
    trainer.add_callback(Stop(2, signal.SIGTERM))
    trainer.add_logger(clumsy)
    with pytest.raises(TrainingPreempted):
        run(trainer)
    assert "Clumsy.teardown failed while fit() ended" in caplog.text
    assert "no close" in caplog.text
    again = Fit(config(tmp_path))
    again.add_callback(Clumsy())
    again.add_callback(Stop(-1))
    with pytest.raises(ValueError, match="no teardown"):
        run(again)
    assert json.loads((tmp_path / "result.json").read_text())["global_step"] == 6


def test_how_far_it_goes_is_said_in_run_directories_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Fit(config(tmp_path / "alone")))
    assert not list(tmp_path.rglob("goal.json"))
    monkeypatch.setenv("MTF_RUN_DIR", str(tmp_path / "run"))
    run(Fit(config(tmp_path / "inside", max_steps=5)))
    assert GoalFile.read(tmp_path / "run" / "goal.json") == GoalFile(epochs=2, total_steps=5)


def test_one_preemption_too_many_is_final(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"preemption": PreemptionConfig(max_preemptions=1)}

    def stopped(after: int) -> GenericTrainer:
        trainer = Fit(config(tmp_path, **settings))
        trainer.add_callback(Stop(after))
        return trainer

    with pytest.raises(TrainingPreempted):
        run(stopped(1))
    with pytest.raises(TrainingStopped, match=r"preemption\.max_preemptions=1") as stop:
        run(stopped(2))
    assert stop.value.code == 76


def test_whoever_starts_attempts_counts_their_preemptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there it is known which of them were preemptions, and since when they count."""
    folder = RunDirectory(tmp_path)
    monkeypatch.setenv("MTF_RUN_DIR", str(tmp_path))
    for number in (1, 2, 3):
        monkeypatch.setenv("MTF_ATTEMPT", str(number))
        trainer = Fit(config(Path("checkpoints"), preemption=PreemptionConfig(max_preemptions=0)))
        trainer.add_callback(Stop(number))
        with pytest.raises(TrainingPreempted):
            run(trainer)
        receipt = folder.attempt(number).finished()
        assert receipt is not None
        assert (receipt.outcome, receipt.exit_status) == (Outcome.PREEMPTED, 75)


def test_a_handler_that_was_there_is_called_too(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        trainer = Fit(config(tmp_path))
        trainer.add_callback(Stop(1))
        with pytest.raises(TrainingPreempted):
            run(trainer)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_dataset_that_raises_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    class Rotten(Dataset):
        bad = True

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            if index == 9 and self.bad:
                raise OSError("cannot read sample 9")
            return data()[index]

    with pytest.raises(OSError, match="cannot read sample 9"):
        run(Fit(config(tmp_path, checkpoint={"save_every_n_steps": 1})), loader=DataLoader(Rotten(), batch_size=4))
    Rotten.bad = False
    model = run(Fit(config(tmp_path, checkpoint={"save_every_n_steps": 1})), loader=DataLoader(Rotten(), batch_size=4))
    assert torch.equal(model.weight, run(Fit(config(tmp_path / "whole"))).weight)


def test_deterministic_algorithms_are_on_during_fit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen: list[tuple[bool, str | None]] = []

    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> Any:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return {"loss": trainer.model(batch[0]).mean()}

    run(GenericTrainer(config(tmp_path / "on", epochs=1), training_step=step))
    run(GenericTrainer(config(tmp_path / "off", epochs=1, deterministic=False), training_step=step))
    assert seen == [(True, ":4096:8")] * 3 + [(False, None)] * 3
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    run(GenericTrainer(config(tmp_path / "own", epochs=1), training_step=step))
    assert seen[-1] == (True, ":16:8")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_fp16_keeps_the_scaler_in_the_checkpoint(tmp_path: Path) -> None:
    def prepared(folder: Path, stop: int) -> GenericTrainer:
        trainer = Fit(config(folder, precision="fp16", max_grad_norm=1.0))
        trainer.add_callback(Stop(stop))
        return trainer

    expected = run(prepared(tmp_path / "a", -1))
    with pytest.raises(TrainingPreempted):
        run(prepared(tmp_path / "b", 3))
    assert torch.equal(run(prepared(tmp_path / "b", -1)).weight, expected.weight)


def test_the_state_is_json_that_reads_back() -> None:
    state = ResumeState(TrainerPhase.TRAIN_BATCH_OPTIM_STEP, 3, 14, train=TrainMicroState(batch_idx=5, micro_step=2))
    state.val_metrics = {"val_loss": float("nan"), "val_gap": float("-inf"), "val_x": 0.1}
    text = json.dumps(state.to_dict(), allow_nan=False)
    back = ResumeState.from_dict(json.loads(text))
    assert repr(back) == repr(state)


def test_an_unknown_version_of_the_state_is_refused_and_a_known_one_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ResumeState(TrainerPhase.INIT, 0, 0).to_dict() | {"version": "v1.0"}
    with pytest.raises(TrainerError, match=r"version 'v1\.0': this release reads v2\.0"):
        ResumeState.from_dict(data)
    monkeypatch.setitem(MIGRATIONS, "v1.0", lambda old: old | {"version": "v2.0", "epoch": old["epoch"] + 1})
    assert ResumeState.from_dict(data).epoch == 1
    with pytest.raises(TrainerError, match="not a training state"):
        ResumeState.from_dict({"version": "v2.0", "phase": "nowhere"})


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a GenericTrainerConfig, found dict"):
        GenericTrainer({"epochs": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="derived from TrainingCallback, found <object"):
        Fit(config(tmp_path)).add_callback(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found <class .*EMA"):
        Fit(config(tmp_path)).add_callback(EMA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found <class .*CsvLogger"):
        Fit(config(tmp_path)).add_logger(CsvLogger)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no state_dict"):
        Fit(config(tmp_path)).register_state("x", object())  # type: ignore[arg-type]


class Decay:
    """A scheduler that cannot be saved."""

    def step(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": None}, "found None"),
        ({"optimizer": "adam"}, "found 'adam'"),
        ({"optimizer": lambda parameters: 1}, "made a int"),
        ({"optimizer": lambda parameters: torch.optim.LBFGS(parameters)}, "LBFGS evaluates"),
        ({"optimizer": torch.optim.SGD(nn.Linear(3, 1).parameters(), lr=0.1)}, "no parameter of this model"),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, "set it to 'metric'"),
        ({"scheduler": Decay()}, "Decay has no state_dict"),
        ({"model": 3}, "found int"),
    ],
)
def test_what_cannot_be_trained_is_refused_before(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "model": nn.Linear(3, 1),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "train_loader": DataLoader(data(), batch_size=4),
    }
    with pytest.raises((TrainerError, TypeError), match=message):
        Fit(config(tmp_path)).fit(**(given | changes))
    assert not list(tmp_path.glob("ckpt-*"))


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = "cuda" if not torch.cuda.is_available() else "xpu"
    with pytest.raises(TrainerError, match=f"device='{missing}'"):
        run(Fit(config(tmp_path, device=missing)))


def test_callbacks_without_a_state_may_come_and_go(tmp_path: Path) -> None:
    first = Fit(config(tmp_path))
    first.add_callback(Stop(2))
    with pytest.raises(TrainingPreempted):
        run(first)
    model = run(Fit(config(tmp_path)))
    assert torch.equal(model.weight, run(Fit(config(tmp_path / "undisturbed"))).weight)


def test_lost_metrics_cost_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Fit(config(tmp_path))
    first.add_callback(Stop(4))
    with pytest.raises(TrainingPreempted):
        run(first)
    (tmp_path / "metrics.jsonl").unlink()
    model = run(Fit(config(tmp_path)))
    assert "these records are lost" in caplog.text
    assert torch.equal(model.weight, run(Fit(config(tmp_path / "undisturbed"))).weight)
    (tmp_path / "metrics.jsonl").unlink()
    run(Fit(config(tmp_path)))  # finished: nothing is recorded any more


def test_an_epoch_in_which_nothing_was_trained_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> Any:
        return {"loss": trainer.model(batch[0]).mean() * float("nan")}

    with pytest.raises(TrainerError, match="none of its 3 losses is finite"):
        run(GenericTrainer(config(tmp_path, non_finite_loss="skip"), training_step=step))
    assert "left out: the loss at epoch 1, batch 2" in caplog.text


@dataclasses.dataclass(frozen=True)
class Pair:
    inputs: torch.Tensor
    names: list[str]


def test_a_batch_may_be_a_dataclass() -> None:
    batch = Pair(torch.ones(3, 2), ["a", "b", "c"])
    moved = to_device(batch, torch.device("meta"))
    assert (type(moved), moved.inputs.device.type, moved.names) == (Pair, "meta", ["a", "b", "c"])
    assert batch.inputs.device.type == "cpu"
    assert count_samples({}, batch) == 3


def test_a_method_that_other_trainers_call_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Late(TrainingCallback):
        def on_train_epoch_end(self, trainer: GenericTrainer) -> None:
            raise AssertionError

    saving = CheckpointConfig(checkpoint_dir=str(tmp_path))
    GenericTrainer(GenericTrainerConfig(checkpoint=saving)).add_callback(Late())
    assert "Late.on_train_epoch_end is never called: there is no such event; did you mean on_epoch_end?" in caplog.text


def test_a_callback_is_added_once(tmp_path: Path) -> None:
    trainer, callback = GenericTrainer(config(tmp_path)), TrainingCallback()
    trainer.add_callback(callback)
    with pytest.raises(TrainerError, match="this TrainingCallback was added already"):
        trainer.add_callback(callback)
    trainer.add_callback(TrainingCallback())
