"""The text of job.sh: what is data stays data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.render import DEFAULT_COMMAND, JobScript, render_job, split_command

HOSTILE = [
    "it's",
    'say "hi"',
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked;",
    "a\nb",
    "-rf",
    "--",
    "",
    "*",
    "~",
    "\\",
    "!!",
    "$HOME",
    "{x y}",
    "%s",
    "ü 漢",
]
SHOW_WORDS = "import json, sys; json.dump(sys.argv[1:], open(sys.argv[1] + '/words.json', 'w'))"


def words_seen(tmp_path: Path, words: list[str], **values: object) -> list[str]:
    """The words that the command is really called with."""
    command = ("{python}", "-c", SHOW_WORDS, "{run_dir}", *words)
    settings = {"name": "run", "project_root": tmp_path, "python": sys.executable} | values
    script = tmp_path / "job.sh"
    script.write_text(render_job(JobScript(command=command, **settings)))  # type: ignore[arg-type]
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen: list[str] = json.loads((tmp_path / "words.json").read_text())
    return seen[1:]


def test_hostile_words_arrive_unchanged_and_run_nothing(tmp_path: Path) -> None:
    assert words_seen(tmp_path, HOSTILE) == HOSTILE
    assert not (tmp_path / "hacked").exists()


def test_hostile_name_root_and_folder_are_data(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b' \"c\" $(touch hacked) ; é\n-d"
    folder.mkdir()
    name = "x'; touch hacked; '"
    seen = words_seen(folder, ["{name}", "-{name}-", "{config}", "--c={config}"], name=name)
    assert seen == [name, f"-{name}-", f"{folder}/config.json", f"--c={folder}/config.json"]
    assert not list(tmp_path.rglob("hacked"))


@settings(deadline=None)  # starts a shell
@given(word=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_literal_word_is_rendered_as_one_quoted_word(word: str) -> None:
    literal = word.replace("{", "(")  # no placeholders
    text = render_job(JobScript(name="n", project_root=Path("/p"), python="python", command=("echo", literal)))
    start = text.index("mtf_command() { exec ") + len("mtf_command() { ")
    call = text[start : text.index("; }\n\n# From here on", start)].removeprefix('exec -- "$@" echo ')
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {call}"], capture_output=True, check=True, timeout=60)
    assert shown.stdout == literal.encode() + b"\0"


def test_a_moved_folder_still_finds_its_files(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    words_seen(first, ["{config}"])
    second = first.rename(tmp_path / "second")
    subprocess.run(["bash", second / "job.sh"], check=False, timeout=60)
    # the project root has moved away, so the run fails, and says so where it is now
    receipt = json.loads((second / "attempts" / "2" / "finished.json").read_text())
    assert receipt["outcome"] == "failed"
    assert receipt["reason"] == "the project root cannot be entered"


def test_doubled_braces_mean_themselves_and_json_is_left_alone(tmp_path: Path) -> None:
    words = ["{{config}}", '{"a": {"b": 1}}', "{}", "{{}}", "{1}"]
    assert words_seen(tmp_path, words) == ["{config}", *words[1:]]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{python} train.py --config {config}", DEFAULT_COMMAND),
        ("torchrun 'my train.py' --x=\"a b\"", ("torchrun", "my train.py", "--x=a b")),
        (["a", "b c"], ("a", "b c")),
    ],
)
def test_split_command(command: str | list[str], words: tuple[str, ...]) -> None:
    assert split_command(command) == words


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "expected a program"),
        ([], "expected a program"),
        (["", "x"], "expected a program"),
        ("python 'train.py", "close the quote"),
        ("{pyton} train.py", "did you mean {python}"),
        ("python {experiment}", "known are {python}, {config}, {run_dir}, {name}"),
        (["python", "a\0b"], "NUL"),
    ],
)
def test_bad_commands_are_refused(command: str | list[str], says: str) -> None:
    with pytest.raises(JobSubmissionError, match=says.replace("{", r"\{").replace("}", r"\}")):
        split_command(command)


def test_a_root_with_a_colon_is_refused() -> None:
    with pytest.raises(JobSubmissionError, match="PYTHONPATH"):
        render_job(JobScript(name="n", project_root=Path("/a:b"), python="python"))


def test_the_signal_of_the_script_itself_is_refused() -> None:
    with pytest.raises(JobSubmissionError, match="SIGURG"):
        render_job(JobScript(name="n", project_root=Path("/p"), python="python", signals=("SIGURG",)))


def test_rendering_is_pure() -> None:
    job = JobScript(name="n", project_root=Path("/p"), python="python", setup=("module load x",))
    assert render_job(job) == render_job(job)
