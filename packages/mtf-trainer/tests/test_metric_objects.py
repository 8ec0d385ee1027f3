"""Metrics that are objects: when they are reset and computed, and that a stop does not disturb them."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    CheckpointConfig,
    CheckpointError,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    TrainerError,
    TrainingPreempted,
    preemption,
)
from mtf_trainer.metric_objects import MetricObjects, MetricState
from mtf_trainer.reader import Reader
from mtf_trainer.stand_ins import without_stand_ins
from mtf_utils.rundir import read_metrics

HAS_TORCHMETRICS = importlib.util.find_spec("torchmetrics") is not None


class Range:
    """Computes two numbers."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, values: torch.Tensor) -> None:
        self.values += values.flatten().tolist()

    def compute(self) -> dict[str, float]:
        return {"least": min(self.values), "most": max(self.values)}

    def reset(self) -> None:
        self.values = []

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state: Any) -> None:
        self.values = list(state["values"])


class Fit(GenericTrainer):
    """Shows its metrics every target that it sees."""

    def __init__(self, folder: Path, **metrics: Any) -> None:
        super().__init__(
            GenericTrainerConfig(
                epochs=2,
                seed=1,
                validate_every_n_steps=3,
                checkpoint=CheckpointConfig(checkpoint_dir=str(folder)),
                logging=LoggingConfig(log_every_n_steps=1),
            )
        )
        self.objects = metrics
        for stage, metric in metrics.items():
            self.add_metric("targets", metric, stage=stage)  # type: ignore[arg-type]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        inputs, targets = batch
        outputs = self.model(inputs)
        stage = "train" if self.model.training else "val"
        if stage in self.objects:
            self.show(self.objects[stage], outputs, targets)
        return {"loss": nn.functional.mse_loss(outputs, targets)}

    def show(self, metric: Any, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        metric.update(targets)

    def train_on(self, targets: list[float], val: list[float]) -> None:
        model = nn.Linear(1, 1)
        loaders = [
            DataLoader(TensorDataset(torch.arange(len(v)).view(-1, 1) / len(v), torch.tensor(v).view(-1, 1)))
            for v in (targets, val)
        ]
        self.fit(model, torch.optim.SGD(model.parameters(), lr=0.01), *loaders)


TRAIN, VAL = [3.0, -1.0, 2.0, 7.0], [0.5, -2.0, 1.0]


def test_they_cover_one_epoch_or_validation_and_join_the_means(tmp_path: Path) -> None:
    Fit(tmp_path, train=Range(), val=Range()).train_on(TRAIN, VAL)
    records = list(read_metrics(tmp_path / "metrics.jsonl"))
    for record in records:
        if record["event"] == "validation":
            assert (record["val_targets_least"], record["val_targets_most"]) == (-2.0, 1.0)
        if record["event"] == "epoch":
            assert (record["train_targets_least"], record["train_targets_most"]) == (-1.0, 7.0)
            assert record["val_targets_most"] == 1.0
            assert record["train_loss"] >= 0.0
    assert [record["event"] for record in records].count("validation") == 4


def run_in_pieces(folder: Path, make: Any) -> None:
    """Train with a stop at every twelfth boundary, until training is complete."""

    class EveryTwelfth(preemption.StopFlag):
        count = 0

        @property
        def requested(self) -> bool:  # type: ignore[override]
            self.count += 1
            return self.count >= 12

        @requested.setter
        def requested(self, value: bool) -> None:
            """The constructor sets it."""

        def is_requested(self) -> bool:
            return False

        def elapsed_s(self) -> float:
            return 0.0

    original = preemption.StopFlag
    preemption.StopFlag = EveryTwelfth  # type: ignore[misc]
    try:
        for _ in range(100):
            try:
                make(folder).train_on(TRAIN, VAL)
            except TrainingPreempted:
                continue
            return
        raise AssertionError("never complete")
    finally:
        preemption.StopFlag = original  # type: ignore[misc]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "time"} for record in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
def test_metrics_of_torchmetrics_compute_the_same_with_and_without_stops(tmp_path: Path) -> None:
    torchmetrics = importlib.import_module("torchmetrics")

    class Errors(Fit):
        def show(self, metric: Any, outputs: torch.Tensor, targets: torch.Tensor) -> None:
            metric(outputs.detach(), targets)  # forward(), whose running means count the updates

    def make(folder: Path) -> Fit:
        collection = torchmetrics.MetricCollection(
            {
                "mse": torchmetrics.MeanSquaredError(),
                "rmse": torchmetrics.MeanSquaredError(squared=False),  # computed with the one before
                "spearman": torchmetrics.SpearmanCorrCoef(),  # keeps lists
            }
        )
        return Errors(folder, train=torchmetrics.MeanAbsoluteError(), val=collection)

    make(tmp_path / "whole").train_on(TRAIN, VAL)
    run_in_pieces(tmp_path / "pieces", make)
    told = metrics(tmp_path / "whole")
    assert metrics(tmp_path / "pieces") == told
    assert {"val_targets_mse", "val_targets_rmse", "val_targets_spearman", "train_targets"} <= told[-1].keys()
    assert told[-1]["val_targets_rmse"] == pytest.approx(told[-1]["val_targets_mse"] ** 0.5)


def test_stops_in_mid_epoch_and_mid_validation_change_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> Fit:
        return Fit(folder, train=Range(), val=Range())

    make(tmp_path / "whole").train_on(TRAIN, VAL)
    run_in_pieces(tmp_path / "pieces", make)
    assert metrics(tmp_path / "pieces") == metrics(tmp_path / "whole")


def test_a_checkpoint_made_with_other_metrics_is_refused(tmp_path: Path) -> None:
    trainer = Fit(tmp_path, val=Range())
    trainer.train_on(TRAIN, VAL)
    with pytest.raises(CheckpointError, match="metric val/targets"):
        Fit(tmp_path).train_on(TRAIN, VAL)


class Vector(Range):
    """Computes something that is no number."""

    def compute(self) -> Any:
        return torch.tensor(self.values)


def test_a_result_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"metric 'targets' computed shape \(3,\)"):
        Fit(tmp_path, val=Vector()).train_on(TRAIN, VAL)


