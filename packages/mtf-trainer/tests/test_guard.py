"""A run that cannot get on ends with status 76 and says where; one that does is never stopped."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import CheckpointConfig, GenericTrainer, GenericTrainerConfig, TrainingStopped, opening
from mtf_trainer.guard import AttemptRecord, Fault, Guard, Ledger, Place, circumstances
from mtf_trainer.guard.ledger import MAX_KEPT, Ending, verdict
from mtf_trainer.guard.trail import Trail, read_mark
from mtf_trainer.loop import Loop
from mtf_trainer.phases import TrainerPhase
from mtf_trainer.state import ResumeState, TrainMicroState

pytestmark = pytest.mark.timeout(900)  # a busy machine is no failure

SCRIPT = Path(__file__).with_name("guarded_runs.py")

IN_BATCH_5 = "batch 5 of epoch 1, in {}, samples [12, 13, 14]"
SILENT = "ended without a word"

FAILING = {
    "dataset": "batch 5 of epoch 1, in train_batch_load, sample 13; ValueError: no such image",
    "dataset+later": "batch 5 of epoch 1, in train_batch_load, sample 13; ValueError: no such image",
    "dataset+shuffle+workers": "in train_batch_load, sample 13; ValueError: no such image",
    "dataset+stream": "batch 5 of epoch 1, in train_batch_load, sample number 13; ValueError: no such image",
    "dataset+stream+workers": "in train_batch_load, sample number 6 of worker 1; ValueError: no such image",
    "collate+workers": IN_BATCH_5.format("train_batch_load") + "; ValueError: no such image",
    "step": IN_BATCH_5.format("train_batch_forward") + "; ValueError: no such image",
    "backward": IN_BATCH_5.format("train_batch_backward") + "; ValueError: no such image",
    "callback": IN_BATCH_5.format("train_batch_end") + "; TrainerError: Clumsiness.on_batch_end raised ValueError",
    "validation": "batch 5 of validation 1, in val_batch_load, sample 13; ValueError: no such image",
    "validation+workers": "batch 5 of validation 1, in val_batch_load, sample 13; ValueError: no such image",
}
"""What a case of `guarded_runs.py` is to say in the end, after three exceptions."""

DYING = {
    "step-dies": (-9, f"{IN_BATCH_5.format('train_batch_forward')}; {SILENT}"),
    "step-crashes": (-11, f"{IN_BATCH_5.format('train_batch_forward')}; {SILENT}"),
    "dataset-dies": (-9, f"{IN_BATCH_5.format('train_batch_load')}; {SILENT}"),
    "validation-dies": (-9, f"batch 5 of validation 1, in val_batch_forward, samples [12, 13, 14]; {SILENT}"),
}
"""The same of those that can say nothing: the status of each attempt, and what the one after them says."""

STOPPED = {
    "unproductive": "3 attempts in a row came no further than before, nor to a checkpoint",
    "too-often": "preempted 3 times, more than preemption.max_preemptions=2",
}
"""The same of those that are told to stop."""


def start(folder: Path, *arguments: str) -> dict[str, list[int]]:
    command = [sys.executable, str(SCRIPT), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=840)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return outcome


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("guarded")
    return folder, start(folder, *FAILING, *DYING, *STOPPED, "dataset-crashes+workers", "killed")


def said(folder: Path, case: str) -> str:
    return (folder / f"{case}.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILING)
def test_the_third_exception_at_one_batch_is_final_and_names_it(runs: Any, case: str) -> None:
    folder, statuses = runs
    assert statuses[case] == [1, 1, 76], said(folder, case)
    assert FAILING[case] in said(folder, case)
    assert said(folder, case).count("Traceback") >= 3  # the last exception is shown as well


@pytest.mark.slow
def test_the_batch_that_kills_a_loader_worker_is_named(runs: Any) -> None:
    folder, statuses = runs
    case = "dataset-crashes+workers"
    # torch tells of a worker's death wherever the process happens to be, once even before the loader has begun
    assert statuses[case] in ([1, 1, 76], [1, 1, 1, 76], [1, 1, 1, 1, 76]), said(folder, case)
    assert IN_BATCH_5.format("train_batch_load") in said(folder, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", DYING)
def test_the_start_after_three_deaths_at_one_batch_names_it(runs: Any, case: str) -> None:
    folder, statuses = runs
    status, place = DYING[case]
    # The first death may be known too roughly to be counted: where steps take microseconds, not every batch is marked.
    assert statuses[case] in ([status] * 3 + [76], [status] * 4 + [76]), said(folder, case)
    assert place in said(folder, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED)
def test_being_told_to_stop_too_often_is_final(runs: Any, case: str) -> None:
    folder, statuses = runs
    assert statuses[case] == [75, 75, 76], said(folder, case)
    assert STOPPED[case] in said(folder, case)


@pytest.mark.slow
def test_attempts_that_are_killed_ever_later_are_no_reason_to_stop(runs: Any) -> None:
    folder, statuses = runs
    assert statuses["killed"][-1] == 0, said(folder, "killed")
    assert set(statuses["killed"][:-1]) == {-9}


@pytest.mark.slow
def test_one_more_start_after_the_last_tries_again(runs: Any) -> None:
    folder, _ = runs
    assert start(folder, "dataset", "--attempts", "1") == {"dataset": [1]}
    assert start(folder, "step-dies", "--attempts", "1") == {"step-dies": [-9]}


@pytest.mark.slow
def test_a_hundred_productive_preemptions_are_no_reason_to_stop(tmp_path: Path) -> None:
    assert start(tmp_path, "productive", "--attempts", "100") == {"productive": [75] * 100}
    attempts = json.loads((tmp_path / "productive" / "ledger.json").read_text())["attempts"]
    assert [attempt["ending"] for attempt in attempts] == ["preempted"] * 100


def train(folder: Path, *, bad: int | None, epochs: int = 1) -> None:
    """In this process: fails when it comes to batch `bad`."""

    def step(trainer: GenericTrainer, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        if batch_idx == bad:
            raise ValueError("bad")
        return {"loss": trainer.model(batch[0]).square().mean()}

    saving = CheckpointConfig(checkpoint_dir=str(folder), save_every_n_steps=1, save_top_k=0)
    trainer = GenericTrainer(GenericTrainerConfig(epochs=epochs, seed=1, checkpoint=saving), training_step=step)
    model = nn.Linear(1, 1)
    loader = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)
    trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes the trainer take this process for another one."""
    count = iter(range(1000))
    return lambda: monkeypatch.setattr("mtf_trainer.guard.guard._PROCESS", f"process {next(count)}")


