"""The verbs about a cluster itself: cluster up, status, env, down; doctor."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mtf_slurm.cluster.doctor import Doctor, judge_clock
from mtf_slurm.cluster.machine import _torch, check_speed, judge_speed
from mtf_slurm.cluster.programs import Ran
from mtf_slurm.testing import is_available
from mtf_utils.cli import main

needs_slurm = pytest.mark.skipif(is_available() is not None, reason=is_available() or "")


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mtf-", dir="/tmp") as folder:
        yield Path(folder).resolve()


@needs_slurm
def test_a_cluster_from_the_shell(short_path: Path, capsys, monkeypatch, project) -> None:
    folder = str(short_path / "c")
    assert main(["cluster", "status", "--folder", folder]) == 1
    assert "no cluster is up" in capsys.readouterr().out
    assert main(["cluster", "up", "--folder", folder, "--nodes", "1", "--memory", "1.5T", "--json"]) == 2
    assert "--memory 1.5T: expected an amount" in capsys.readouterr().err
    assert main(["cluster", "up", "--folder", folder, "--nodes", "1", "--memory", "2T", "--json"]) == 0
    try:
        assert json.loads(capsys.readouterr().out)["data"]["up"]
        assert main(["cluster", "up", "--folder", folder]) == 2
        assert f"is up in {folder} already\nto use it: eval" in capsys.readouterr().err
        assert main(["cluster", "env", "--folder", folder]) == 0
        lines = capsys.readouterr().out
        words = ["bash", "-c", f"{lines}\nsinfo -h -o '%D %m'"]
        asked = subprocess.run(words, capture_output=True, text=True, check=True)
        assert asked.stdout.split()[:2] == ["1", str(2 * 1024**2)]
        assert main(["cluster", "status", "--folder", folder]) == 0
        assert "low*" in capsys.readouterr().out

        monkeypatch.chdir(project)
        main(["cluster", "env", "--folder", folder, "--json"])
        for name, value in json.loads(capsys.readouterr().out)["data"]["environment"].items():
            monkeypatch.setenv(name, value)
        assert main(["doctor", "--json"]) == 0
        checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["data"]["checks"]}
        levels = {name: checks[name]["level"] for name in ("controller", "partitions", "accounting", "locks", "clock")}
        assert levels == {"controller": "ok", "partitions": "ok", "accounting": "note", "locks": "ok", "clock": "ok"}
        assert checks["partitions"]["said"] == "low (default), gpu, high"
    finally:
        assert main(["cluster", "down", "--folder", folder]) == 0
    assert main(["doctor"]) == 3
    assert "problem  controller: slurm_load_ctl" in capsys.readouterr().out
    assert main(["cluster", "down", "--folder", folder]) == 0
    assert "was not up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--nodes", "0"], "nodes: expected a number >= 1"),
        (["down"], "no cluster was started in"),
        (["env"], "no cluster was started in"),
        (["env", "--gpus", "2"], "--gpus belongs to `mtf cluster up`"),
        (["down", "--memory", "2"], "--memory belongs to `mtf cluster up`"),
        (["up", "--memory", "lots"], "--memory lots: expected an amount of 1 MB or more, such as 64G or 64000 (MB)"),
        (["up", "--memory", "1023K"], "--memory 1023K: expected an amount of 1 MB or more"),
        (["up", "--folder", "/etc/passwd"], "/etc/passwd"),
    ],
)
def test_mistakes_have_status_2_and_one_message(arguments, says, short_path, capsys) -> None:
    folder = [] if "--folder" in arguments else ["--folder", str(short_path / "c")]
    assert main(["cluster", *arguments, *folder]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err


CONFIG = """Configuration data as of 2026-01-01T00:00:00
MaxArraySize            = 1001
MinJobAge               = {age} sec
JobRequeue              = {requeue}
SLURM_VERSION           = 23.02.1
"""


def examine(tmp_path: Path, answers: dict[str, Ran], monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sinfo"):
        programs.joinpath(name).touch(0o755)
    monkeypatch.setenv("PATH", str(programs))

    def run(words: Sequence[str], *, text_in: str = "", timeout_s: float = 0) -> Ran:
        return answers[words[0]]

    doctor = Doctor(tmp_path / "out", tmp_path, run=run, ask_torch=lambda: Ran(0, json.dumps(TORCH)))
    return {check.name: (check.level, check.said + check.remedy) for check in doctor.checks()}


def test_what_a_site_may_have_set_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "scontrol": Ran(0, CONFIG.format(age=5, requeue=0)),
        "sinfo": Ran(0, "gpu|up|1-00:00:00|4\ncpu|down|infinite|2\n"),
        "sacct": Ran(1, err="Slurm accounting storage is disabled"),
    }
    found = examine(tmp_path, answers, monkeypatch)
    assert found["controller"] == ("ok", "answers, Slurm 23.02.1")
    assert found["MinJobAge"][0] == found["requeue"][0] == found["accounting"][0] == "note"
    assert found["partitions"] == ("note", "gpu, cpu (down); none is the defaultset slurm.partition")
    assert found["clock"][0] == "problem"
    assert "behind this machine's" in found["clock"][1]
    answers["sinfo"] = Ran(0, "cpu*|down|infinite|2\n")
    assert examine(tmp_path, answers, monkeypatch)["partitions"][0] == "problem"


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "note     Slurm: not on this machine; `mtf run` needs none" in text
    assert "problem  git: not found; install it" in text


def test_a_part_of_slurm_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    first = next(Doctor(tmp_path, tmp_path).checks())
    assert (first.level, first.said) == ("problem", "squeue, scancel, scontrol, sinfo not found")


TORCH = {"version": "2.9", "cuda": None, "devices": [], "mps": False, "threads": 4}


@pytest.mark.parametrize(
    ("answer", "driver", "levels", "says"),
    [
        (Ran(0, json.dumps(TORCH)), False, ["ok", "note"], "training here uses the CPU"),
        (Ran(0, json.dumps(TORCH)), True, ["ok", "problem"], "built without CUDA"),
        (Ran(0, json.dumps(TORCH | {"cuda": "12.8"})), True, ["ok", "problem"], "torch sees no GPU"),
        (Ran(0, json.dumps(TORCH | {"cuda": "12.8", "devices": ["H", "H"]})), True, ["ok", "ok"], "2: H"),
        (Ran(0, json.dumps(TORCH | {"mps": True})), False, ["ok", "ok"], "by MPS"),
        (Ran(1, err="Traceback\nOSError: libcudart.so"), False, ["problem"], "cannot be loaded: OSError: libcudart.so"),
        (Ran(-11), False, ["problem"], "ends without a word"),
    ],
)
def test_what_torch_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Ran, driver: bool, levels: list[str], says: str
) -> None:
    if driver:
        (tmp_path / "nvidia-smi").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(_torch(answer))
    assert [check.level for check in found] == levels
    assert says in found[-1].said + found[-1].remedy
    assert all(check.remedy for check in found if check.level != "ok")


@pytest.mark.parametrize(("rate", "each_ms", "level"), [(500.0, 1.0, "ok"), (49.0, 1.0, "note"), (500.0, 51.0, "note")])
def test_slow_file_systems(rate: float, each_ms: float, level: str) -> None:
    check = judge_speed(rate, each_ms, "measured")
    assert (check.level, bool(check.remedy)) == (level, level != "ok")


def test_speed_is_measured(tmp_path: Path) -> None:
    ticks = iter([0.0, 1.0, 1.0, 3.0])
    (check,) = check_speed(tmp_path, clock=lambda: next(ticks))
    assert check.said.startswith("34 MB/s for large files, 100.0 ms")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in Doctor(Path("/proc/none"), tmp_path, ask_torch=lambda: Ran(1)).checks()}
    assert found["output folder"].level == "problem"
    assert "/proc cannot be written" in found["output folder"].said


@pytest.mark.parametrize(("ahead_s", "level"), [(0.0, "ok"), (-1.9, "ok"), (5.0, "problem"), (-5.0, "problem")])
def test_clocks(ahead_s: float, level: str) -> None:
    assert judge_clock("clock", "the other", ahead_s).level == level
