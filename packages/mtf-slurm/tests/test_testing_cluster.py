"""The throw-away cluster with the real Slurm; skipped where Slurm is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtf_slurm.testing import ClusterError, ClusterSettings, LocalCluster, is_available

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")

Start = Callable[..., LocalCluster]
Wait = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster(slurm_cluster: Start) -> Iterator[LocalCluster]:
    """One for the tests that leave it as they find it."""
    with slurm_cluster(ClusterSettings(max_array_size=101)) as cluster:
        yield cluster


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets, wherever pytest's own lie."""
    with tempfile.TemporaryDirectory(prefix="mtf-", dir="/tmp") as folder:
        yield Path(folder).resolve()


def submit(cluster: LocalCluster, script: str, *options: str) -> str:
    words = ["sbatch", "--parsable", "--output=/dev/null", *options]
    return cluster.run(words, text_in=f"#!/bin/bash\n{script}\n").stdout.strip()


def states(cluster: LocalCluster, job: str) -> set[str]:
    return set(cluster.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"]).stdout.split())


def processes_of(folder: Path) -> list[int]:
    """Every process that names the folder in its command line or its environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in known and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def test_a_job_gets_what_it_asked_for(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")  # as in a job of another cluster
    script = f"srun sh -c 'echo $SLURM_JOB_PARTITION $SLURM_CPUS_PER_TASK $CUDA_VISIBLE_DEVICES > {tmp_path}/said'"
    cluster.reset_rpc_counts()
    job = submit(cluster, script, "--gres=gpu:2", "--cpus-per-task=3")
    wait_until(lambda: states(cluster, job) == {"COMPLETED"})
    assert (tmp_path / "said").read_text() == "low 3 0,1\n"
    assert cluster.rpc_counts()["REQUEST_SUBMIT_BATCH_JOB"] == 1


def test_an_array_runs_and_has_its_limit(cluster: LocalCluster, tmp_path: Path, wait_until: Wait) -> None:
    job = submit(cluster, f"touch {tmp_path}/$SLURM_ARRAY_TASK_ID", "--array=0-7")
    wait_until(lambda: states(cluster, job) == {"COMPLETED"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(index) for index in range(8)]
    with pytest.raises(ClusterError, match=r"sbatch .*: status 1: .*Invalid job array specification"):
        submit(cluster, "true", "--array=0-101")


def test_a_frozen_controller_takes_a_job_and_does_not_say_so(slurm_cluster: Start, wait_until: Wait) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, message_timeout_s=2)) as cluster:
        cluster.freeze_controller()
        with pytest.raises(ClusterError, match="Socket timed out"):
            submit(cluster, "true", "--job-name=unclear")
        cluster.thaw_controller()
        words = ["squeue", "-h", "-t", "all", "-n", "unclear", "-o", "%A"]
        assert wait_until(lambda: cluster.run(words, check=False).stdout) == "1\n"


def test_a_command_that_does_not_end_is_killed(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match=r"srun sleep 1000: no end after 1 s"):
        cluster.run(["srun", "sleep", "1000"], timeout_s=1)
    done = cluster.run(["squeue", "--nonsense"], check=False)
    assert done.returncode != 0


def test_two_clusters_know_nothing_of_each_other(cluster: LocalCluster, slurm_cluster: Start) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, gpus=0)) as other:
        assert submit(other, "true", "--hold", "--job-name=here") == "1"
        names = [c.run(["squeue", "-h", "-n", "here", "-o", "%j"]).stdout.split() for c in (cluster, other)]
        assert names == [[], ["here"]]
        assert other.environment()["SLURM_CONF"] != cluster.environment()["SLURM_CONF"]
        folder = other.folder
    assert not folder.exists()
    assert cluster.run(["scontrol", "ping"]).returncode == 0


def test_preemption_requeues_at_once(slurm_cluster: Start, tmp_path: Path, wait_until: Wait) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, cpus=1, gpus=0, kill_wait_s=1)) as cluster:
        script = f'echo "start ${{SLURM_RESTART_COUNT:-0}}" >> {tmp_path}/said; (( SLURM_RESTART_COUNT )) || sleep 1000'
        low = submit(cluster, script)
        wait_until((tmp_path / "said").exists)
        high = submit(cluster, "true", "--partition=high")
        wait_until(lambda: states(cluster, high) == {"COMPLETED"})
        wait_until(lambda: states(cluster, low) == {"COMPLETED"})
        assert (tmp_path / "said").read_text() == "start 0\nstart 1\n"


def test_a_killed_controller_comes_back_with_its_jobs(slurm_cluster: Start, tmp_path: Path, wait_until: Wait) -> None:
    with slurm_cluster(ClusterSettings()) as cluster:
        job = submit(cluster, f"touch {tmp_path}/started; until [ -e {tmp_path}/go ]; do sleep 0.02; done")
        wait_until((tmp_path / "started").exists)
        # what has changed is written down every few seconds; what comes after that is lost with the controller
        saved = cluster.folder / "state" / "job_state"
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        submit(cluster, "true", "--hold")
        wait_until(lambda: saved.exists() and saved.stat().st_mtime_ns > before)
        cluster.kill_controller()
        with pytest.raises(ClusterError, match="slurmctld is not running"):
            cluster.kill_controller()
        assert cluster.run(["squeue"], check=False).returncode != 0
        cluster.start_controller()
        assert states(cluster, job) == {"RUNNING"}
        (tmp_path / "go").touch()
        wait_until(lambda: states(cluster, job) == {"COMPLETED"})


@pytest.mark.skipif(is_available(accounting=True) is not None, reason=is_available(accounting=True) or "")
def test_accounting_remembers_and_can_be_away(slurm_cluster: Start, wait_until: Wait) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, accounting=True)) as cluster:
        job = submit(cluster, "exit 3")
        words = ["sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", job]
        wait_until(lambda: cluster.run(words).stdout == "FAILED|3:0\n")
        cluster.stop_accounting()
        assert cluster.run(words, check=False).returncode != 0
        cluster.start_accounting()
        assert cluster.run(words).stdout == "FAILED|3:0\n"
        assert "slurmdbd" in cluster.logs()


def test_no_accounting_is_said(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="accounting=True"):
        cluster.stop_accounting()
    assert cluster.run(["sacct"], check=False).returncode != 0


def test_a_stop_leaves_neither_process_nor_folder(slurm_cluster: Start, tmp_path: Path, wait_until: Wait) -> None:
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        folder = cluster.folder
        # one that ignores signals, and one out of its session, its environment and its parents
        submit(
            cluster, f"trap '' TERM; setsid env -i {folder}/run/hidden & touch {tmp_path}/up; while :; do sleep 1; done"
        )
        wait_until((tmp_path / "up").exists)
        assert processes_of(folder)
    assert processes_of(folder) == []
    assert not folder.exists()
    cluster.stop()


def test_a_killed_owner_leaves_neither_process_nor_folder(tmp_path: Path, wait_until: Wait) -> None:
    script = """
import sys, time
from mtf_slurm.testing import ClusterSettings, LocalCluster
cluster = LocalCluster(ClusterSettings(nodes=1))
cluster.start()
cluster.run(["sbatch", "--output=/dev/null", "--wrap", f"touch {sys.argv[1]}; sleep 1000"])
print(cluster.folder, flush=True)
time.sleep(1000)
"""
    words = [sys.executable, "-c", script, str(tmp_path / "up")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        wait_until((tmp_path / "up").exists)
        assert len(processes_of(folder)) > 4
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(folder))
    wait_until(lambda: not folder.exists())


def test_a_detached_cluster_is_found_again(short_path: Path, wait_until: Wait) -> None:
    folder = short_path / "c"
    script = """
import sys
from mtf_slurm.testing import ClusterSettings, LocalCluster
LocalCluster(ClusterSettings(nodes=1, cpus=7), folder=sys.argv[1], detached=True).start()
"""
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    cluster = LocalCluster.attach(folder)
    try:
        assert cluster.is_up()
        assert cluster.settings == ClusterSettings(nodes=1, cpus=7)
        assert cluster.run(["sinfo", "-h", "-p", "low", "-o", "%c"]).stdout.strip() == "7"
        with pytest.raises(ClusterError, match=r"is up in .* already"):
            LocalCluster(folder=folder).start()
        cluster.kill_controller()
        cluster.start_controller()
    finally:
        cluster.stop()
    wait_until(lambda: not processes_of(folder))
    assert not cluster.is_up()
    assert cluster.log_tail("slurmctld", lines=3).count("\n") == 2
    with LocalCluster(ClusterSettings(nodes=1), folder=folder) as again:
        assert again.is_up()
        assert submit(again, "true") == "1"


def test_a_daemon_that_does_not_come_up_is_quoted() -> None:
    cluster = LocalCluster(ClusterSettings(options={"SelectType": "select/nonsense"}))
    with pytest.raises(ClusterError, match=r"(?s)ended with status 1; its log ends with:\n.*select/nonsense"):
        cluster.start()
    assert processes_of(cluster.folder) == []
    assert not cluster.folder.exists()