def fail(folder: Path, times: int, next_process: Callable[[], None], *, bad: int = 2) -> None:
    for _ in range(times):
        next_process()
        with pytest.raises(ValueError, match="bad"):
            train(folder, bad=bad)


def test_calls_in_one_process_are_one_attempt(tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(ValueError, match="bad"):
            train(tmp_path, bad=2)
    assert len(Ledger.read(tmp_path / "ledger.json").attempts) == 1


def test_the_cause_is_chained_and_the_count_begins_anew(tmp_path: Path, processes: Callable[[], None]) -> None:
    for _ in range(2):
        fail(tmp_path, 2, processes)
        processes()
        with pytest.raises(TrainingStopped, match=r"batch 3 of epoch 1.*start it once more") as stopped:
            train(tmp_path, bad=2)
        assert stopped.value.code == 76
        assert isinstance(stopped.value.__cause__, ValueError)


def test_another_batch_is_another_matter(tmp_path: Path, processes: Callable[[], None]) -> None:
    for bad in (1, 2, 3):
        fail(tmp_path, 1, processes, bad=bad)
    processes()
    train(tmp_path, bad=None)
    assert [attempt.ending for attempt in Ledger.read(tmp_path / "ledger.json").attempts][-1] is Ending.FINISHED


def test_a_change_of_circumstances_begins_anew(
    tmp_path: Path, processes: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(tmp_path, 2, processes)
    monkeypatch.setenv("MTF_TOKEN", "submitted-again")
    fail(tmp_path, 2, processes)
    processes()
    with pytest.raises(TrainingStopped):
        train(tmp_path, bad=2)


def test_changed_code_is_another_circumstance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "guarded_module.py"
    module.write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "guarded_module", raising=False)
    before = circumstances({})
    __import__("guarded_module")
    loaded = circumstances({})
    assert loaded != before
    assert circumstances({}) == loaded
    module.write_text("value = 12\n")
    assert circumstances({}) not in (before, loaded)
    assert circumstances({"settings": 1}) != circumstances({"settings": 2})


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 9}', b'{"attempts": [{}]}', bytes(range(256))])
def test_a_damaged_ledger_is_begun_anew(tmp_path: Path, processes: Callable[[], None], content: bytes) -> None:
    fail(tmp_path, 2, processes)
    (tmp_path / "ledger.json").write_bytes(content)
    fail(tmp_path, 2, processes)
    assert len(Ledger.read(tmp_path / "ledger.json").attempts) == 2


