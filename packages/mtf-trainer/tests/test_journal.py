from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_trainer.errors import TrainerError
from mtf_trainer.journal import Journal
from mtf_utils.rundir import read_metrics


class Clock:
    """A wall clock that moves when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    journal = Journal(tmp_path / "run" / "metrics.jsonl", clock=clock)
    yield journal
    journal.close()


def records(journal: Journal) -> list[dict[str, object]]:
    return list(read_metrics(journal.path))


def test_records_keep_their_order_and_end_with_the_time(journal: Journal) -> None:
    journal.open(None)
    journal.write({"step": 1, "loss": 0.5, "epoch": 0, "phase": "train", "best": None})
    journal.flush()
    assert journal.path.read_text() == (
        '{"step": 1, "loss": 0.5, "epoch": 0, "phase": "train", "best": null, "time": 1000.0}\n'
    )


def test_what_json_does_not_have_becomes_null(journal: Journal) -> None:
    journal.open(None)
    journal.write({"nan": float("nan"), "up": float("inf"), "down": float("-inf"), "double": np.float64("nan")})
    journal.flush()
    assert records(journal) == [{"nan": None, "up": None, "down": None, "double": None, "time": 1000.0}]


def test_records_wait_in_memory_until_the_flush(journal: Journal) -> None:
    journal.open(None)
    journal.write({"step": 1})
    assert journal.path.read_bytes() == b""
    size = journal.flush()
    assert size == journal.path.stat().st_size > 0
    assert journal.flush() == size
    journal.sync()


@pytest.mark.parametrize("move", [1.0, -5.0], ids=["a second later", "after the clock was set back"])
def test_a_record_does_not_wait_for_long(journal: Journal, clock: Clock, move: float) -> None:
    journal.open(None)
    journal.write({"step": 1})
    clock.now += move
    journal.write({"step": 2})
    assert [record["step"] for record in records(journal)] == [1, 2]
    journal.write({"step": 3})
    assert len(records(journal)) == 2


def test_the_file_is_cut_back_to_the_checkpoint(journal: Journal) -> None:
    journal.open(None)
    journal.write({"step": 1})
    at_checkpoint = journal.flush()
    journal.write({"step": 2})
    journal.close()
    assert len(records(journal)) == 2

    journal.open(at_checkpoint)
    assert journal.path.stat().st_size == at_checkpoint
    journal.write({"step": 20})
    journal.close()
    assert [record["step"] for record in records(journal)] == [1, 20]


def test_a_new_journal_replaces_the_old_one(journal: Journal) -> None:
    journal.open(None)
    journal.write({"step": 1})
    journal.open(None)
    journal.write({"step": 7})
    journal.close()
    assert [record["step"] for record in records(journal)] == [7]


def test_offset_zero_keeps_nothing_of_the_file(journal: Journal) -> None:
    journal.open(0)
    journal.write({"step": 1})
    journal.open(0)
    assert journal.flush() == 0


@given(
    cuts=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
)
def test_any_truncation_is_either_continued_exactly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], values: list[float]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "metrics.jsonl", clock=Clock())
    journal.open(None)
    ends = [0]
    for value in values:
        journal.write({"value": value})
        ends.append(journal.flush())
    journal.close()
    whole = journal.path.read_bytes()
    for cut in cuts:
        journal.path.write_bytes(whole)
        if cut not in ends and cut < len(whole):
            with pytest.raises(TrainerError, match="no record ends"):
                journal.open(cut)
            assert journal.path.read_bytes() == whole
            continue
        cut = min(cut, len(whole))
        journal.open(cut)
        assert journal.records == ends.index(cut)
        for value in values[ends.index(cut) :]:
            journal.write({"value": value})
        journal.close()
        assert journal.path.read_bytes() == whole
        assert journal.records == len(values)


def test_a_file_that_lost_its_end_goes_on_after_its_last_whole_record(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.open(None)
    journal.write({"step": 1})
    journal.write({"step": 2})
    size = journal.flush()
    journal.close()
    os.truncate(journal.path, size - 5)
    journal.open(size)
    assert f"has {size - 5} bytes where the checkpoint counts on {size}: the last 5" in caplog.text
    journal.write({"step": 3})
    journal.close()
    assert [record["step"] for record in records(journal)] == [1, 3]


def test_a_failed_write_is_made_good_by_the_next_flush(journal: Journal) -> None:
    resource = pytest.importorskip("resource")
    journal.open(None)
    journal.write({"step": 1})
    start = journal.flush()
    for step in range(2, 6):
        journal.write({"step": step})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start + 10, hard))
        with pytest.raises(OSError, match="File too large"):
            journal.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.path.stat().st_size == start + 10
    assert journal.flush() == journal.path.stat().st_size
    assert [record["step"] for record in records(journal)] == [1, 2, 3, 4, 5]


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    script = (
        "import os, signal, sys; from pathlib import Path; from mtf_trainer.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), clock=lambda: 1.0)\n"
        "journal.open(None)\n"
        "journal.write({'step': 1}); print(journal.flush(), flush=True)\n"
        "journal.write({'step': 2}); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = Journal(path)
    journal.open(int(done.stdout))
    journal.close()
    assert json.loads(path.read_text()) == {"step": 1, "time": 1.0}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"loss": np.float32(1)}, "'loss' is a float32"),
        ({"loss": 1.0, "curve": [1.0]}, "'curve' is a list"),
        ({"time": 1.0}, "'time' cannot name a metric"),
    ],
)
def test_records_of_anything_else_are_refused(journal: Journal, record: dict[str, object], message: str) -> None:
    journal.open(None)
    with pytest.raises(TrainerError, match=message):
        journal.write(record)  # type: ignore[arg-type]
    assert journal.flush() == 0


@pytest.mark.parametrize("use", [lambda j: j.write({"step": 1}), lambda j: j.flush()], ids=["write", "flush"])
def test_a_closed_journal_says_so(journal: Journal, use: Callable[[Journal], object]) -> None:
    with pytest.raises(TrainerError, match="not open"):
        use(journal)
    journal.open(None)
    journal.close()
    journal.close()
    with pytest.raises(TrainerError, match="not open"):
        use(journal)
