"""The lines of slurm.setup: as in a shell that someone sits at, but nothing that fails is passed over."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_folders import Script

from mtf_config import ExecutionMode
from mtf_slurm import GridSearchResult, JobSubmissionError, SLURMLauncher, cluster
from mtf_slurm.setup_lines import setup_problem
from mtf_utils.cli import main
from mtf_utils.exits import EXIT_PREEMPTED

MODULE = 'module() { local tool=$2; false; [ "$tool" = there ] && return 0; echo "no $tool" >&2; return 3; }'
ACTIVATE = 'f() { grep -q nothing /dev/null; unset nothing; }\nf\n[ -n "$NOT_SET" ]\nexport ACTIVATED=1\n'


@pytest.fixture
def script(tmp_path: Path) -> Script:
    script = Script(tmp_path)
    (script.root / "activate").write_text(ACTIVATE)
    (script.root / "broken").write_text("export ACTIVATED=1\nfalse\n")
    return script


def test_setup_runs_first_in_the_same_shell(script: Script) -> None:
    setup = ("greeting='hello world'", "export GREETING=$greeting", "mtf_unrelated=1", "name=x; root=y; set -eu")
    script.write("import os; print(os.environ['GREETING'])", setup=setup)
    assert script.execute()[0] == 0
    assert script.run.log_file(1).read_text() == "hello world\n"


@pytest.mark.parametrize("setup", [
    (MODULE, "module load there"),
    ("source ./activate", "test $ACTIVATED = 1"),
    (". ./activate",),
    ("set -u", "set +u", "source ./activate"),
    ("[ -d /no/such/place ] && export TMPDIR=/no/such/place",),
    ("[ -d /no/such/place ] && false", "true"),
    ("if [ -d /no/such/place ]; then", "  false", "fi"),
    ("false || true", "! false", "while false; do :; done", "false | true"),
    ("grep -q nothing /dev/null || export NOTHING=1",),
    ("declare -x DECLARED=1", "eval 'export EVALED=1'"),
    ("cat <<END", "text", "END"),
    ("echo continued \\",),
    ("exec 9>lock", "trap 'echo bye' EXIT"),
    ("mtf_line=x", "mtf_depth=9"),
])  # fmt: skip
def test_what_works_in_a_shell_works(script: Script, setup: tuple[str, ...]) -> None:
    script.write("import os; print(os.environ.get('ACTIVATED'))", setup=setup)
    assert script.execute()[0] == 0, script.run.log_file(1).read_text()
    assert script.receipt().outcome == "finished"


def test_no_option_of_a_line_changes_what_comes_after(script: Script) -> None:
    script.write("print('ran')", setup=("set -efux; set -o pipefail; shopt -s failglob nullglob dotglob; IFS=,",))
    assert script.execute()[0] == 0
    assert script.run.log_file(1).read_text().endswith(" set +efux\nran\n")  # the last line that is traced


@pytest.mark.parametrize(("setup", "why"), [
    (("module load cuda/12",), "'module load cuda/12' ended with status 127"),
    ((MODULE, "module load \"not\\there\"", "true"), "'module load \"not\\there\"' ended with status 3"),
    (("source no/such/activate",), "'source no/such/activate' ended with status 1"),
    (("source ./broken", "true"), "'source ./broken' ended with status 1"),
    (("true; false; true",), "'false' ended with status 1"),
    (("export A=1\nsh -c 'exit 9'\nexport B=1",), "'sh -c 'exit 9'' ended with status 9"),
    (("x=$(sh -c 'exit 5')",), "'x=$(sh -c 'exit 5')' ended with status 5"),
    (("for x in 1 2; do", "false", "done"), "'false' ended with status 1"),
    (("exit 3",), "'exit 3' ended the script with status 3"),
    (("exit 0",), "'exit 0' ended the script with status 0"),
    (("set -u", "echo $no_such_name"), "'echo $no_such_name' ended the script with status 1"),
    (("IFS=,; set -f; shopt -s failglob", "false"), "'false' ended with status 1"),
    (("set -e", "f() { false; }", "f all"), "'f all' ended the script with status 1"),
    (("set -e", "source ./activate"), "'source ./activate' ended the script with status 1"),
])  # fmt: skip
def test_what_fails_is_the_reason(script: Script, setup: tuple[str, ...], why: str) -> None:
    script.write("open('ran', 'w')", setup=setup)
    assert script.execute()[0] == 1
    receipt = script.receipt()
    assert (receipt.outcome, receipt.exit_status) == ("failed", None)
    assert receipt.reason == f"slurm.setup: {why}; see the log"
    assert "trap" not in script.run.log_file(1).read_text()  # job.sh itself has nothing to complain of
    assert not (script.root / "ran").exists()


@pytest.mark.parametrize(("setup", "why"), [
    (("exit 3",), "'exit 3' ended the script with status 3"),
    (("set -eu", "echo $no_such_name"), "'echo $no_such_name' ended the script with status 1"),
    (("true", "false"), "'false' ended with status 1"),
])  # fmt: skip
def test_so_it_is_where_the_script_of_a_submission_reads_it_in(
    script: Script, setup: tuple[str, ...], why: str
) -> None:
    script.write("open('ran', 'w')", setup=setup)
    sweep, name = script.root / "sweep", script.run.path.name
    sweep.mkdir()
    (sweep / "runs").symlink_to(script.run.path.parent)
    reading = '. "$mtf_sweep_dir/runs/${mtf_line#* }/job.sh"'
    assert reading in (Path(cluster.__file__).parent / "task_body.sh").read_text()
    words = ["bash", "-c", f"mtf_sweep_dir=$0; mtf_line=$1\n{reading}", str(sweep), f"1 {name}"]
    assert subprocess.run(words, check=False).returncode == 1
    assert script.receipt().reason == f"slurm.setup: {why}; see the log"
    assert not (script.root / "ran").exists()


def test_a_text_that_bash_cannot_read_does_not_swallow_the_script(script: Script) -> None:
    """As after an edit by hand: it is refused before anything is submitted."""
    script.write("open('ran', 'w')", setup=("true", "true", "if then 'unclosed"))
    assert script.execute()[0] == 1
    assert script.receipt().reason == "slurm.setup: bash cannot read it; see the log"
    assert not (script.root / "ran").exists()


def test_a_line_that_was_told_to_stop_is_a_preemption(script: Script) -> None:
    """Slurm signals every process of a job."""
    script.write("open('ran', 'w')", setup=("sh -c 'kill -TERM $$'",))
    assert script.execute()[0] == EXIT_PREEMPTED
    assert script.receipt().reason == "told to stop (SIGTERM) before the command ran"
    assert not (script.root / "ran").exists()


def test_functions_of_the_login_shell_are_there(script: Script) -> None:
    """Such as `module`, which sites export."""
    script.write("pass", setup=("module load there", "echo loaded"))
    process = subprocess.run(
        ["bash", "-c", f'{MODULE}; export -f module; exec bash "$0"', script.run.job_script], timeout=60, check=False
    )
    assert process.returncode == 0
    assert script.run.log_file(1).read_text() == "loaded\n"


@pytest.mark.parametrize(("lines", "says"), [
    (("module load x", "if true; then", "  module load y", "fi"), ""),
    (("shopt -s extglob", "ls !(x)"), ""),
    (("echo a \\",), ""),
    (("true", "if then 'x"), "slurm.setup[1]: bash cannot read \"if then 'x\": syntax error near unexpected token"),
    (("a", "b\nc )\nd"), "slurm.setup[1]: bash cannot read 'c )': syntax error near unexpected token `)'"),
    (("echo 'x", "true"), "slurm.setup[0]: bash cannot read \"echo 'x\": unexpected EOF while looking for"),
    (("cat <<END", "x"), "slurm.setup[0]: bash cannot read 'cat <<END': here-document delimited by end-of-file"),
    (("true", "for x in 1; do"), "slurm.setup[1]: bash cannot read 'for x in 1; do': syntax error: unexpected end of"),
])  # fmt: skip
def test_what_bash_cannot_read_is_known_without_running_it(lines: tuple[str, ...], says: str) -> None:
    assert setup_problem(lines).startswith(says)
    assert bool(setup_problem(lines)) == bool(says)


@pytest.mark.parametrize("mode", [ExecutionMode.LOCAL, ExecutionMode.DRY_RUN])
def test_it_is_refused_before_anything_is_written(
    launcher: SLURMLauncher, make_config: Callable[..., Any], mode: ExecutionMode, tmp_path: Path
) -> None:
    bad = make_config("bad", slurm={"setup": ["true", f"touch {tmp_path}/hacked; fi"]})
    batch = launcher.submit_experiment_batch([bad, make_config("good")], mode)
    assert batch.successful == ("good",)
    assert "slurm.setup[1]: bash cannot read" in batch.failed["bad"]
    assert not (launcher.output_dir / "single" / "runs" / "bad").exists()
    with pytest.raises(JobSubmissionError, match=r"bad: slurm.setup.1.: bash cannot read .* unexpected token `fi'"):
        launcher.submit_experiment(bad, mode)
    assert not (tmp_path / "hacked").exists()


def test_everyone_is_told_which_line_failed(
    launcher: SLURMLauncher, make_config: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    setup = ["export A=1", "source venv/bin/activate", "export B=1"]
    launcher.submit_experiment(make_config("bad", slurm={"setup": setup}), ExecutionMode.LOCAL)
    folder = launcher.output_dir / "single"
    why = "slurm.setup: 'source venv/bin/activate' ended with status 1; see the log"
    assert GridSearchResult(folder).failures() == {"bad": why}
    assert main(["explain", str(folder), "bad"]) == 0
    told = capsys.readouterr().out
    assert f"because    {why}" in told
    assert "venv/bin/activate: No such file or directory" in told


def test_a_virtual_environment_of_the_project_is_activated(
    launcher: SLURMLauncher, project: Path, make_config: Callable[..., Any]
) -> None:
    venv.create(project / "venv", with_pip=False)
    setup = ["source venv/bin/activate", "command -v python >seen"]
    launcher.submit_experiment(make_config("a", slurm={"setup": setup}), ExecutionMode.LOCAL)
    assert (project / "seen").read_text() == f"{project}/venv/bin/python\n"
