"""What a report says of a sweep, that it is one file, and that text of users is never more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_config import ExecutionMode, ParameterGridSearch
from mtf_slurm import GridSearchResult, SLURMError, SLURMLauncher
from mtf_slurm.report import ReportExtraError, collect_report, render_report, write_report
from mtf_slurm.report.curves import read_curves, thinned
from mtf_slurm.report.model import Report, RunRow
from mtf_slurm.report.render import _json
from mtf_utils.cli import main
from mtf_utils.rundir import FinishReceipt, Outcome, RunDirectory, RunResultFile, StartReceipt, SweepDirectory

HOSTILE = "</script><script>alert(1)</script><!-- <b>&amp; \u2028 ]]> {{ y }}"


def needs_plotly() -> Any:
    return pytest.importorskip("plotly", reason="plotly is not installed")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs: one finished after a preemption, one failed, one never started."""
    base = {
        "experiment_name": "digits",
        "model": {"name": "cnn"},
        "data": {"dataset_name": "digits"},
        "optimizer": {"name": "adamw"},
        "custom_params": {"note": HOSTILE},
    }
    search = ParameterGridSearch(base)
    search.create_grid("rates").add_parameter("training.learning_rate", [0.1, 0.01, 0.001])
    launcher = SLURMLauncher(None, tmp_path, project_root=tmp_path, command="true")
    launcher.submit_sweep(search, tmp_path / "sweep", ExecutionMode.DRY_RUN)
    names = [run.name for run in GridSearchResult.load(tmp_path / "sweep")]
    first, second, _ = (SweepDirectory(tmp_path / "sweep").run(name) for name in names)
    attempt(first, 1, Outcome.PREEMPTED, 0)
    attempt(first, 2, Outcome.FINISHED, 10)
    journal(first, 40)
    metrics = {"val_loss": 0.25, HOSTILE: 1.0}
    best = {"metric": "val_loss", "value": 0.2, "epoch": 1, "global_step": 20}
    result = RunResultFile(
        epoch=4, global_step=40, metrics=metrics, best=best, checkpoint="c", seed=0, finished_at="2026-01-01T00:00:00Z"
    )
    result.write(first.result_file)
    attempt(second, 1, Outcome.FAILED, 5)
    second.log_file(1).write_text(f"Traceback (most recent call last):\n  File x\nValueError: {HOSTILE}\n")
    journal(second, 20)
    return tmp_path / "sweep"


def attempt(run: RunDirectory, number: int, outcome: Outcome, minute: int) -> None:
    folder = run.attempt(number)
    folder.path.mkdir(parents=True)
    at = f"2026-01-01T00:{minute:02d}"
    StartReceipt(attempt=number, token="t", host="node-1", pid=1, started_at=f"{at}:00Z").write(folder.started_file)
    status = {Outcome.FINISHED: 0, Outcome.PREEMPTED: 75}.get(outcome, 1)
    FinishReceipt(attempt=number, outcome=outcome, exit_status=status, finished_at=f"{at}:30Z").write(
        folder.finished_file
    )


