"""Loggers that follow the journal: tables, event files, one's own; and the images that they show."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtf_trainer import (
    CheckpointConfig,
    CsvLogger,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    LogRecord,
    TrainerError,
    TrainingCallback,
)
from mtf_trainer.journal import Journal
from mtf_trainer.loggers import build_loggers
from mtf_trainer.media import to_png
from mtf_trainer.progress import Progress
from mtf_trainer.state import ResumeState
from mtf_trainer.telemetry import Telemetry
from mtf_utils.rundir import read_metrics


def is_installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # W&B leaves folders of its name behind


needs_tensorboard = pytest.mark.skipif(not is_installed("tensorboard"), reason="tensorboard is not installed")

ASK_FOR_LOGGER = """
import importlib.machinery, sys
from pathlib import Path


class BesideFirst:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, ["."]) if name == sys.argv[2] else None


if sys.argv[3] == "hidden":
    sys.modules[sys.argv[2]] = None
else:
    sys.meta_path.insert(0, BesideFirst)
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers import build_loggers
build_loggers(GenericTrainerConfig.from_experiment({"logging": {"use_" + sys.argv[2]: True}}), Path(sys.argv[1]))
"""


def test_no_logger_is_made_unless_asked_for(tmp_path: Path) -> None:
    assert build_loggers(GenericTrainerConfig(), tmp_path) == []
    asked = GenericTrainerConfig(logging=LoggingConfig(use_csv=True))
    assert [type(logger) for logger in build_loggers(asked, tmp_path)] == [CsvLogger]


@pytest.mark.parametrize(
    ("name", "how"), [("wandb", "hidden"), ("wandb", "beside a folder that W&B left"), ("tensorboard", "hidden")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, name: str, how: str) -> None:
    if how != "hidden":
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", ASK_FOR_LOGGER, str(tmp_path), name, how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"TrainerError: logging.use_{name}: " in done.stderr
    assert f'pip install "mtf-trainer[{name}]"' in done.stderr


def test_importing_the_trainer_imports_no_logger(tmp_path: Path) -> None:
    check = "import sys, mtf_trainer; print([m for m in ('tensorboard', 'wandb', 'torchmetrics', 'tqdm.auto', 'csv')"
    check += " if m in sys.modules and m != 'csv'])"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Run:
    """Writes records as a training does, from wherever a checkpoint was taken."""

    def __init__(self, folder: Path, loggers: list[Any], offset: int | None = None) -> None:
        self.journal = Journal(folder / "metrics.jsonl", clock=lambda: 7.0)
        self.journal.open(offset)
        self.loggers = loggers
        for each in loggers:
            each.open(self.journal.path, None if offset is None else self.journal.records)

    def write(self, event: str, step: int, **values: Any) -> int:
        record = self.journal.write({"event": event, "epoch": 0, "step": step, **values})
        for each in self.loggers:
            each.log(record)
        return self.journal.flush()

    def close(self) -> None:
        for each in self.loggers:
            each.close()
            each.close()
        self.journal.close()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_table_has_a_column_for_every_name_whenever_it_comes_up(tmp_path: Path) -> None:
    run = Run(tmp_path, [CsvLogger()])
    run.write("train", 1, loss=0.1)
    run.write("validation", 1, val_loss=math.nan, note='with "quotes", and more')
    run.write("train", 2, loss=0.30000000000000004)
    run.close()
    at = {"epoch": "0", "time": "7.0"}
    assert table(tmp_path) == [
        {"event": "train", "step": "1", "loss": "0.1", **at},
        {"event": "validation", "step": "1", "note": 'with "quotes", and more', **at},
        {"event": "train", "step": "2", "loss": "0.30000000000000004", **at},
    ]


def test_no_name_of_a_table_is_a_formula_to_a_spreadsheet(tmp_path: Path) -> None:
    names = ["=cmd|'/C calc'!A0", "-1+2", "@x", "a=b"]
    run = Run(tmp_path, [CsvLogger()])
    offset = 0
    for step, name in enumerate(names):  # each of them widens the table, which is read for that
        offset = run.write("train", step, **{name: step})
    run.close()
    run = Run(tmp_path, [CsvLogger()], offset)
    run.close()
    found = [name for row in table(tmp_path) for name in row if name not in ("event", "epoch", "step", "time")]
    assert found == ["'=cmd|'/C calc'!A0", "'-1+2", "'@x", "a=b"]


@given(
    names=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
    cut=st.integers(0, 8),
    lost=st.integers(0, 400),
    late=st.booleans(),
)
def test_after_any_stop_the_table_is_that_of_the_journal(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], cut: int, lost: int, late: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run, offsets = Run(folder, [] if late else [CsvLogger()]), [0]
    for step, name in enumerate(names):
        offsets.append(run.write("train", step, **{name: step}))
    run.close()
    if not late:
        path = folder / "metrics.csv"
        path.write_bytes(path.read_bytes()[:-lost] if lost else path.read_bytes())
    cut = min(cut, len(names))
    run = Run(folder, [CsvLogger()], offsets[cut])
    for step, name in enumerate(names[cut:], cut):
        run.write("train", step, **{name: step})
    run.close()
    expected = [{key: str(value) for key, value in item.items()} for item in read_metrics(run.journal.path)]
    assert table(folder) == expected
    assert [row["step"] for row in expected] == [str(step) for step in range(len(names))]


def events(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and values of every event, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (path,) = (file for file in (folder / "tensorboard").iterdir() if file.stat().st_size)
    version, start, *found = (Event.FromString(data) for data in RawEventFileLoader(str(path)).Load())
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == start.session_log.START
    assert {event.wall_time for event in found} <= {7.0}
    return [(event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in found]


@needs_tensorboard
@given(
    size=st.integers(1, 6),
    cut=st.integers(0, 6),
    lost=st.integers(0, 200),
    how=st.sampled_from(["killed", "late", "lost"]),
)
def test_after_any_stop_an_event_file_has_every_record_once(
    tmp_path_factory: pytest.TempPathFactory, size: int, cut: int, lost: int, how: str
) -> None:
    from mtf_trainer import TensorBoardLogger

    folder = tmp_path_factory.mktemp("run")
    run, offsets = Run(folder, [] if how == "late" else [TensorBoardLogger()]), [0]
    for step in range(size):
        offsets.append(run.write("train", step, loss=step / 2, lr=0.5))
    run.close()
    if how == "lost":
        (path,) = (folder / "tensorboard").iterdir()
        path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - lost)])
    cut = min(cut, size)
    run = Run(folder, [TensorBoardLogger()], offsets[cut])
    for step in range(cut, size):
        run.write("train", step, loss=step / 2, lr=0.5)
    run.close()
    assert events(folder) == [(step, {"loss": step / 2, "lr": 0.5}) for step in range(size)]


@needs_tensorboard
def test_a_new_run_has_an_event_file_of_its_own(tmp_path: Path) -> None:
    from mtf_trainer import TensorBoardLogger

    for step in (1, 2):
        run = Run(tmp_path, [TensorBoardLogger()])
        run.write("epoch", step, train_loss=0.5, val_loss=math.nan)
        run.close()
    ((step, values),) = events(tmp_path)
    assert step == 2
    assert values.keys() == {"epoch/train_loss", "epoch/val_loss"}
    assert math.isnan(values["epoch/val_loss"])


@needs_tensorboard
def test_a_tensorboard_that_looks_on_follows_a_cut(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mtf_trainer import TensorBoardLogger

    run = Run(tmp_path, [TensorBoardLogger()])
    offsets = [run.write("train", step, loss=1.0) for step in range(5)]
    looking = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in looking.Scalars("loss")] == [(step, 1.0) for step in range(5)]
    for value in (2.0, 3.0):
        run.close()
        run = Run(tmp_path, [TensorBoardLogger()], offsets[2])
        offsets[3:] = [run.write("train", step, loss=value) for step in range(3, 9)]
        expected = [(step, 1.0 if step < 3 else value) for step in range(9)]
        assert [(event.step, event.value) for event in looking.Reload().Scalars("loss")] == expected
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # the emptied one is still there
    run.close()


@needs_tensorboard
def test_a_cut_that_was_killed_half_way_is_completed(tmp_path: Path) -> None:
    from mtf_trainer import TensorBoardLogger

    run = Run(tmp_path, [TensorBoardLogger()])
    offset = run.write("train", 1, loss=1.0)
    run.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.with_name(path.name.replace("0000000000", "0000000001")).write_bytes(path.read_bytes())
    Run(tmp_path, [TensorBoardLogger()], offset).close()
    assert events(tmp_path) == [(1, {"loss": 1.0})]


class Shows(TrainingCallback):
    """Logs what it is given when training ends."""

    def __init__(self, image: Any = None, **metrics: Any) -> None:
        self.image = image
        self.metrics = metrics

    def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
        if self.image is not None:
            trainer.log_image("sample", self.image)
        if self.metrics:
            trainer.log_metrics(self.metrics)


class Memory:
    """A logger of one's own."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def open(self, journal: Path, position: int | None) -> None:
        self.heard.append(position)

    def log(self, record: LogRecord) -> None:
        self.heard.append(dict(record))

    def close(self) -> None:
        self.heard.append("closed")


