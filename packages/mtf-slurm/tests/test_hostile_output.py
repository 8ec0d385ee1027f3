"""What runs write comes out harmless: on terminals, in tables, as JSON and in spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobStatus
from mtf_slurm.progress import LiveTable, PlainLines
from mtf_slurm.telemetry import Telemetry
from mtf_slurm.views import RunView
from mtf_utils.cli import main
from mtf_utils.display import printable
from mtf_utils.rundir import SweepDirectory

TITLE, CLIPBOARD, CLEAR, UP, C1, BIDI = (
    "\x1b]0;owned\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1b[2J",
    "\x1b[9A",
    "\x9b2J",
    "\u202e",
)
STEERING = TITLE + CLIPBOARD + CLEAR + UP + C1 + BIDI
METRIC = f"=cmd|'/C calc'!A0{STEERING}"

# leaves metrics, a log and an error that are all of them hostile
TRAIN = f"""
import json, os, sys
from pathlib import Path
run = Path(os.environ["MTF_RUN_DIR"])
steering, metric = {STEERING!r}, {METRIC!r}
with (run / "metrics.jsonl").open("w") as file:
    file.write(json.dumps({{"event": "train", "epoch": 0, "global_step": 1, metric: 0.5}}) + "\\n")
sys.stdout.buffer.write(f"log {{steering}} \\x1b[31mred\\x1b[0m\\n".encode())
sys.stdout.buffer.write(b"no text \\xff\\n")
sys.stdout.flush()
fails = json.loads(Path(sys.argv[2]).read_text())["custom_params"]["fails"]
if fails:
    sys.exit(f"=HYPERLINK(1){{steering}}")
"""


@pytest.fixture
def folder(launcher: Any, make_search: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    (project / "train.py").write_text(TRAIN)
    path = project / f"out{STEERING}\n"
    search = make_search({"custom_params.fails": [False, True], "custom_params.note": [f"=1+1{STEERING}", "plain"]})
    launcher.submit_sweep(search, path, ExecutionMode.LOCAL, 2)
    return path


def names_of(folder: Path) -> dict[bool, str]:
    return {run.parameters["custom_params.fails"]: run.name for run in GridSearchResult(folder)}


def verbs(folder: Path) -> list[list[str]]:
    names = names_of(folder)
    ranked = ["results", str(folder), "--metric", METRIC, "--all"]
    return [
        ["status", str(folder)],
        ["explain", str(folder), names[True]],
        ranked,
        ["results", str(folder), "--metric", TITLE],
        ["clean", str(folder)],
        ["logs", str(folder), TITLE],
        ["cancel", str(folder), names[True], names[False]],
        ["status", f"{folder}/nowhere"],
        ["explain", str(folder), TITLE],
        [TITLE],
    ]


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(said for item in value.values() for said in strings_in(item))]
    if isinstance(value, list):
        return [said for item in value for said in strings_in(item)]
    return [value] if isinstance(value, str) else []


def test_no_verb_steers_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in verbs(folder):
        main(words)
        shown = capsys.readouterr()
        text = shown.out + shown.err
        assert text.strip(), words
        assert printable(text, lines=True) == text, words
    main(["status", str(folder)])
    assert r"=cmd|'/C calc'!A0\x1b]0;owned\x07" in capsys.readouterr().out


def test_no_json_steers_the_terminal_and_all_of_it_means_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = names_of(folder)
    for verb, *more in (["status"], ["explain", names[True]], ["logs", names[True]], ["clean"]):
        main([verb, str(folder), *more, "--json"])
        text = capsys.readouterr().out
        assert printable(text, lines=True) == text, verb
        assert verb == "clean" or any(STEERING in said for said in strings_in(json.loads(text)))
    main(["status", str(folder), "--json"])
    assert METRIC in json.loads(capsys.readouterr().out)["data"]["runs"][0]["metrics"]


def on_terminal(words: list[str]) -> str:
    """What `mtf` sends to a terminal."""
    ours, theirs = pty.openpty()
    code = "import sys; from mtf_utils.cli import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            said += block
        process.wait(60)
    os.close(ours)
    return said.decode()


def test_logs_are_exact_for_a_pipe_and_harmless_on_a_terminal(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = names_of(folder)[True]
    log = SweepDirectory(folder).run(name).log_file(1).read_text("utf-8", "replace")
    main(["logs", str(folder), name])
    assert capfd.readouterr().out == log
    for more in ([], ["--follow"]):
        shown = on_terminal(["logs", str(folder), name, *more])
        assert "\x1b[31mred\x1b[0m" in shown
        assert r"\x1b]0;owned\x07\x1b]52;c;aGk=\x07\x1b[2J\x1b[9A\x9b2J\u202e" in shown
        left = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "")
        assert printable(left, lines=True) == left


@pytest.mark.parametrize("display", [PlainLines, LiveTable])
def test_displays_show_and_do_not_obey(display: Any) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=400)
    shows = display(console)
    telemetry = Telemetry(epoch=1, global_step=2, metrics={METRIC: 1.0}, headline=METRIC)
    shows.update([RunView(name="a", status=JobStatus.FAILED, reason=STEERING, telemetry=telemetry)])
    shows.say(f"two\nlines {STEERING}")
    shows.close()
    text = console.file.getvalue()
    assert not [evil for evil in (TITLE, CLIPBOARD, CLEAR, UP, C1, BIDI) if evil in text]
    assert text.count(r"\x1b]0;owned\x07") >= 3  # metric, reason, and what was said


def test_a_spreadsheet_finds_no_formula(folder: Path, tmp_path: Path) -> None:
    result = GridSearchResult(folder)
    path = result.to_csv(tmp_path / "table.csv")
    with path.open(newline="", encoding="utf-8") as file:
        header, *table = csv.reader(file)
    cells = [cell for row in (header, *table) for cell in row]
    assert f"'{METRIC}" in header
    assert f"'=1+1{STEERING}" in cells
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    values = json.loads(result.to_json(tmp_path / "table.json").read_text())
    assert METRIC in values["runs"][0]["metrics"]
