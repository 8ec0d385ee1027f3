from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.errors import TrainerError
from mtf_trainer.journal import Journal
from mtf_trainer.loggers import WandbLogger
from mtf_utils.rundir import read_metrics
from mtf_utils.sections import LoggingConfig

_spec = importlib.util.find_spec("wandb")
HAS_WANDB = _spec is not None and _spec.origin is not None  # W&B leaves folders of its name behind
if not HAS_WANDB:
    pytest.skip("wandb is not installed", allow_module_level=True)

LOG_AND_DIE = """
import os, signal, sys
from pathlib import Path
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers import WandbLogger
from mtf_utils.rundir import read_metrics
logger = WandbLogger(GenericTrainerConfig.from_experiment({"logging": {"use_wandb": True}}), Path(sys.argv[1]))
journal = Path(sys.argv[1], "metrics.jsonl")
logger.open(journal, None)
for step in range(4):
    logger.log({"event": "train", "step": step, "train_loss": 1.0 / (step + 1)})
os.kill(os.getpid(), signal.SIGKILL)
"""

LOSE_SERVICE = """
import contextlib, os, signal, sys
from pathlib import Path
import torch
from mtf_trainer import *


def kill_service():
    asked = b"\\0--pid\\0%d\\0" % os.getpid()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"wandb-core" in words and asked in words:
                os.kill(int(path.parent.name), signal.SIGKILL)


class Trouble(TrainingCallback):
    def on_batch_end(self, trainer, batch_idx, logs):
        if len(sys.argv) == 2 and batch_idx == 2:
            kill_service()
        if len(sys.argv) == 2 and batch_idx == 300:
            os.kill(os.getpid(), signal.SIGTERM)


logging = LoggingConfig(use_wandb=True, log_every_n_steps=1)
config = GenericTrainerConfig(epochs=1, checkpoint=CheckpointConfig(checkpoint_dir=sys.argv[1]), logging=logging)
trainer = GenericTrainer(config, training_step=lambda trainer, batch, _: {"loss": trainer.model(batch).mean()})
trainer.add_callback(Trouble())
model = torch.nn.Linear(1, 1)
trainer.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.ones(400, 1, 1))
"""


def configuration() -> GenericTrainerConfig:
    return GenericTrainerConfig(
        logging=LoggingConfig(use_wandb=True, wandb_project="digits", wandb_entity="team"),
        experiment_name="digits-1",
        tags=["baseline"],
        run={"model": {"name": "cnn", "token": "${env:TOKEN}"}},
    )


def identity_of(directory: Path) -> str:
    return str(json.loads((directory / "wandb.json").read_text())["id"])


class Training:
    """Logs as a training does: to the journal first, then to W&B."""

    def __init__(self, directory: Path, offset: int | None) -> None:
        self.journal = Journal(directory / "metrics.jsonl", clock=lambda: 1.0)
        self.logger = WandbLogger(configuration(), directory)
        self.journal.open(offset)
        self.logger.open(self.journal.path, None if offset is None else self.journal.records)

    def log(self, event: str, step: int, **metrics: float) -> int:
        self.logger.log(self.journal.write({"event": event, "step": step, **metrics}))
        return self.journal.flush()

    def close(self) -> None:
        self.logger.close()
        self.journal.close()


def segments(directory: Path, count: int) -> list[list[Any]]:
    """What W&B itself keeps of each process that ended well, oldest first; it completes its files in the background."""
    deadline = time.monotonic() + 60
    while True:
        paths = sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
        found = [list(protocol(path.read_bytes())) for path in paths]
        ended = [segment for segment in found if any(record.HasField("exit") for record in segment)]
        if len(ended) >= count:
            return ended
        assert time.monotonic() < deadline, f"W&B completed {len(ended)} of {count} files: {paths}"
        time.sleep(0.02)