def journal(run: RunDirectory, steps: int) -> None:
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        records.append({"event": "train", "epoch": step // 10, "step": step, "train_loss": 1 / step, "time": 1.0})
        if step % 10 == 0:
            records.append({"event": "validation", "epoch": step // 10 - 1, "step": step, "val_loss": 2 / step})
            records.append({"event": "epoch", "epoch": step // 10 - 1, "step": step, "val_loss": 9.0, "train_loss": 0})
    run.metrics_file.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_what_is_told_of_runs(sweep: Path) -> None:
    report = collect_report(GridSearchResult.load(sweep))
    assert (report.metric, report.goal, len(report.runs)) == ("val_loss", "min", 3)
    first, second, third = report.runs
    assert (first.state, first.attempts, first.best, first.step) == ("COMPLETED", 2, 0.2, 40)
    assert [(span.outcome, span.end_s - span.start_s) for span in first.spans if span.end_s] == [
        ("preempted", 30),
        ("finished", 30),
    ]
    assert first.spans[1].start_s - first.spans[0].start_s == 600
    assert second.state == "FAILED"
    assert HOSTILE.split("\u2028")[0].strip() in second.reason
    assert (third.state, third.spans, third.curves) == ("NOT_SUBMITTED", (), {})
    assert list(first.curves["val_loss"].steps) == [10, 20, 30, 40]
    assert first.curves["val_loss"].values[0] == 0.2  # as it was validated, not as its epoch repeats it
    assert len(first.curves["train_loss"].steps) == 40
    assert [code.runs for code in report.codes] == [3]
    assert report.environment["Hosts"] == "node-1"
    assert HOSTILE.splitlines()[0] in report.config or "script" in report.config


def test_another_metric_and_a_wrong_one(sweep: Path) -> None:
    result = GridSearchResult.load(sweep)
    report = collect_report(result, metric="train_loss", mode="max")
    assert (report.metric, report.goal) == ("train_loss", "max")
    with pytest.raises(SLURMError, match="did you mean 'val_loss'"):
        collect_report(result, metric="val_los")


def test_one_file_that_needs_nothing_else(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_plotly()
    assert main(["report", str(sweep)]) == 0
    text = (sweep / "report.html").read_text("utf-8")
    assert str(sweep / "report.html") in capsys.readouterr().out
    page = Page()
    page.feed(text)
    assert page.links == []
    assert [kind for kind, _ in page.scripts] == ["application/json", None, None]
    data = json.loads(page.scripts[0][1])
    assert data["runs"]["state"] == [0, 1, 2]
    assert data["states"] == ["COMPLETED", "FAILED", "NOT_SUBMITTED"]
    policy = page.policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    for _, script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


class Page(HTMLParser):
    """What a browser would see of a page: its scripts, its policy, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[str | None, str]] = []
        self.links: list[str] = []
        self.policy = ""
        self.tags: list[str] = []
        self.title = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._inside = tag
        self.links += [value for key, value in given.items() if key in ("src", "href") and (value or "#")[0] != "#"]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "script":
            self.scripts.append((given.get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            kind, text = self.scripts.pop()
            self.scripts.append((kind, text + data))
        elif self._inside == "title":
            self.title += data


def made(**changes: Any) -> Report:
    run = RunRow(
        name="a", state="FAILED", grid="g", parameters={}, metrics={}, best=None, epoch=None, step=None, attempts=0,
        job_id=None, reason="",
    )  # fmt: skip
    values: dict[str, Any] = {
        "name": "s", "output_dir": "/s", "mode": "local", "created_at": "", "made_at": "", "made_s": 0, "metric": "",
        "goal": "min", "runs": [run], "codes": [], "environment": {}, "config": "", "config_of": "a",
    }  # fmt: skip
    return Report(**values | changes)


@settings(max_examples=30, deadline=None)
@given(st.text() | st.sampled_from([HOSTILE, "<!--<script>", "</SCRIPT >", "&lt;", "\\u003c"]))
def test_no_text_is_more_than_text(text: str) -> None:
    needs_plotly()
    text = text.encode("utf-8", "replace").decode()
    usual = Page()
    usual.feed(render_report(made()))
    page = Page()
    page.feed(render_report(made(name=text, config=text, environment={text: text}, remarks=[text])))
    assert page.tags == usual.tags
    data = json.loads(page.scripts[0][1])
    assert (data["name"], data["config"], data["environment"], data["remarks"]) == (text, text, {text: text}, [text])


def test_json_has_nothing_that_ends_its_element() -> None:
    text = _json({HOSTILE: [HOSTILE, None, 1.5]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {HOSTILE: [HOSTILE, None, 1.5]}


def test_what_is_missing_is_named(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtf_slurm.report import render

    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    render._plotly.cache_clear()
    with pytest.raises(ReportExtraError, match=re.escape("pip install 'mtf-slurm[report]'")):
        write_report(sweep)
    assert not (sweep / "report.html").exists()


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(values: list[float | None], most: int) -> None:
    points = [(step, 1, value) for step, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= most
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert [point[0] for point in kept] == sorted({point[0] for point in kept})
    assert set(kept) <= set(points)
    known = [value for value in values if value is not None]
    if known:
        left = [value for _, _, value in kept if value is not None]
        assert (min(left), max(left)) == (min(known), max(known))


def test_journals_that_are_long_cut_off_or_broken(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_curves(file) == {}
    lines = [f'{{"event": "train", "epoch": 0, "step": {step}, "loss": {step % 7}}}' for step in range(50_000)]
    lines.insert(25_000, '{"event": "validation", "epoch": 0, "step": 25000, "val_loss": 0.5}')
    lines += ["not json", "[1]", '{"step": true, "loss": 1}', '{"step": 50001, "loss": null}', '{"step": 500']
    file.write_text("\n".join(lines))
    curves = read_curves(file, points=50)
    assert list(curves["val_loss"].values) == [0.5]
    steps = curves["loss"].steps
    assert (steps[0], len(steps) <= 50) == (0, True)
    assert steps[-1] == 49_999
    assert {0, 6} <= set(curves["loss"].values)


def test_numbers_that_json_does_not_have_are_told_by_their_names(sweep: Path) -> None:
    needs_plotly()
    result = GridSearchResult.load(sweep)
    odd = {"loss": None, "norm": math.nan, "most": math.inf, "least": -math.inf, "fine": 1.5}
    result.runs = (replace(result.runs[0], metrics=odd), *result.runs[1:])
    report = collect_report(result)
    assert report.runs[0].metrics == {"loss": "NaN", "norm": "NaN", "most": "inf", "least": "-inf", "fine": 1.5}
    (data,) = re.findall(r'id="data">(.*?)</script>', render_report(report), re.DOTALL)
    assert json.loads(data, parse_constant=pytest.fail)["runs"]["metrics"]["loss"][0] == "NaN"


def test_a_journal_of_another_hand_does_not_keep_a_report_from_being_written(sweep: Path) -> None:
    needs_plotly()
    run = GridSearchResult.load(sweep).runs[2]
    lines = [
        f'{{"step": {step}, "loss": {value}}}' for step, value in enumerate(["NaN", "Infinity", "1" + "0" * 400, 2])
    ]
    (run.path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    report = collect_report(GridSearchResult.load(sweep))
    assert report.runs[2].curves["loss"].values == (None, None, None, 2.0)
    assert json.loads(_json(report.to_dict()), parse_constant=pytest.fail)["curves"]["2"]["loss"][2][3] == 2.0


@pytest.mark.parametrize("kind", ["pipe", "stream"])
def test_no_pipe_or_stream_is_replaced_by_a_file(sweep: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs_plotly()
    place = sweep / kind  # as /dev/null is, and /dev/stdout
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/proc/self/fd/1")
    before = place.lstat()
    for words in (["report", str(sweep), "-o", str(place)], ["results", str(sweep), "--csv", str(place)]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert str(place) in said
        assert "would be replaced" in said
    with pytest.raises(FileExistsError):
        GridSearchResult.load(sweep).to_json(place)
    assert (place.lstat().st_ino, place.lstat().st_mode) == (before.st_ino, before.st_mode)