def test_what_is_no_metric_is_refused(tmp_path: Path) -> None:
    trainer = Fit(tmp_path, val=Range())
    with pytest.raises(TypeError, match=r"a Linear has no update\(\), compute\(\), reset\(\)"):
        trainer.add_metric("x", nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Range is a class; add an object of it, Range\(\)"):
        trainer.add_metric("x", Range)  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match="stage is 'test'"):
        trainer.add_metric("x", Range(), stage="test")  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match="there is a metric 'targets' for 'val' already"):
        trainer.add_metric("targets", Range())


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
def test_metrics_within_metrics_and_what_they_keep_over_validations_survive_stops(tmp_path: Path) -> None:
    torchmetrics = importlib.import_module("torchmetrics")

    class Errors(Fit):
        def show(self, metric: Any, outputs: torch.Tensor, targets: torch.Tensor) -> None:
            metric.update(outputs.detach(), targets)

    def make(folder: Path) -> Fit:
        val = torchmetrics.wrappers.MinMaxMetric(torchmetrics.MeanAbsoluteError())
        return Errors(folder, train=torchmetrics.MeanAbsoluteError(), val=val)

    make(tmp_path / "whole").train_on(TRAIN, VAL)
    run_in_pieces(tmp_path / "pieces", make)
    told = metrics(tmp_path / "whole")
    assert metrics(tmp_path / "pieces") == told
    validations = [record for record in told if record["event"] == "validation"]
    raw = [record["val_targets_raw"] for record in validations]
    assert len(set(raw)) > 1
    assert (validations[-1]["val_targets_min"], validations[-1]["val_targets_max"]) == (min(raw), max(raw))


def state_of(metric: Any) -> MetricState:
    objects = MetricObjects()
    objects.add("val", "targets", metric)
    (state,) = objects.states(torch.device("cpu")).values()
    assert isinstance(state, MetricState)
    return state