def train(folder: Path, *callbacks: TrainingCallback, loggers: tuple[Any, ...] = (), **logging: Any) -> None:
    settings = GenericTrainerConfig(
        epochs=1,
        seed=1,
        checkpoint=CheckpointConfig(checkpoint_dir=str(folder)),
        logging=LoggingConfig(log_every_n_steps=1, **logging),
    )
    trainer = GenericTrainer(settings, training_step=lambda t, batch, k: {"loss": t.model(batch[0]).square().mean()})
    for callback in callbacks:
        trainer.add_callback(callback)
    for logger in loggers:
        trainer.add_logger(logger)
    model = nn.Linear(2, 1)
    trainer.fit(
        model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2)
    )


def test_a_logger_of_ones_own_gets_what_the_journal_has(tmp_path: Path) -> None:
    memory = Memory()
    train(tmp_path, Shows(torch.zeros(2, 2), score=np.float32(0.5), count=torch.tensor(3)), loggers=(memory,))
    assert memory.heard == [None, *read_metrics(tmp_path / "metrics.jsonl"), "closed"]
    assert [item["event"] for item in memory.heard[1:-1]] == ["train", "train", "epoch", "image", "log"]
    assert {"score": 0.5, "count": 3.0, "epoch": 1, "step": 2}.items() <= memory.heard[-2].items()


