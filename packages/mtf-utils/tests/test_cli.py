"""The `mtf` command, as a process: what is installed, what is missing, and how failures end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mtf_utils
from mtf_utils.cli import main

VERBS = """
import argparse
from mtf_utils.cli import UNREACHABLE, WORK_FAILED, Command, CommandError
from mtf_utils.settings import Problem, SettingsError

class PackageError(RuntimeError):
    exit_status = WORK_FAILED

class Preempted(RuntimeError, SystemExit):
    def __init__(self, code):
        self.code = code

def configure(parser):
    parser.add_argument("what", nargs="?", default="done")
    parser.add_argument("--amount", choices=["little", "plenty"], help="how much")
    parser.add_argument("--lines")

def run(arguments):
    what = arguments.what
    if what == "fail":
        return WORK_FAILED
    if what == "mistake":
        raise CommandError("no such sweep")
    if what == "unreachable":
        raise CommandError("the controller does not answer", exit_status=UNREACHABLE)
    if what == "package":
        raise PackageError("the job was refused")
    if what == "preempted":
        raise Preempted(75)
    if what == "explained":
        raise KeyboardInterrupt("two runs were stopped")
    if what == "settings":
        raise SettingsError([Problem(("a", "b"), "expected a number")], subject="config.yaml")
    if what == "missing":
        open("/no/such/file")
    if what == "pipe":
        raise BrokenPipeError(32, "Broken pipe")
    if what == "full":
        raise OSError(28, "No space left on device", "/disk/file")
    if what == "defect":
        return 1 // 0
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "wait":
        import signal
        print("waiting", flush=True)
        signal.pause()
    if what == "much":
        for number in range(200_000):
            print(number)
    print("ran", what)
    return 0

VERB = Command("does what it is told", configure, run)
NOT_A_COMMAND = run
"""


class Installation:
    """A folder that holds mtf-utils and whatever distributions a test declares, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path(mtf_utils.__file__).parent
        shutil.copytree(source, folder / "mtf_utils", ignore=shutil.ignore_patterns("__pycache__"))
        self.add("mtf-utils")

    def add(self, distribution: str, version: str = "1.2.3", **verbs: str) -> None:
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{verb} = {target}\n" for verb, target in verbs.items()]
        (info / "entry_points.txt").write_text("[mtf.commands]\n" + "".join(lines))

    def module(self, name: str, text: str = VERBS) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-S", "-m", "mtf_utils", *arguments]  # -S: the test environment's packages are out

    def environ(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("MTF_DEBUG", "PYTHONUNBUFFERED")}
        return kept | {"PYTHONPATH": str(self.folder)} | extra

    def mtf(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environ = self.environ(**extra)
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, env=environ, check=False)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    installation = Installation(tmp_path)
    installation.module("verbs")
    installation.add("mtf-config", validate="verbs:VERB", show="verbs:NOT_A_COMMAND", diff="verbs:GONE")
    return installation


def test_help_lists_what_is_installed_and_what_to_install(installation: Installation) -> None:
    installation.add("somebodys-extension", deploy="no_such_module:VERB")
    installation.module("verbs", "raise SystemExit('help must not import a verb')")
    done = installation.mtf("--help")
    assert (done.returncode, done.stderr) == (0, "")
    installed, missing = done.stdout.split("Not installed:")
    assert "  validate    check configuration files" in installed
    assert "From other packages:\n  deploy      somebodys-extension" in installed
    assert "Sweeps" not in installed
    assert "pip install mtf-slurm: demo, plan, run, submit, status" in missing
    assert "pip install mtf-trainer: checkpoint" in missing
    assert "mtf-config" not in missing


def test_no_verb_is_a_mistake_that_shows_help(installation: Installation) -> None:
    done = installation.mtf()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: mtf VERB")


@pytest.mark.parametrize("arguments", [("validate", "--help"), ("help", "validate"), ("validate", "-h")])
def test_help_of_a_verb(arguments: tuple[str, ...], installation: Installation) -> None:
    done = installation.mtf(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: mtf validate [-h] ")
    assert "does what it is told" in done.stdout


def test_version_names_what_is_installed(installation: Installation) -> None:
    done = installation.mtf("--version")
    python = f"Python {sys.version.split()[0]}"
    assert done.stdout.splitlines() == ["mtf-utils 1.2.3", "mtf-config 1.2.3", python]
    installation.add("mtf-slurm", "1.2.4")
    assert "do not belong together" in installation.mtf("--version").stdout


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("done", 0, ""),
        ("fail", 1, ""),
        ("mistake", 2, "mtf validate: no such sweep\n"),
        ("unreachable", 3, "mtf validate: the controller does not answer\n"),
        ("settings", 2, "mtf validate: config.yaml: a.b: expected a number\n"),
        ("missing", 2, "mtf validate: /no/such/file: No such file or directory\n"),
        ("full", 1, "mtf validate: /disk/file: No space left on device\n"),
        ("pipe", 1, "mtf validate: Broken pipe\n"),  # of something else than our output
        ("package", 1, "mtf validate: the job was refused\n"),
        ("preempted", 75, ""),
        ("explained", 130, "\nmtf: two runs were stopped\n"),
        ("interrupt", 130, "\nmtf: interrupted\n"),
    ],
)
def test_statuses_and_messages(what: str, status: int, message: str, installation: Installation) -> None:
    done = installation.mtf("validate", what)
    assert (done.returncode, done.stderr) == (status, message)
    assert done.stdout == ("ran done\n" if what == "done" else "")