def protocol(data: bytes) -> Iterator[Any]:
    """The records of a W&B transaction log: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    position, content, block = 7, b"", 32768
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        content += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last part
            record = Record()
            record.ParseFromString(content)
            content = b""
            yield record


def rows(segment: list[Any]) -> list[dict[str, Any]]:
    """What was logged in one process, without W&B's own clocks, each row sorted by name."""
    logged = [record.history for record in segment if record.WhichOneof("record_type") == "history"]
    plain = [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in h.item} for h in logged]
    return [{key: row[key] for key in sorted(row) if key not in ("_timestamp", "_runtime")} for row in plain]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", "")):
        monkeypatch.setenv(name, value)
    yield
    importlib.import_module("wandb").teardown()


@pytest.mark.usefixtures("offline")
def test_a_restart_continues_the_same_run_without_repeating_a_record(tmp_path: Path) -> None:
    first = Training(tmp_path, None)
    first.log("train", 10, epoch=0, train_loss=1.0, lr=0.1)
    checkpoint = first.log("epoch", 10, epoch=0, train_loss=math.nan)
    first.log("train", 20, epoch=1, train_loss=0.5)
    first.close()
    identity = identity_of(tmp_path)

    second = Training(tmp_path, checkpoint)
    second.log("train", 20, epoch=1, train_loss=0.5)
    second.log("train", 30, epoch=1, train_loss=0.25)
    second.close()
    second.close()

    assert identity_of(tmp_path) == identity
    before, after = segments(tmp_path, 2)
    for segment in (before, after):
        (run,) = [record.run for record in segment if record.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.project, run.entity) == (identity, "digits", "team")
        assert (run.display_name, list(run.tags)) == ("digits-1", ["baseline"])
        told = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert told["model"] == {"name": "cnn", "token": "${env:TOKEN}"}
    history = rows(after)
    assert [(row["_step"], row["global_step"]) for row in history] == [(0, 10), (1, 10), (2, 20), (3, 30)]
    assert history[0] == {"_step": 0, "global_step": 10, "epoch": 0, "train_loss": 1, "lr": 0.1}
    assert history[1].keys() == {"_step", "global_step", "epoch", "epoch/train_loss"}
    assert math.isnan(history[1]["epoch/train_loss"])
    assert history[3] == {"_step": 3, "global_step": 30, "epoch": 1, "train_loss": 0.25}
    assert json.dumps(rows(before)) == json.dumps(history[:3])  # text, because NaN does not equal itself


@pytest.mark.usefixtures("offline")
def test_a_new_run_beside_the_traces_of_an_old_one_is_a_new_run(tmp_path: Path) -> None:
    identities = set()
    for _ in range(2):
        training = Training(tmp_path, None)
        training.log("train", 1, train_loss=1.0)
        training.close()
        identities.add(identity_of(tmp_path))
    assert len(identities) == 2
    assert [row["_step"] for segment in segments(tmp_path, 2) for row in rows(segment)] == [0, 0]


