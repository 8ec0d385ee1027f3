"""What comes back by policy, on a real Slurm: every kind of end, classified, explained, and tried again or not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_bench import ClusterBench, experiments, wait_until
from mtf_slurm import JobStatus, RunResult
from mtf_slurm.submissions import Submissions
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main
from mtf_utils.rundir import SweepDirectory

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

S = JobStatus

# Here nothing but the sampling itself ends what uses too much memory.
LIMITED = {
    "JobAcctGatherParams": "OverMemoryKill",
    "JobAcctGatherFrequency": "task=1",
    "SelectTypeParameters": "CR_Core_Memory",
    "DefMemPerNode": "1000",
}

# What a run does is told by its name. Whatever ends it, it leaves a longer journal: so it gets on.
TRAIN = """
import os, pathlib, signal, sys, time
name, run = os.environ["MTF_EXPERIMENT"], pathlib.Path(os.environ["MTF_RUN_DIR"])
with (run / "metrics.jsonl").open("a") as file:
    file.write('{"event": "train", "epoch": 0, "global_step": 1, "loss": 1.0}\\n')
if (run / "let-go").exists():
    sys.exit(0)
if name.startswith("import"):
    import no_such_module
if name.startswith("content"):
    sys.exit(0)
if name.startswith("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if name.startswith("hungry"):
    held = bytearray(150 * 2**20)
if name.startswith("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if name.startswith("fragile"):
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if name.startswith("polite"):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: sys.exit(75))
(run / f"held-{os.environ['MTF_ATTEMPT']}").touch()
time.sleep(120)
"""


class Bench(ClusterBench):
    """A project in a repository."""

    def __init__(self, cluster: LocalCluster, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(cluster, root, monkeypatch, {"train.py": TRAIN, ".gitignore": "experiments/\nbin/\n"})
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "one")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True)

    def submit(self, *names: str, retries: dict[str, Any] | None = None, **slurm: Any) -> dict[str, str]:
        """Submits them together; what was not submitted, and why."""
        return dict(self.submit_batch(experiments(names, slurm={**slurm, "retries": retries or {}})).failed)

    def result(self, name: str) -> RunResult:
        return self.results()[name]

    def wait_held(self, name: str, attempt: int = 1) -> None:
        wait_until((self.run(name).path / f"held-{attempt}").exists, f"attempt {attempt} of {name}")

    def end_its_time(self, name: str) -> None:
        self.cluster.run(["scontrol", "update", f"JobId={self.result(name).job_id}", "EndTime=now"])

    def asked_of_slurm(self, name: str) -> str:
        return self.cluster.run(["scontrol", "show", "job", "-o", self.result(name).job_id or ""]).stdout

    def rewrite(self, program: str, change: str) -> None:
        """Have a program of Slurm say something else, by a command of sed."""
        self.replace_program(program, f'set -o pipefail\n{shutil.which(program)} "$@" | sed "{change}"')


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Callable[..., LocalCluster]) -> Iterator[LocalCluster]:
    with slurm_cluster(ClusterSettings(nodes=1, kill_wait_s=2, options=LIMITED)) as cluster:
        yield cluster


@pytest.fixture
def bench(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield Bench(cluster, tmp_path, monkeypatch)
    cluster.run(["scancel", "--state=PENDING,RUNNING", f"--user={os.geteuid()}"], check=False)


def explained(bench: Bench, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["explain", str(bench.folder), name]) == 0
    return capsys.readouterr().out


def test_an_import_error_is_explained_and_not_repeated(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.submit("import-1") == {}
    bench.wait_over("import-1")
    run = bench.result("import-1")
    assert (run.status, run.reason) == (S.FAILED, "ModuleNotFoundError: No module named 'no_such_module'")
    assert run.held == "failed once, and slurm.retries.failure is 0"
    shown = explained(bench, "import-1", capsys)
    assert "    import no_such_module" in shown
    assert (
        f"see the log, mend what is wrong, and submit the sweep again; or ask for it: mtf retry {bench.folder}" in shown
    )
    assert bench.submit("import-1") == {"import-1": run.held}
    assert bench.result("import-1").attempts == 1
    (bench.root / "no_such_module.py").touch()
    (bench.run("import-1").path / "let-go").touch()
    (bench.root / "train.py").write_text(TRAIN.replace("if (run", "import no_such_module\nif (run"))
    assert bench.submit("import-1") == {}
    bench.wait_over("import-1")
    assert (bench.result("import-1").status, bench.result("import-1").attempts) == (S.COMPLETED, 2)


def test_a_failure_is_repeated_by_its_job_as_often_as_allowed(bench: Bench) -> None:
    assert bench.submit("import-2", retries={"failure": 1}) == {}
    bench.wait_over("import-2")
    run = bench.result("import-2")
    assert (run.status, run.attempts) == (S.FAILED, 2)
    assert run.held == "failed 2 times, and slurm.retries.failure is 1"
    starts = [attempt.started() for attempt in bench.run("import-2").attempts()]
    assert len({start.job_id for start in starts if start}) == 1


def test_a_partition_that_is_not_there_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    refused = bench.submit("polite-0", partition="nowhere")
    assert "partition" in refused["polite-0"]
    assert "low" in refused["polite-0"]  # which there are
    shown = explained(bench, "polite-0", capsys)
    assert "NOT_SUBMITTED" in shown
    assert "to do      change what it asks for (section slurm), and submit the sweep again" in shown
    assert bench.run("polite-0").attempts() == []
    (bench.run("polite-0").path / "let-go").touch()
    assert bench.submit("polite-0") == {}
    bench.wait_over("polite-0")
    assert bench.result("polite-0").status is S.COMPLETED


def test_the_time_limit_has_a_budget_of_its_own(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """One run saves and goes on by itself; others are not allowed to, hear nothing and are killed, or die of it."""
    assert bench.submit("polite-1") == {}
    over = ("polite-2", "deaf-1", "fragile-1")
    assert bench.submit(*over, retries={"timeout": 0}) == {}
    assert bench.submit("deaf-2", retries={"timeout": 1}) == {}
    for name in ("polite-1", *over, "deaf-2"):
        bench.wait_held(name)
        bench.end_its_time(name)
    bench.wait_over(*over, "deaf-2")
    for name in over:
        run = bench.result(name)
        assert (name, run.status, run.held) == (name, S.TIMEOUT, "out of time once, and slurm.retries.timeout is 0")
    assert "ask for more time (slurm.time_limit), and submit the sweep again; or ask" in explained(
        bench, "deaf-1", capsys
    )
    wait_until(lambda: bench.result("polite-1").attempts == 2, "the second attempt of polite-1")
    assert bench.run("polite-1").attempt(1).time_limit_file.exists()

    assert bench.result("deaf-2").held == ""
    assert bench.submit("deaf-2", retries={"timeout": 1}) == {}  # nothing has changed, and the budget allows it
    bench.wait_held("deaf-2", 2)
    ends = [end for submission in Submissions(SweepDirectory(bench.folder)).all() for end in submission.ended]
    assert [(end.run, end.attempt, end.cause) for end in ends] == [("deaf-2", 1, "timeout")]
    assert bench.submit("polite-2", "deaf-1", retries={"timeout": 0}).keys() == {"polite-2", "deaf-1"}
    for name in ("polite-2", "deaf-1"):
        (bench.run(name).path / "let-go").touch()
    done = bench.launcher.retry(bench.folder, ["polite-2", "deaf-1"])
    assert done.retried == ("polite-2", "deaf-1")
    bench.wait_over(*done.retried)
    assert {bench.result(name).status for name in done.retried} == {S.COMPLETED}


def test_memory_that_did_not_suffice_is_asked_for_more(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    retries = {"out_of_memory": 2, "max_memory": "100M"}
    assert bench.submit("hungry-1", mem="40M", retries=retries) == {}
    assert bench.submit("hungry-2", "content-1", mem="40M") == {}  # tasks of an array, whose output is one
    assert bench.submit("hungry-3", mem="40M", nodes=1, ntasks_per_node=2) == {}  # killed in a step of srun
    bench.wait_over("hungry-1", "hungry-2", "hungry-3", "content-1")
    assert bench.result("content-1").status is S.COMPLETED
    for name in ("hungry-1", "hungry-2", "hungry-3"):
        run = bench.result(name)
        assert run.status is S.OUT_OF_MEMORY
        assert re.fullmatch(r"out of memory \(40M asked for, up to [1-9]\d+M in use when sampled\)", run.reason)
    assert bench.result("hungry-2").held == "out of memory once, and slurm.retries.out_of_memory is 0"
    shown = explained(bench, "hungry-2", capsys)
    assert "ask for more (slurm.mem), or make the batch smaller" in shown
    assert re.search(
        r"slurmstepd says OUT_OF_MEMORY, StepId=\d+\.batch exceeded memory limit \(\d+ > 41943040\)", shown
    )
    assert bench.submit("hungry-2", mem="40M") == {"hungry-2": bench.result("hungry-2").held}
    for wanted in ("60M", "90M"):
        assert bench.submit("hungry-1", mem="40M", retries=retries) == {}
        assert f"MinMemoryNode={wanted}" in bench.asked_of_slurm("hungry-1")
        bench.wait_over("hungry-1")
    assert bench.result("hungry-1").held == "out of memory 3 times, and slurm.retries.out_of_memory is 2"
    assert bench.submit("hungry-1", mem="40M", retries=retries).keys() == {"hungry-1"}
    (bench.run("hungry-1").path / "let-go").touch()
    assert main(["retry", str(bench.folder), "--oom", "--dry-run"]) == 0
    assert "3 of 4 runs would be tried again" in capsys.readouterr().out
    bench.launcher.retry(bench.folder, ["hungry-1"])
    assert "MinMemoryNode=100M" in bench.asked_of_slurm("hungry-1")
    bench.wait_over("hungry-1")
    assert bench.result("hungry-1").status is S.COMPLETED
    asked = json.loads(bench.run("hungry-1").config_json.read_text())["slurm"]["mem"]
    assert asked == "40M"  # the experiment is what it was


def test_a_job_that_lost_a_process_for_want_of_memory(bench: Bench) -> None:
    """The kernel ends what is too large in a cgroup, of which there is none here: so squeue is made to say so."""
    bench.rewrite("squeue", "s/|FAILED *|/|OUT_OF_MEMORY|/")
    assert bench.submit("killed-1", "import-3", mem="200M") == {}
    bench.wait_over("killed-1", "import-3")
    its_own = "ModuleNotFoundError: No module named 'no_such_module'"
    reasons = {name: bench.result(name).reason for name in ("killed-1", "import-3")}
    assert reasons == {
        "killed-1": "out of memory (200M asked for)",
        "import-3": f"out of memory (200M asked for); {its_own}",
    }
    assert {bench.result(name).status for name in reasons} == {S.OUT_OF_MEMORY}


def test_a_limit_on_preemptions_holds_until_somebody_asks(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def submit(limit: int) -> dict[str, str]:
        return dict(bench.submit_batch(experiments(["polite-3"], preemption={"max_preemptions": limit})).failed)

    def preempt(attempt: int) -> None:
        bench.wait_held("polite-3", attempt)
        bench.cluster.run(["scontrol", "requeue", bench.result("polite-3").job_id or ""])

    assert submit(0) == {}
    preempt(1)
    bench.wait_over("polite-3")
    held = "preempted once, and preemption.max_preemptions is 0"
    assert (bench.result("polite-3").status, bench.result("polite-3").held) == (S.FAILED, held)
    assert main(["status", str(bench.folder)]) == 0
    shown = capsys.readouterr().out
    assert f"polite-3: {held}" in shown
    assert f"to ask: mtf retry {bench.folder} RUN" in shown
    assert submit(0) == {"polite-3": held}
    before = len(bench.run("polite-3").attempts())
    assert submit(1) == {}  # a raised limit is an asking
    preempt(before + 1)
    bench.wait_held("polite-3", before + 2)
    assert bench.result("polite-3").status is S.RUNNING
    preempt(before + 2)
    bench.wait_over("polite-3")
    assert bench.result("polite-3").held == "preempted 2 times, and preemption.max_preemptions is 1"
    (bench.run("polite-3").path / "let-go").touch()
    assert main(["retry", str(bench.folder), "polite-3"]) == 0
    bench.wait_over("polite-3")
    assert bench.result("polite-3").status is S.COMPLETED
    assert [ask.how for ask in bench.run("polite-3").asks()] == [
        "submitted with other code or settings",
        "asked for by name",
    ]