def test_a_ledger_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").mkdir()
    (tmp_path / "ledger.trail").mkdir()
    train(tmp_path, bad=None)


def test_another_training_in_the_same_folder_has_its_own_count(tmp_path: Path, processes: Callable[[], None]) -> None:
    fail(tmp_path, 2, processes)
    for checkpoint in tmp_path.glob("ckpt-*"):
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    fail(tmp_path, 2, processes)
    assert len(Ledger.read(tmp_path / "ledger.json").attempts) == 2


def test_a_finished_run_is_no_attempt(tmp_path: Path, processes: Callable[[], None]) -> None:
    train(tmp_path, bad=None)
    before = (tmp_path / "ledger.json").read_bytes()
    processes()
    train(tmp_path, bad=None)
    assert (tmp_path / "ledger.json").read_bytes() == before
    assert not (tmp_path / "ledger.trail").exists()
    train(tmp_path, bad=None, epochs=2)
    assert len(Ledger.read(tmp_path / "ledger.json").attempts) == 2


@pytest.mark.parametrize("aborted", [KeyboardInterrupt, SystemExit])
def test_what_a_person_ends_is_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aborted: type[BaseException]
) -> None:
    def interrupted(*_: Any) -> None:
        raise aborted

    monkeypatch.setattr(opening, "enter", interrupted)
    with pytest.raises(aborted):
        train(tmp_path, bad=None)
    assert Ledger.read(tmp_path / "ledger.json").attempts == []


def test_places_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any) -> None:
    boundaries, places = Loop.boundaries, []

    def watched(self: Loop) -> Any:
        for phase in boundaries(self):
            places.append(Place.of(self.state))
            yield phase

    monkeypatch.setattr(Loop, "boundaries", watched)
    _, fit = task.prepare(tmp_path)
    fit()
    assert len(places) > 100
    assert not any(earlier.is_beyond(later) for earlier, later in itertools.pairwise(places))
    assert places[-1].is_beyond(places[0])


def record(ending: Ending, *, batch: int | None = None, advanced: bool = False, **more: Any) -> AttemptRecord:
    fault = None if batch is None else Fault(stage="train", epoch=0, batch=batch, phase="train_batch_load")
    plain: dict[str, Any] = {"process": "p", "host": "h", "pid": 1, "circumstances": "same", "started_at": "now"}
    return AttemptRecord(**plain, start=Place(), ending=ending, fault=fault, advanced=advanced, **more)


FAILED, PREEMPTED, STOP = Ending.FAILED, Ending.PREEMPTED, Ending.STOPPED


@pytest.mark.parametrize(
    ("attempts", "stops"),
    [
        ([], False),
        ([record(FAILED, batch=4)] * 2, False),
        ([record(FAILED, batch=4)] * 3, True),
        ([record(FAILED, batch=4, advanced=True)] * 3, True),  # a checkpoint before the batch does not help
        ([record(FAILED, batch=4, advanced=True), *[record(PREEMPTED, advanced=True)] * 5] * 3, True),
        ([record(FAILED, batch=4, advanced=True), record(FAILED, batch=5, advanced=True)] * 3, False),
        ([record(FAILED, batch=batch) for batch in (3, 5, 4)], True),  # nothing comes of it
        ([record(PREEMPTED)] * 3, True),
        ([record(PREEMPTED), record(PREEMPTED, advanced=True), record(PREEMPTED)] * 9, False),
        ([record(Ending.NONE), record(PREEMPTED), record(FAILED, batch=1)], True),
        ([record(FAILED, batch=4, advanced=True), record(PREEMPTED, advanced=True, end=Place(batch=5))] * 3, False),
        ([record(FAILED, batch=4), record(FAILED, batch=4), record(STOP), record(FAILED, batch=4)], False),
        ([record(FAILED, batch=4), record(FAILED, batch=4), record(FAILED, batch=4, anew=True)], False),
    ],
)
def test_verdicts(attempts: Sequence[AttemptRecord], stops: bool) -> None:
    assert (verdict(attempts) is not None) == stops


def test_deaths_in_different_phases_of_one_batch_come_from_outside() -> None:
    def death(phase: str | None) -> AttemptRecord:
        silent = record(Ending.NONE, advanced=True)
        silent.fault = Fault(stage="train", epoch=0, batch=4, phase=phase)
        return silent

    assert verdict([death(None), death("train_batch_forward"), death("train_batch_forward")]) is not None
    assert verdict([death(None), death("train_batch_forward"), death("train_batch_end")]) is None


