from __future__ import annotations

import copy
import json
import math
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from mtf_trainer.builders import build_optimizer, build_scheduler, make_loader, optimizer_steps
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.run_config import RunConfig
from mtf_utils.settings import SettingsError


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))


def run(**sections: Any) -> dict[str, Any]:
    return {"training": {"learning_rate": 0.01, "batch_size": 4}} | sections


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[torch.Tensor]:
    """The weights after a few steps on fixed data."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(5, 3, generator=generator)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in net.parameters()]


OPTIMIZERS: list[tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = [
    ({"name": "adam", "amsgrad": True}, torch.optim.Adam, {"amsgrad": True}),
    (
        {"name": "AdamW", "weight_decay": 0.05, "betas": [0.8, 0.99], "eps": 1e-7},
        torch.optim.AdamW,
        {"weight_decay": 0.05, "betas": (0.8, 0.99), "eps": 1e-7},
    ),
    ({"name": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ({"name": "RMSprop", "alpha": 0.9, "centered": True}, torch.optim.RMSprop, {"alpha": 0.9, "centered": True}),
    ({"name": "adagrad", "lr_decay": 0.1}, torch.optim.Adagrad, {"lr_decay": 0.1}),
    ({"name": "NADAM"}, torch.optim.NAdam, {}),
    ({"name": "radam", "decoupled_weight_decay": True}, torch.optim.RAdam, {"decoupled_weight_decay": True}),
    ({"name": "adamax"}, torch.optim.Adamax, {}),
    ({"name": "adadelta", "rho": 0.8}, torch.optim.Adadelta, {"rho": 0.8}),
    ({"name": "asgd", "t0": 2.0}, torch.optim.ASGD, {"t0": 2.0}),
    ({"name": "rprop", "etas": [0.4, 1.3]}, torch.optim.Rprop, {"etas": (0.4, 1.3)}),
    ({"name": "adafactor", "eps": [None, 1e-2]}, torch.optim.Adafactor, {"eps": (None, 1e-2)}),
    ({"name": "sgd", "momentum": None, "foreach": None}, torch.optim.SGD, {}),
]


@pytest.mark.parametrize(("section", "kind", "arguments"), OPTIMIZERS)
def test_an_optimizer_trains_as_the_one_built_directly(
    section: dict[str, Any], kind: type[torch.optim.Optimizer], arguments: dict[str, Any]
) -> None:
    ours, theirs = model(), model()
    built = build_optimizer(ours, run(optimizer=section))
    direct = kind(theirs.parameters(), lr=0.01, **arguments)  # type: ignore[call-arg]
    assert type(built) is kind
    assert built.state_dict()["param_groups"] == direct.state_dict()["param_groups"]
    for mine, reference in zip(trained(ours, built), trained(theirs, direct), strict=True):
        assert torch.equal(mine, reference)


def test_parameters_may_come_as_iterator_or_as_groups() -> None:
    net = model()
    settings = run(optimizer={"name": "sgd", "momentum": 0.5})
    assert build_optimizer(net.parameters(), settings).state_dict() == build_optimizer(net, settings).state_dict()
    groups = [{"params": net[0].parameters(), "lr": 0.5}, {"params": net[2].parameters(), "momentum": 0.0}]
    built = build_optimizer(groups, settings)
    assert [(group["lr"], group["momentum"]) for group in built.param_groups] == [(0.5, 0.5), (0.01, 0.0)]


def test_the_learning_rate_has_the_default_of_the_schema() -> None:
    assert build_optimizer(model(), {"optimizer": {"name": "sgd"}}).param_groups[0]["lr"] == 0.001


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (run(), r"optimizer: expected a mapping, found null"),
        (run(optimizer={}), r"optimizer\.name: expected one of .*adamw.*found null"),
        (run(optimizer={"name": "adamv"}), r"optimizer\.name: .*did you mean 'adam"),
        (run(optimizer={"name": "Optimizer"}), r"optimizer\.name: expected one of"),
        (run(optimizer={"name": "LBFGS"}), r"optimizer\.name: LBFGS evaluates the loss several times"),
        (run(optimizer={"name": "adam", "lr": 1}), r"optimizer\.lr: the learning rate belongs to training"),
        (run(optimizer={"name": "sgd", "params": 1}), r"optimizer\.params: SGD has no such argument"),
        (run(optimizer={"name": "sgd", "betas": [0, 1]}), r"optimizer\.betas: SGD has no such argument; it has mome"),
        (
            run(optimizer={"name": "adam", "weight_decai": 1}),
            r"optimizer\.weight_decai: .*did you mean 'weight_decay'",
        ),
        (run(optimizer={"name": "sgd", "momentum": -1}), r"optimizer: SGD cannot be built with momentum=-1: Invalid"),
        ({"training": {"learning_rate": "1e-3"}, "optimizer": {"name": "sgd"}}, r"training\.learning_rate: expected"),
        ({"training": 1, "optimizer": {"name": "sgd"}}, r"training: expected a mapping"),
    ],
)
def test_optimizer_settings_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_optimizer(model(), settings)


def test_all_wrong_arguments_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        build_optimizer(model(), run(optimizer={"name": "sgd", "beta": 1, "momentum": 0.1, "gamma": 2}))
    assert [problem.path[1] for problem in error.value.problems] == ["beta", "gamma"]


def formula(name: str, step: int, lr: float, *, warmup: int, total: int, min_lr: float) -> float:
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    p = (step - warmup) / (total - warmup) if step < total else 1.0
    decay = {"constant": 1.0, "linear": 1 - p, "cosine": (1 + math.cos(math.pi * p)) / 2}[name]
    return min_lr + (lr - min_lr) * decay


def two_groups(lrs: tuple[float, float] = (0.5, 0.02)) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs])


def advance(scheduler: Any, steps: int) -> list[list[float]]:
    """The learning rates of each of the next optimizer steps."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@given(
    name=st.sampled_from(["constant", "linear", "cosine"]),
    total=st.integers(1, 30),
    warmup_share=st.floats(0, 1),
    min_lr=st.floats(0, 0.02),
)
def test_schedules_follow_the_formula_in_every_group(name: str, total: int, warmup_share: float, min_lr: float) -> None:
    warmup = int(total * warmup_share)
    section = {"name": name, "warmup_steps": warmup, "min_lr": min_lr}
    scheduler = build_scheduler(two_groups(), run(scheduler=section), total)
    for step, rates in enumerate(advance(scheduler, total + 3)):
        for rate, lr in zip(rates, (0.5, 0.02), strict=True):
            expected = formula(name, step, lr, warmup=warmup, total=total, min_lr=min_lr)
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_known_points_of_a_schedule() -> None:
    section = {"name": "linear", "warmup_steps": 3, "min_lr": 0.1}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = [rate for (rate,) in advance(build_scheduler(optimizer, run(scheduler=section), 8), 10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.82, 0.64, 0.46, 0.28, 0.1, 0.1])


