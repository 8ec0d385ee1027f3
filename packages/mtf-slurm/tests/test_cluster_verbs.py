"""`mtf plan` and `mtf submit` on a real Slurm: templates, a controller that hangs, Ctrl-C, what is left as it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_runs import wait_for

from mtf_slurm.submissions import Submissions
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main
from mtf_utils.rundir import CONTRACT, SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

DEADLINE_S = 90.0
SWEEP = """
name: sizes
command: "true"
base:
  experiment_name: tiny
  model: {name: none}
  data: {dataset_name: none}
  optimizer: {name: none}
  slurm: {template_path: ../site.sh.j2, time_limit: "0:05:00"}
grids:
  - {name: grid, parameters: {seed: [1, 2]}}
"""
TEMPLATE = """#!/bin/bash
{% for option in options %}
#SBATCH {{ option }}
{% endfor %}
#SBATCH --comment=WORD
{{ body }}
"""
# Of the example of a complete configuration, everything that Slurm is asked for.
EXAMPLE = """
  slurm:
    job_name: "training_job"
    time_limit: "24:00:00"
    nodes: 1
    ntasks_per_node: 1
    cpus_per_task: 4
    mem: "32G"
    gres: "gpu:1"
    partition: "gpu"
    additional_args: []
"""


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    with slurm_cluster(ClusterSettings(nodes=1, message_timeout_s=8)) as started:
        yield started


@pytest.fixture
def sweep(cluster: LocalCluster, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project)
    (project / "pyproject.toml").touch()
    (project / "sweeps").mkdir()
    (project / "site.sh.j2").write_text(TEMPLATE.replace("WORD", "from-the-file"))
    file = project / "sweeps" / "sweep.yaml"
    file.write_text(SWEEP)
    return file


def comments(cluster: LocalCluster, folder: Path) -> set[str]:
    names = {job.job_name for item in Submissions(SweepDirectory(folder)).all() for job in item.jobs}
    rows = cluster.run(["squeue", "-h", "-t", "all", "-o", "%j|%k"]).stdout.split()
    return {row.split("|")[1] for row in rows if row.split("|")[0] in names}


def test_a_template_of_the_sweep_and_one_of_the_command(
    sweep: Path, cluster: LocalCluster, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(sweep)]) == 0
    planned = capsys.readouterr().out
    assert f"(from {project}/site.sh.j2):" in planned
    assert "\n  #SBATCH --comment=from-the-file\n" in planned
    assert main(["submit", str(sweep), "-o", "one"]) == 0
    assert comments(cluster, project / "one") == {"from-the-file"}

    (project / "other.j2").write_text(TEMPLATE.replace("WORD", "{{ time_limit }}"))
    capsys.readouterr()
    assert main(["plan", str(sweep), "--template", "other.j2", "--json"]) == 0
    (script,) = json.loads(capsys.readouterr().out)["data"]["scripts"]
    assert (script["template"], len(script["runs"])) == (str(project / "other.j2"), 2)
    assert "#SBATCH --comment=0:05:00\n" in script["text"]
    assert main(["submit", str(sweep), "-o", "two", "--template", "other.j2"]) == 0
    assert comments(cluster, project / "two") == {"0:05:00"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{% endfor %}", "", r"site\.sh\.j2:\d: Unexpected end of template"),
        ("WORD", "{{ patrition }}", r"site\.sh\.j2:5: unknown name 'patrition' \(did you mean partition\?\)"),
        ("WORD", "{{ partition }}", r"site\.sh\.j2:5: a value is null"),
        ("{{ body }}", "", r"site\.sh\.j2: there is no \{\{ body \}\}"),
        (
            "--comment=WORD",
            "--coment=x",
            r"site\.sh\.j2:5: '#SBATCH --coment=x': sbatch has no option --coment; did you mean --comment\?",
        ),
    ],
)
def test_a_mistake_in_a_template_is_said_before_anything_is_written(
    sweep: Path, project: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    (project / "site.sh.j2").write_text(TEMPLATE.replace(old, new))
    assert main(["plan", str(sweep)]) == 2
    assert re.search(says, capsys.readouterr().out)
    for words in (["submit", str(sweep)], ["run", str(sweep), "-e", "dry_run"]):
        assert main([*words, "-o", "out"]) == 2
        shown = capsys.readouterr()
        assert re.search(says, shown.err)
        assert "Traceback" not in shown.err
        assert not (project / "out").exists()


def test_what_the_spec_asks_for_runs(sweep: Path, cluster: LocalCluster, project: Path) -> None:
    sweep.write_text(re.sub(r"\n  slurm:.*\n", EXAMPLE, SWEEP))
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    folder = SweepDirectory(project / "out")
    wait_for(lambda: all(run.attempt(1).finished() for run in folder.runs()), "the end of the runs")
    assert {run.attempt(1).finished().outcome for run in folder.runs()} == {"finished"}


def test_every_file_of_a_folder_is_in_the_contract(sweep: Path, project: Path) -> None:
    sweep.write_text(SWEEP.replace('time_limit: "0:05:00"', "additional_args: [--begin=now+1hour]"))
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    assert main(["cancel", "out", "--all"]) == 0
    sweep.write_text(SWEEP.replace('time_limit: "0:05:00"', "partition: nowhere"))
    assert main(["submit", str(sweep), "-o", "out"]) == 2
    rows = [re.sub(r"<[^>]+>", "[^/]+", re.escape(row.path).replace("\\<", "<")) for row in CONTRACT]
    found = [str(path.relative_to(project / "out")) for path in (project / "out").rglob("*") if path.is_file()]
    assert {"0.refused", "0.job.json", "0.sent", "0.tasks", "intent.json"} <= {Path(name).name for name in found}
    assert any("/cancelled/" in name for name in found)
    for name in found:
        assert any(re.fullmatch(row if not row.endswith("/") else f"{row}.*", name) for row in rows), name


def test_what_is_left_as_it_is_is_named(sweep: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.write_text(SWEEP.replace('time_limit: "0:05:00"', "additional_args: [--begin=now+1hour]"))
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    assert "left as it is" not in capsys.readouterr().err
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    names = sorted(run.name for run in SweepDirectory(project / "out").runs())
    shown = capsys.readouterr().err
    assert "in Slurm already (PENDING)" in shown
    assert all(name in shown for name in names)
    assert main(["cancel", "out", "--all"]) == 0


def start(words: list[str], project: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mtf_utils", *words]
    return subprocess.Popen(command, cwd=project, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_a_controller_that_hangs_is_told_of_and_ctrl_c_says_how_it_stands(
    sweep: Path, cluster: LocalCluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # freezes the controller at the very moment when the job is sent
    (pid,) = re.findall(r"\d+", (cluster.folder / "run" / "slurmctld.pid").read_text())
    sbatch = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/sh\nkill -STOP {pid}\nexec {sbatch} "$@"\n')
    (folder / "sbatch").chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{folder}:{path}")
    process = start(["submit", str(sweep), "-o", "out"], project)
    try:
        said = read_until(process, "has not answered since")
        assert "waiting for sbatch to hear whether it queued the job, until" in said
        assert "Nothing is lost" in said
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=DEADLINE_S)
    finally:
        os.kill(int(pid), signal.SIGCONT)
        process.kill()
    assert process.returncode == 130
    assert "interrupted; of 2 runs: 2 sent without an answer. Nothing is lost" in rest
    assert "Traceback" not in said + rest

    monkeypatch.setenv("PATH", path)
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    (submission,) = Submissions(SweepDirectory(project / "out")).all()
    queued = cluster.run(["squeue", "-h", "-r", "-t", "all", "-o", "%j"]).stdout.split()
    assert queued.count(submission.jobs[0].job_name) == 2  # the tasks of one array


def test_ctrl_c_before_anything_was_sent(sweep: Path, cluster: LocalCluster, project: Path) -> None:
    cluster.freeze_controller()
    process = start(["submit", str(sweep), "-o", "out"], project)
    try:
        assert "waiting for scontrol" in read_until(process, "has not answered since")
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=DEADLINE_S)
    finally:
        cluster.thaw_controller()
        process.kill()
    assert process.returncode == 130
    assert "interrupted; nothing new was submitted" in rest
    assert "mtf status" not in rest  # there is nothing yet that it could tell of
    assert "Traceback" not in rest
    assert main(["submit", str(sweep), "-o", "out"]) == 0


def test_a_verb_that_reads_tells_of_it_too(sweep: Path, cluster: LocalCluster, project: Path) -> None:
    sweep.write_text(SWEEP.replace('time_limit: "0:05:00"', "additional_args: [--begin=now+1hour]"))
    assert main(["submit", str(sweep), "-o", "out"]) == 0
    cluster.freeze_controller()
    process = start(["status", "out"], project)
    try:
        assert "waiting for squeue" in read_until(process, "has not answered since")
        process.communicate(timeout=DEADLINE_S)
    finally:
        cluster.thaw_controller()
        process.kill()
    assert process.returncode == 3
    assert main(["cancel", "out", "--all"]) == 0