@pytest.mark.usefixtures("offline")
def test_a_logger_that_is_switched_on_late_brings_the_history(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.open(None)
    journal.write({"event": "train", "step": 1, "train_loss": 4.0})
    checkpoint = journal.flush()
    journal.close()
    training = Training(tmp_path, checkpoint)
    training.log("train", 2, train_loss=2.0)
    training.close()
    assert [(row["_step"], row["train_loss"]) for row in rows(segments(tmp_path, 1)[0])] == [(0, 4), (1, 2)]


@pytest.mark.usefixtures("offline")
def test_what_wandb_has_already_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a server no run is resumed; this one has two records as soon as it is there.
    wandb = importlib.import_module("wandb")

    def resumed(**settings: Any) -> Any:
        run = init(**settings)
        for number in range(2):
            run.log({"train_loss": 7.0}, step=number, commit=True)
        return run

    init = wandb.init
    monkeypatch.setattr(wandb, "init", resumed)
    training = Training(tmp_path, None)
    for step in range(4):
        training.log("train", step, train_loss=1.0)
    training.close()
    history = [(row["_step"], row["train_loss"]) for row in rows(segments(tmp_path, 1)[0])]
    assert history == [(0, 7), (1, 7), (2, 1), (3, 1)]


@pytest.mark.usefixtures("offline")
def test_a_run_of_the_script_s_own_stays_as_it_is(tmp_path: Path) -> None:
    wandb = importlib.import_module("wandb")
    own = wandb.init(dir=str(tmp_path / "own"), id="own")
    own.log({"mine": 1.0})
    training = Training(tmp_path / "training", None)
    training.log("train", 5, train_loss=1.0)
    training.close()
    assert wandb.run is own
    wandb.log({"mine": 2.0})
    own.finish()
    (ours,) = segments(tmp_path / "training", 1)
    assert [row["train_loss"] for row in rows(ours)] == [1.0]
    (theirs,) = segments(tmp_path / "own", 1)
    assert [row["mine"] for row in rows(theirs)] == [1.0, 2.0]


@pytest.mark.usefixtures("offline")
def test_a_training_goes_on_without_wandb_and_ends_as_it_would_have(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOSE_SERVICE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("W&B takes no more records (") == 1
    done = subprocess.run([*command, "and go on"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = list(read_metrics(tmp_path / "metrics.jsonl"))
    assert [row["_step"] for row in rows(segments(tmp_path, 1)[-1])] == list(range(len(told)))


@pytest.mark.usefixtures("offline")
def test_a_training_that_logs_nothing_does_not_show_up(tmp_path: Path) -> None:
    logger = WandbLogger(configuration(), tmp_path)
    logger.open(tmp_path / "metrics.jsonl", 5)
    logger.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_logging_draws_no_random_numbers(tmp_path: Path) -> None:
    def streams() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = streams()
    training = Training(tmp_path, None)
    training.log("train", 1, train_loss=1.0)
    training.close()
    assert streams() == before


@pytest.mark.usefixtures("offline")
def test_a_killed_process_leaves_what_the_next_one_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOG_AND_DIE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    identity = identity_of(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    training = Training(tmp_path, 0)
    for step in range(6):
        training.log("train", step, train_loss=1.0 / (step + 1))
    training.close()
    assert identity_of(tmp_path) == identity
    assert [row["_step"] for row in rows(segments(tmp_path, 1)[-1])] == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_spoilt_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "wandb.json").write_text(content)
    logger = WandbLogger(configuration(), tmp_path)
    logger.open(tmp_path / "metrics.jsonl", 3)
    with pytest.raises(TrainerError, match=r"wandb\.json: cannot tell which W&B run to continue"):
        logger.log({"event": "train", "step": 1, "train_loss": 1.0})
    assert (tmp_path / "wandb.json").read_text() == content


def test_a_run_that_wandb_does_not_accept_is_explained(tmp_path: Path) -> None:
    unwelcome = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "not a key"}
    command = [sys.executable, "-c", LOG_AND_DIE, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | unwelcome, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TrainerError: W&B did not accept the run: " in done.stderr
    assert "WANDB_MODE=offline" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("offline")
def test_a_training_that_is_killed_again_and_again_stays_one_run(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("telemetry_kills.py")), str(tmp_path), "6", "use_wandb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome == {"whole": 0, "statuses": [-9, 75] * 3 + [0], "equal": True}, done.stderr
    folder = tmp_path / "killed" / "checkpoints"
    runs = [path.name for path in folder.glob("wandb/offline-run-*")]
    assert len(runs) > 1
    assert {name.rpartition("-")[2] for name in runs} == {identity_of(folder)}
    told = list(read_metrics(folder / "metrics.jsonl"))
    history = rows(segments(folder, 1)[-1])
    assert [(row["_step"], row["global_step"]) for row in history] == list(enumerate(item["step"] for item in told))
    losses = [item["train_loss"] for item in told if item["event"] == "train"]
    assert [row["train_loss"] for row in history if "train_loss" in row] == losses
    pictures = [row["_step"] for row in history if any(key.startswith("weights") for key in row)]
    assert pictures == [number for number, item in enumerate(told) if item["event"] == "image"]