@pytest.mark.parametrize("stop", range(12))
def test_a_schedule_goes_on_from_its_state_bit_for_bit(stop: int) -> None:
    settings = run(scheduler={"name": "cosine", "warmup_steps": 4, "min_lr": 0.001})
    whole = advance(build_scheduler(two_groups(), settings, 12), 12)

    first = build_scheduler(two_groups(), settings, 12)
    assert first is not None
    advance(first, stop)
    state = json.loads(json.dumps({"scheduler": first.state_dict(), "optimizer": first.optimizer.state_dict()}))

    second = build_scheduler(two_groups(), settings, 12)
    assert second is not None
    second.optimizer.load_state_dict(state["optimizer"])
    second.load_state_dict(state["scheduler"])
    assert advance(second, 12 - stop) == whole[stop:]


def test_a_run_that_goes_on_for_longer_follows_the_longer_schedule() -> None:
    settings = run(scheduler={"name": "linear"})
    short = build_scheduler(two_groups(), settings, 10)
    assert short is not None
    advance(short, 10)
    state = copy.deepcopy(short.state_dict())

    longer = build_scheduler(two_groups(), settings, 20)
    assert longer is not None
    longer.load_state_dict(state)
    longer.optimizer.load_state_dict(short.optimizer.state_dict())
    advance(longer, 1)
    reference = advance(build_scheduler(two_groups(), settings, 20), 20)
    assert advance(longer, 9) == reference[11:]


def test_no_schedule_is_none() -> None:
    assert build_scheduler(two_groups(), run(), 10) is None
    assert build_scheduler(two_groups(), run(scheduler=None), 10) is None


