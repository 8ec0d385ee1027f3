"""Tails of metrics and logs."""

from __future__ import annotations

import io
import json
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from mtf_slurm.pace import Goal, Pace
from mtf_slurm.progress import PlainLines, choose_display, runs_table
from mtf_slurm.status import JobStatus
from mtf_slurm.telemetry import Telemetry, last_error_line, read_records, read_telemetry, telemetry_of
from mtf_slurm.views import RunView


def test_telemetry_is_the_last_of_each(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_telemetry(path) == Telemetry()
    records = [
        {"event": "train", "epoch": 0, "step": 1, "train_loss": 2.0, "lr": 0.1, "time": 1},
        {"event": "validation", "epoch": 0, "step": 1, "val_loss": 3.0, "time": 2, "flag": True, "name": "x"},
        {"event": "train", "epoch": 1, "step": 2, "train_loss": None, "lr": 0.2, "time": 3, "samples_per_s": 9},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"event": "tra')
    assert read_telemetry(path) == Telemetry(
        epoch=2,  # people count from 1
        global_step=2,
        metrics={"train_loss": None, "lr": 0.2, "val_loss": 3.0},
        headline="train_loss",
    )


def test_what_is_no_number_of_json_stands_as_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 3, "a": NaN, "b": Infinity, "c": -Infinity, "d": 1{"0" * 400}, "e": 2}}\n')
    assert read_telemetry(path).metrics == {"a": None, "b": None, "c": None, "d": None, "e": 2}


def test_only_the_tail_of_a_long_journal_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = {"epoch": 0, "step": 0, "early": 1.0}
    rest = [{"epoch": 5, "step": step, "loss": 1 / step} for step in range(1, 5000)]
    path.write_text("".join(json.dumps(record) + "\n" for record in [first, *rest]))
    telemetry = read_telemetry(path)
    assert (telemetry.global_step, telemetry.metrics) == (4999, {"loss": 1 / 4999})


_NAMES = st.sampled_from(["loss", "val_loss", "top1", "top5", "epoch", "train", 'a"b', "x: "])
_VALUES = st.sampled_from([0, 7, 1.5, -2e-5, None, True, "train", "loss", [1], {"loss": 2}])
_RECORDS = st.builds(
    lambda event, rest: {"event": event} | rest,
    st.sampled_from(["train", "validation", "loss"]),
    st.dictionaries(_NAMES, st.sampled_from([0, 7, 1.5, -2e-5, None, True]), max_size=4),
)
_LINES = st.one_of(
    _RECORDS.map(json.dumps),
    st.tuples(_RECORDS.map(json.dumps), st.integers(0, 60)).map(lambda item: item[0][: item[1]]),
    st.dictionaries(_NAMES, _VALUES, max_size=4).map(json.dumps),
    st.sampled_from(["", "[" * 2000, "7", '{"event": "train", "loss": 3', '{"event":"train","loss":4}']),
)


def _hidden(between: dict[str, Any], around: dict[str, Any]) -> list[str]:
    """Three records of an event, of which the one between the others has the same words in quotes, but other keys."""
    return [json.dumps({"event": "train"} | record) for record in (around, between, around)]


@settings(max_examples=300)
@example(_hidden({"loss": 1, "top1": 2}, {"loss": "top1"}), True)
@example(_hidden({"loss": 1, "top1": 2}, {"loss": ["top1"]}), True)
@example(_hidden({"loss": 1, "top1": 2}, {"loss": {"top1": 3}}), True)
@example(_hidden({'a"b': 1}, {'a"c': 1}), True)
@given(st.one_of(st.lists(_RECORDS.map(json.dumps), max_size=12), st.lists(_LINES, max_size=12)), st.booleans())
def test_some_lines_tell_what_all_of_them_do(lines: list[str], is_whole: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_text("\n".join(lines) + "\n" * is_whole, encoding="utf-8")
        of_all, of_some = telemetry_of(read_records(path)), read_telemetry(path)
    assert of_some == of_all
    assert list(of_some.metrics) == list(of_all.metrics)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("hello\nlast words\n\n", "last words"),
        ("Traceback (most recent call last):\n  File x\n    y\nValueError: a\nafterwards\n", "ValueError: a"),
        (
            "Traceback (most recent call last):\n  File x\nKeyError: 1\n\nDuring handling of the above exception, "
            "another exception occurred:\n\nTraceback (most recent call last):\n  File y\nmy.Error: b: c\n",
            "my.Error: b: c",
        ),
        ("[rank0]: Traceback (most recent call last):\n[rank0]:   File x\n[rank0]: OSError: full\n", "OSError: full"),
        ("\x1b[31mTraceback (most recent call last):\x1b[0m\n  File x\n\x1b[1mE: red\x1b[0m\n", "E: red"),
        ("Traceback (most recent call last):\n  File cut off", "  File cut off"),
        (
            "Traceback (most recent call last):\n  File x\nslurmstepd-n1: error: *** STEP 1.1 ON n1 CANCELLED ***\n"
            "Traceback (most recent call last):\n  File x\nValueError: a\nsrun: error: n1: task 0: Exited\n",
            "ValueError: a",
        ),
        ("out of luck\nsrun: error: n1: task 1: Exited with exit code 1\n", "out of luck"),
        ("srun: error: Unable to create step\n", "srun: error: Unable to create step"),
    ],
)
def test_last_error_line(tmp_path: Path, log: str, line: str) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    assert last_error_line(path) == line