VALUES = st.lists(st.floats(-100.0, 100.0, width=32), max_size=4)
SHARES = st.lists(VALUES, min_size=1, max_size=4)
"""What each of some ranks sees before, or after, their number changes."""


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
@settings(deadline=None, max_examples=60)
@given(before=SHARES, after=SHARES)
def test_other_numbers_of_ranks_compute_over_every_value_once(
    before: list[list[float]], after: list[list[float]]
) -> None:
    torchmetrics = importlib.import_module("torchmetrics")
    every = [value for values in (*before, *after) for value in values]
    assume(len(every) > 1)

    def make() -> tuple[Any, MetricState]:
        metric = torchmetrics.MetricCollection(
            {
                "sum": torchmetrics.SumMetric(),
                "mean": torchmetrics.MeanMetric(),
                "least": torchmetrics.MinMetric(),
                "most": torchmetrics.MaxMetric(),
                "all": torchmetrics.CatMetric(),
                "error": torchmetrics.MinMaxMetric(torchmetrics.SumMetric()),
            }
        )
        return metric, state_of(metric)

    def shown(share: list[list[float]], states: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        shown_to = []
        for rank, values in enumerate(share):
            metric, state = make()
            if states is not None:
                assert not state.is_lossy(states)
                state.load_state_dict(state.merged(states, is_first=rank == 0))
            for value in values:
                metric.update(torch.tensor(value))
            shown_to.append(state.state_dict())
        return shown_to

    metric, state = make()
    state.load_state_dict(state.merged(shown(after, shown(before, None)), is_first=True))
    alone, _ = make()
    for value in every:
        alone.update(torch.tensor(value))
    computed, expected = metric.compute(), alone.compute()
    assert sorted(computed.pop("all").tolist()) == sorted(expected.pop("all").tolist())
    assert {name: value.item() for name, value in computed.items()} == {
        name: pytest.approx(value.item(), rel=1e-4, abs=1e-3) for name, value in expected.items()
    }


def scores(torchmetrics: Any) -> Any:
    """One that sums up, and one that keeps everything: predictions of three classes, and integers."""
    of_three = {"num_classes": 3, "validate_args": False}
    return torchmetrics.MetricCollection(
        {
            "accuracy": torchmetrics.classification.MulticlassAccuracy(**of_three),
            "recall": torchmetrics.classification.MulticlassRecall(**of_three),
            "auroc": torchmetrics.classification.MulticlassAUROC(thresholds=None, **of_three),
        }
    )


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
@pytest.mark.parametrize("seen", [0, 1, 3])
def test_what_only_stands_in_is_not_collected(seen: int) -> None:
    torchmetrics = importlib.import_module("torchmetrics")
    generator = torch.Generator().manual_seed(seen)
    batches = [
        (torch.randn(5, 3, generator=generator), torch.randint(3, (5,), generator=generator)) for _ in range(seen + 1)
    ]
    metric, expected = scores(torchmetrics), scores(torchmetrics)
    reader = Reader(None, torch.device("cpu"), lambda: None, factor=1.0)  # type: ignore[arg-type]
    step = without_stand_ins(lambda batch, number: metric.update(*batch) or {}, reader, [state_of(metric)])
    for number, batch in enumerate(batches[:seen]):
        step(batch, number)
        expected.update(*batch)
    reader.factor = 0.0
    step(batches[seen], seen)
    left = metric.state_dict()
    assert [(part.shape[1:], part.dtype) for part in left["auroc.preds"][:1]] == [((3,), torch.float32)]
    assert [(part.shape[1:], part.dtype) for part in left["auroc.target"][:1]] == [((), torch.int64)]
    if seen:
        assert metric.compute() == expected.compute()
    else:
        assert sum(map(len, left["auroc.preds"])) == sum(map(len, left["auroc.target"])) == 0
        assert not left["accuracy.tp"].any()


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
def test_a_rank_that_begins_with_nothing_has_it_in_the_type_and_shape_of_the_others() -> None:
    torchmetrics = importlib.import_module("torchmetrics")
    metric = scores(torchmetrics)
    state = state_of(metric)
    fresh = state.state_dict()
    metric.update(torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]))
    taken = state.merged([fresh, state.state_dict()], is_first=False)["collected"]
    assert [(part.shape, part.dtype) for part in taken["auroc.preds"]] == [((0, 3), torch.float32)]
    assert [(part.shape, part.dtype) for part in taken["auroc.target"]] == [((0,), torch.int64)]


@pytest.mark.skipif(not HAS_TORCHMETRICS, reason="torchmetrics is not installed")
def test_what_cannot_be_brought_together_stays_with_the_first_rank_and_is_told() -> None:
    torchmetrics = importlib.import_module("torchmetrics")

    def collected(values: list[float]) -> tuple[MetricState, dict[str, Any]]:
        metric = torchmetrics.PearsonCorrCoef()  # whose states torchmetrics brings together in its compute()
        state = state_of(metric)
        if values:
            metric.update(torch.tensor(values), torch.tensor(values[::-1]))
        return state, state.state_dict()

    (state, first), (_, second), (_, nothing) = (collected(values) for values in ([1.0, 2.0, 4.0], [3.0, 5.0], []))
    assert state.is_lossy([first, second])
    assert not state.is_lossy([first, nothing])
    assert state.merged([first, second], is_first=True)["collected"] == first["collected"]
    assert state.merged([first, second], is_first=False)["collected"] == nothing["collected"]


def test_a_metric_of_ones_own_goes_on_on_the_first_rank_alone() -> None:
    state = state_of(Range())
    states = [{"collected": {"values": values}, "updates": [], "results": []} for values in ([1.0], [2.0])]
    assert state.merged(states, is_first=True)["collected"] == {"values": [1.0]}
    assert state.merged(states, is_first=False)["collected"] == {"values": []}
    assert state.is_lossy(states)
    assert not state.is_lossy(states[:1])