def test_a_rough_first_death_counts_where_it_fits() -> None:
    rough = record(Ending.NONE, end=Place(batch=3, step=3), lead=5, advanced=True)
    exact = [record(Ending.NONE, batch=7, end=Place(batch=7, step=7))] * 2
    assert verdict([rough, *exact]) is not None
    elsewhere = record(Ending.NONE, end=Place(batch=1, step=1), lead=5, advanced=True)
    assert verdict([elsewhere, *exact]) is None


ENDINGS = st.sampled_from(list(Ending))


@given(st.lists(st.builds(record, ENDINGS, batch=st.none() | st.integers(0, 2), advanced=st.booleans()), max_size=12))
def test_attempts_that_advance_and_fail_nowhere_are_never_too_many(attempts: list[AttemptRecord]) -> None:
    productive = [each for each in attempts if each.advanced and each.fault is None]
    assert verdict(productive) is None
    assert verdict([*attempts, record(STOP)]) is None


def test_the_ledger_keeps_the_latest() -> None:
    ledger = Ledger()
    for number in range(MAX_KEPT + 5):
        ledger.add(record(PREEMPTED, number=number))
    assert [each.number for each in ledger.attempts] == list(range(5, MAX_KEPT + 5))


class Clock:
    """Goes on by what was given to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-5  # the cost of a look
        return self.now


def follow(trail: Trail, clock: Clock, *, batches: int, batch_s: float) -> list[int]:
    """Lets batches pass and returns which of them were marked."""
    marked = []
    assert trail.state is not None
    assert trail.state.train is not None
    for batch in range(batches):
        clock.now += batch_s
        trail.state.train.batch_idx = batch
        trail.batch()
        mark = read_mark(trail.path)
        if mark is not None and mark.place.batch == batch:
            marked.append(batch)
    return marked


@pytest.mark.parametrize(("batch_s", "every"), [(0.1, 1), (1e-4, 20), (0.0, 1000)])
def test_marks_are_left_as_often_as_they_cost_nothing(tmp_path: Path, batch_s: float, every: int) -> None:
    clock = Clock()
    trail = Trail(tmp_path / "trail", clock=clock)
    trail.state = ResumeState(TrainerPhase.TRAIN_BATCH_LOAD, 0, 0, train=TrainMicroState())
    trail.open("me", closely_until=None, samples=lambda fault: None)
    marked = follow(trail, clock, batches=200, batch_s=batch_s)
    assert len(marked) <= 3 + 200 / every * 1.5
    assert len(marked) >= min(2, 200 / every)
    mark = read_mark(trail.path)
    assert mark is not None
    assert mark.process == "me"
    assert (mark.fault is None) == (every > 1)
    assert marked[-1] + mark.lead + 1 >= 200  # the next mark was due later


def test_close_marks_end_behind_the_place(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail")
    trail.state = ResumeState(TrainerPhase.TRAIN_BATCH_LOAD, 0, 0, train=TrainMicroState())
    trail.open("me", closely_until=Place(batch=1), samples=lambda fault: [fault["batch"]])
    seen = []

    def phases() -> Any:
        for batch in range(5):
            trail.state.train.batch_idx = batch
            yield TrainerPhase.TRAIN_BATCH_FORWARD

    for _ in trail.boundaries(phases()):
        mark = read_mark(trail.path)
        seen.append((mark.place.batch, mark.fault.samples))
    assert seen == [(0, [0]), (1, [1]), (1, [1]), (1, [1]), (1, [1])]


@given(content=st.binary(max_size=300))
def test_a_damaged_trail_says_nothing(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.trail"
    path.write_bytes(content)
    assert read_mark(path) is None


def test_only_the_first_rank_keeps_the_ledger(tmp_path: Path) -> None:
    guard = Guard(tmp_path, writes=False)
    asked = {"circumstances": "", "is_new": True, "is_chosen": False, "samples": lambda fault: None}
    assert guard.begin(Place(), **asked) is None
    fault = Fault(stage="train", epoch=0, batch=0, phase="init")
    assert guard.failed(ValueError(), Place(), fault, saved=Place()) is None
    assert guard.preempted(Place(), moved=False) is None
    guard.withdraw()
    assert list(tmp_path.iterdir()) == []