def test_a_defect_is_short_unless_asked_for_the_traceback(installation: Installation) -> None:
    done = installation.mtf("validate", "defect")
    assert done.returncode == 1
    assert done.stderr.startswith("mtf validate: unexpected ZeroDivisionError: ")
    assert "MTF_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    debugged = installation.mtf("validate", "defect", MTF_DEBUG="1")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
    assert "return 1 // 0" in debugged.stderr


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("status", "mtf status: 'status' comes with mtf-slurm, which is not installed: pip install mtf-slurm\n"),
        (
            "schema",
            "mtf schema: 'schema' is not in mtf-config 1.2.3, which is installed; another version may bring it\n",
        ),
        ("vlidate", "mtf: unknown verb 'vlidate'; did you mean 'validate'?\n"),
        ("xyzzy", "mtf: unknown verb 'xyzzy'; see 'mtf --help'\n"),
        ("--json", "mtf: unknown option '--json'; the options of a verb go behind it: see 'mtf --help'\n"),
    ],
)
def test_verbs_that_are_not_there(verb: str, message: str, installation: Installation) -> None:
    done = installation.mtf(verb)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


@pytest.mark.parametrize(("verb", "reason"), [("diff", "cannot be loaded"), ("show", "is not a Command")])
def test_a_broken_package_is_named(verb: str, reason: str, installation: Installation) -> None:
    done = installation.mtf(verb)
    assert done.returncode == 1
    assert f"{verb!r} of mtf-config {reason}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_lacks_its_dependency_is_named(installation: Installation) -> None:
    installation.module("verbs", "import no_such_dependency")
    done = installation.mtf("validate")
    assert done.returncode == 1
    assert "'validate' of mtf-config cannot be loaded: No module named 'no_such_dependency'" in done.stderr


def test_a_known_verb_belongs_to_its_own_package(installation: Installation, tmp_path: Path) -> None:
    for name in ("before", "after"):  # on Python's path; the order of its folders is the order of discovery
        info = tmp_path / "rivals" / name / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[mtf.commands]\nvalidate = no_such_module:VERB\n")
    folders = (tmp_path / "rivals" / "before", installation.folder, tmp_path / "rivals" / "after")
    done = installation.mtf("validate", PYTHONPATH=os.pathsep.join(map(str, folders)))
    assert (done.returncode, done.stdout) == (0, "ran done\n")


def test_wrong_arguments_of_a_verb(installation: Installation) -> None:
    done = installation.mtf("validate", "done", "--no-such-option")
    assert done.returncode == 2
    assert "mtf validate: error: unrecognized arguments: --no-such-option\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--line", "3"], "unrecognized arguments: --line; did you mean --lines?"),
        (["--lnes=3"], "unrecognized arguments: --lnes=3; did you mean --lines?"),
        (["--amount", "plent"], "did you mean 'plenty'?"),
        (["done", "more"], "unrecognized arguments: more\n"),
    ],
)
def test_what_somebody_meant(words: list[str], message: str, installation: Installation) -> None:
    done = installation.mtf("validate", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_help_is_a_verb_too(installation: Installation) -> None:
    assert installation.mtf("help").stdout == installation.mtf("--help").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c(installation: Installation) -> None:
    command = installation.command("validate", "wait")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=installation.environ(), text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "\nmtf: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (("validate", "much"), ""),
        (("validate", "much"), "1"),
        (("--help",), ""),
        (("--help",), "1"),
        (("validate", "--help"), ""),
    ],
)
def test_a_reader_that_has_seen_enough(arguments: tuple[str, ...], unbuffered: str, installation: Installation) -> None:
    read, write = os.pipe()
    os.close(read)
    command, environ = installation.command(*arguments), installation.environ(PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=environ, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("validate", "much"), ("--help",)])
def test_output_on_a_full_disk(arguments: tuple[str, ...], installation: Installation) -> None:
    command, environ = installation.command(*arguments), installation.environ()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environ, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(": No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_main_can_be_called_where_output_is_captured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-verb"]) == 2
    assert capsys.readouterr().err.startswith("mtf: unknown verb 'no-such-verb'")