def test_a_log_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    assert last_error_line(tmp_path / "missing") == ""
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\x00" * 9000 + b"\nend\n")
    assert last_error_line(path) == "end"


def view(name: str, status: JobStatus, attempts: int = 1, epoch: int | None = None, reason: str = "") -> RunView:
    telemetry = Telemetry(epoch=epoch, metrics={"loss": 0.25}, headline="loss") if epoch is not None else Telemetry()
    return RunView(name=name, status=status, attempts=attempts, reason=reason, telemetry=telemetry)


def test_plain_lines_tell_what_changed_once() -> None:
    out, now = io.StringIO(), [0.0]
    lines = PlainLines(Console(file=out, width=20), clock=lambda: now[0])

    def told(run: RunView, after_s: float = 0.0) -> str:
        now[0] += after_s
        start = out.tell()
        lines.update([run])
        return out.getvalue()[start:].removesuffix("\n")

    running = partial(view, "a[b]", JobStatus.RUNNING)
    assert told(view("a[b]", JobStatus.PENDING, 0)) == ""
    assert told(running(epoch=1)) == "a[b]: RUNNING epoch 1: loss 0.25"
    assert told(running(epoch=1), 60) == ""  # nothing is new
    assert told(running(epoch=2)) == "a[b]: RUNNING epoch 2: loss 0.25"
    assert told(running(epoch=3), 9.9) == ""  # a while after the last one
    assert told(running(epoch=4), 0.2) == "a[b]: RUNNING epoch 4: loss 0.25"
    assert told(running(epoch=5), 1000) == "a[b]: RUNNING epoch 5: loss 0.25"
    assert told(running(epoch=6), 59) == ""  # and more rarely later
    assert told(running(epoch=7), 1) == "a[b]: RUNNING epoch 7: loss 0.25"
    failed = view("a[b]", JobStatus.FAILED, 2, 7, "ValueError: [red]x[/] " + "long " * 9)
    assert told(failed) == f"a[b]: FAILED attempt 2 epoch 7: loss 0.25; ValueError: [red]x[/] {'long ' * 9}"


def test_a_line_says_how_far_it_is_and_what_is_left() -> None:
    out = io.StringIO()
    telemetry = Telemetry(epoch=2, global_step=30, metrics={"loss": 0.25}, headline="loss")
    pace = Pace(total_steps=80, ends_at=time.time() + 3600)
    run = RunView(name="a", status=JobStatus.RUNNING, telemetry=telemetry, goal=Goal(epochs=5), pace=pace)
    PlainLines(Console(file=out, width=20)).update([run])
    assert re.fullmatch(r"a: RUNNING epoch 2/5 step 30/80: loss 0\.25; (1:00:00|59:\d\d) left\n", out.getvalue()), (
        out.getvalue()
    )
    out = io.StringIO()
    Console(file=out, width=120).print(runs_table([run], 120))
    assert re.search(r"a\W+RUNNING\W+2/5\W+30/80\W+loss 0\.25\W+(1:00:00|59:\d\d)", out.getvalue()), out.getvalue()


def test_a_table_for_a_small_screen_shows_what_matters() -> None:
    runs = [view(f"done{i}", JobStatus.COMPLETED) for i in range(50)]
    runs += [view("bad", JobStatus.FAILED, reason="why"), view("busy", JobStatus.RUNNING, epoch=3)]
    out = io.StringIO()
    Console(file=out, width=80).print(runs_table(runs, 80, room=4))
    text = out.getvalue()
    assert "50 completed, 1 failed, 1 running" in text
    assert "busy" in text
    assert "why" in text
    assert "and 48 more" in text


def test_a_long_reason_takes_no_room_from_the_rest() -> None:
    reason = f"stopped by SIGTERM at epoch 2; saved {'/a/long/path' * 20}"
    runs = [view("digits-lr=0.001-channels=8", JobStatus.PREEMPTED, epoch=2, reason=reason)]
    out = io.StringIO()
    Console(file=out, width=100).print(runs_table([*runs, view("waits", JobStatus.PENDING)], 100))
    text = out.getvalue()
    line = r"digits-lr=0\.001-channels=8 +PREEMPTED +2 +loss 0\.25 +1 +stopped by SIGTERM at[^…]*…\n"
    assert re.search(line, text), text
    assert max(map(len, text.splitlines())) <= 100


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = choose_display()
    display.say("hello [there]")
    display.close()
    assert capsys.readouterr().err == "hello [there]\n"