def test_what_cannot_be_logged_is_refused(tmp_path: Path) -> None:
    trainer = GenericTrainer(GenericTrainerConfig())
    for wrong in ([], Memory):
        with pytest.raises(TypeError, match=r"expected an object with open\(\), log\(\) and close\(\), found"):
            trainer.add_logger(wrong)  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match=r"log_metrics\(\) outside of fit\(\)"):
        trainer.log_metrics({"score": 1.0})
    with pytest.raises(TrainerError, match="step cannot name a metric"):
        train(tmp_path / "a", Shows(step=1.0))
    with pytest.raises(TrainerError, match="log_metrics returned 'curve' with shape"):
        train(tmp_path / "b", Shows(curve=torch.zeros(3)))


def test_of_several_ranks_only_the_first_writes(tmp_path: Path) -> None:
    memory, state = Memory(), ResumeState("init", 0, 0)  # type: ignore[arg-type]
    telemetry = Telemetry(
        tmp_path / "metrics.jsonl", [memory], Progress("lines", epochs=1, total_steps=1), writes=False
    )
    telemetry.open(120)
    telemetry.start_progress(state)
    telemetry.record(state, "train", {"train_loss": 1.0})
    telemetry.add_image(state, "sample", torch.zeros(2, 2))
    assert telemetry.flush() == 120
    telemetry.sync()
    telemetry.close()
    assert memory.heard == []
    assert list(tmp_path.iterdir()) == []


def decode(data: bytes) -> Any:
    """Take apart a PNG file of 8 bits whose rows have no filter."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    position, pixels = 8, b""
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + size]
        assert struct.unpack_from(">I", data, position + 8 + size) == (zlib.crc32(kind + content),)
        if kind == b"IHDR":
            width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", content)
            assert (depth, rest) == (8, [0, 0, 0])
        pixels += content if kind == b"IDAT" else b""
        position += 12 + size
    rows = np.frombuffer(zlib.decompress(pixels), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, {0: 1, 4: 2, 2: 3, 6: 4}[colour])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_are_written_value_for_value(channels: int) -> None:
    values = np.random.default_rng(channels).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    for image in (values, torch.from_numpy(values), values.transpose(2, 0, 1), values / 255.0):
        assert np.array_equal(decode(to_png("x", image)), values)
    flat = to_png("x", torch.tensor([[0.0, 2.0], [-1.0, math.nan]], dtype=torch.bfloat16))
    assert decode(flat)[:, :, 0].tolist() == [[0, 255], [0, 0]]
    assert decode(to_png("x", np.eye(2, dtype=bool)))[:, :, 0].tolist() == [[255, 0], [0, 255]]


class Figure:
    """Has what a figure of matplotlib has."""

    def savefig(self, file: io.BytesIO, *, format: str, metadata: dict[str, Any]) -> None:
        assert (format, metadata) == ("png", {"Software": None})
        file.write(b"drawn")


def test_figures_draw_themselves() -> None:
    assert to_png("x", Figure()) == b"drawn"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"image 'sample': shape \(2, 3, 8, 8\).*one by one"),
        (torch.zeros(0, 4), "expected .height, width."),
        (np.zeros((4, 4), np.int64), "values of type int64"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: Any, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        train(tmp_path, Shows(image))


def test_the_name_of_an_image_must_be_one_of_a_file(tmp_path: Path) -> None:
    class Escapes(TrainingCallback):
        def on_training_end(self, trainer: GenericTrainer, logs: dict[str, Any]) -> None:
            trainer.log_image("../x", torch.zeros(2, 2))

    with pytest.raises(TrainerError, match=r"image '\.\./x'"):
        train(tmp_path, Escapes())