@pytest.mark.parametrize(
    ("section", "total", "message"),
    [
        ({"name": "linear", "warmup_steps": 11}, 10, r"scheduler\.warmup_steps: 11 is longer than .* 10 optimizer"),
        ({"name": "linear", "warmup_steps": -1}, 10, r"scheduler\.warmup_steps: expected a number >= 0"),
        (
            {"name": "linear", "min_lr": 0.03},
            10,
            r"min_lr: 0\.03 is above the learning rate 0\.02 of parameter group 1",
        ),
        ({"name": "linear", "min_lr": -0.1}, 10, r"scheduler\.min_lr: expected a number >= 0"),
        ({"name": "cosin"}, 10, r"scheduler\.name: .*did you mean 'cosine'"),
        ({"name": "linear", "warmup": 3}, 10, r"scheduler\.warmup: .*did you mean 'warmup_steps'"),
        ({"warmup_steps": 3}, 10, r"scheduler\.name: this key is required"),
        ("cosine", 10, r"scheduler: expected a mapping"),
        ({"name": "linear"}, 0, r"total_steps: expected at least one"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(section: Any, total: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_scheduler(two_groups(), run(scheduler=section), total)


@pytest.mark.parametrize(
    ("batches", "settings", "steps"),
    [
        (10, {"epochs": 3}, 30),
        (10, {"epochs": 3, "gradient_accumulation_steps": 4}, 9),
        (8, {"epochs": 3, "gradient_accumulation_steps": 4}, 6),
        (1, {"epochs": 2, "gradient_accumulation_steps": 16}, 2),
        (10, {"epochs": 3, "max_steps": 7}, 7),
        (10, {"epochs": 3, "max_steps": 70}, 30),
    ],
)
def test_the_steps_of_a_training(batches: int, settings: dict[str, Any], steps: int) -> None:
    assert optimizer_steps(batches, GenericTrainerConfig(**settings)) == steps


def test_a_loader_without_batches_has_no_steps() -> None:
    with pytest.raises(ValueError, match="at least one batch, found 0"):
        optimizer_steps(0, GenericTrainerConfig())


SAMPLES = TensorDataset(torch.arange(10))


class Stream(IterableDataset[int]):
    """Samples without an index."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


def batches(loader: DataLoader[Any]) -> list[list[int]]:
    return [(batch[0] if isinstance(batch, list) else batch).tolist() for batch in loader]


def test_training_data_is_shuffled_and_keeps_its_last_batch() -> None:
    torch.manual_seed(3)
    ours = batches(make_loader(SAMPLES, run(), train=True))
    torch.manual_seed(3)
    assert ours == batches(DataLoader(SAMPLES, batch_size=4, shuffle=True))
    assert [len(batch) for batch in ours] == [4, 4, 2]
    assert [sample for batch in ours for sample in batch] != list(range(10))


@pytest.mark.parametrize("dataset", [SAMPLES, Stream()], ids=["map-style", "iterable"])
def test_validation_data_and_streams_keep_their_order(dataset: Dataset[Any]) -> None:
    train = isinstance(dataset, IterableDataset)
    assert batches(make_loader(dataset, run(), train=train)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_workers_get_their_options_and_no_workers_none() -> None:
    performance = {"num_workers": 2, "prefetch_factor": 3, "persistent_workers": False, "pin_memory": False}
    loader = make_loader(SAMPLES, run(performance=performance), train=False)
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, False)
    assert loader.pin_memory is False
    alone = make_loader(SAMPLES, run(performance=performance | {"num_workers": 0}), train=False)
    assert (alone.num_workers, alone.prefetch_factor, alone.persistent_workers) == (0, None, False)
    more = make_loader(SAMPLES, run(), train=False, num_workers=1)
    assert (more.num_workers, more.prefetch_factor, more.persistent_workers) == (1, 2, True)


def test_memory_is_pinned_only_for_an_accelerator() -> None:
    loader = make_loader(SAMPLES, run(performance={"pin_memory": True}), train=True)
    assert loader.pin_memory is torch.accelerator.is_available()


def test_overrides_win() -> None:
    loader = make_loader(SAMPLES, run(), train=True, drop_last=True, shuffle=False, batch_size=3, collate_fn=len)
    assert list(loader) == [3, 3, 3]
    sampled = make_loader(SAMPLES, run(), train=True, sampler=SequentialSampler(SAMPLES))
    assert batches(sampled)[0] == [0, 1, 2, 3]
    listed = make_loader(SAMPLES, run(), train=True, batch_sampler=[[9], [1, 2]])
    assert batches(listed) == [[9], [1, 2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"batch_size": 0}}, r"training\.batch_size: expected a number >= 1, found 0"),
        ({"training": {"batch_size": 2.5}}, r"training\.batch_size: expected an integer"),
        (run(performance={"num_worker": 2}), r"performance\.num_worker: .*did you mean 'num_workers'"),
    ],
)
def test_loader_settings_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_loader(SAMPLES, settings, train=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": {"name": "${env:TOKEN}"}},
        {"scheduler": {"name": "${env:TOKEN}"}},
        {"training": {"batch_size": "${env:TOKEN}"}},
        {"performance": {"num_workers": "${env:TOKEN}"}},
        {"checkpoint": {"mode": "${env:TOKEN}"}},
        {"preemption": {"signals": ["${env:TOKEN}"]}},
    ],
)
def test_no_error_shows_what_the_environment_holds(wrong, monkeypatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-secret")
    written = {"experiment_name": "e", "optimizer": {"name": "sgd"}} | wrong
    config = RunConfig(written)

    def build() -> None:
        GenericTrainerConfig.from_experiment(written)
        build_scheduler(build_optimizer(model(), config), config, 10)
        make_loader(TensorDataset(torch.zeros(2)), config, train=True)

    with pytest.raises(SettingsError) as caught:
        build()
    text = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in text
    assert "found what '${env:TOKEN}' stands for" in text
