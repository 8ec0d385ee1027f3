"""What `${env:NAME}` stands for is used by real trainings, and found in nothing that they or Slurm leave behind."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtf_slurm import GridSearchResult
from mtf_slurm.testing import ClusterSettings, LocalCluster
from mtf_utils.cli import main

pytest.importorskip("tensorboard")
pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.slow

SECRET = "s3cr3t-4711-Zq"

# Uses the secret, logs to everything there is, and makes one of the mistakes that an error message speaks of.
TRAIN = """
import logging, sys
import torch
from mtf_trainer import GenericTrainer, GenericTrainerConfig, load_run_config
from mtf_trainer import build_optimizer, build_scheduler, make_loader
from mtf_utils import setup_logging


class Trainer(GenericTrainer):
    def training_step(self, batch, batch_idx):
        return {"loss": self.model(batch[0]).square().mean()}


setup_logging("DEBUG")
run = load_run_config(sys.argv[2])
assert len(run.custom_params.token) == LENGTH and run.data.address.endswith("@host/data"), "the secret is not there"
logging.info("the run: %r, %s", run, run.to_dict())
trainer = Trainer(GenericTrainerConfig.from_experiment(sys.argv[2]))
model = torch.nn.Linear(2, 1)
data = torch.utils.data.TensorDataset(torch.randn(8, 2))
loader = make_loader(data, run, train=True)
optimizer = build_optimizer(model, run)
trainer.fit(model, optimizer, loader, val_loader=loader, scheduler=build_scheduler(optimizer, run, 8))
run.custom_params.tokn
""".replace("LENGTH", str(len(SECRET)))

# Stands in for the client of W&B: keeps what it is told.
WANDB = """
import json, os

run = None
class Error(Exception): pass
class Run:
    step = 0
    def log(self, *words, **values): tell(words, values)
    def define_metric(self, *words, **values): tell(words, values)
    def finish(self): tell("finish", {})
def tell(words, values):
    with open(os.environ["MTF_RUN_DIR"] + "/wandb-told", "a") as file:
        file.write(json.dumps([words, values], default=repr) + "\\n")
def init(**values):
    tell("init", values)
    return Run()
"""

SWEEP = """
base:
  experiment_name: secret
  model: {{name: linear}}
  data: {{dataset_name: noise, address: "https://me:${{env:THE_SECRET}}@host/data"}}
  optimizer: {{name: adamw}}
  scheduler: {{name: cosine}}
  training: {{epochs: 1, batch_size: 4}}
  logging: {{use_csv: true, use_tensorboard: true, use_wandb: true, progress: lines, log_every_n_steps: 1}}
  tags: ["${{env:THE_SECRET}}"]
  custom_params: {{token: "${{env:THE_SECRET}}"}}
  slurm: {{setup: [{setup}]}}
grids:
  - name: good
    parameters: {{seed: [1]}}
  - name: bad
    parameters: {{optimizer.name: ["${{env:THE_SECRET}}"]}}
  - name: worse
    parameters: {{scheduler.name: ["${{env:THE_SECRET}}"]}}
naming: sequential
execution: local
"""


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text(TRAIN)
    (root / "wandb.py").write_text(WANDB)
    (root / "sweep.yaml").write_text(SWEEP.format(setup=""))
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "A")
    git(root, "config", "user.email", "a@b.c")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "all")
    (root / "train.py").write_text(TRAIN + "# changed since\n")
    git(root, "remote", "add", "origin", f"https://me:{SECRET}@example.org/x.git?private_token={SECRET}")
    (root / ".git" / "config").rename(root / ".git" / "config.user")  # the only file of the user's that holds it
    (root / ".git" / "config").symlink_to("config.user")
    monkeypatch.chdir(root)
    monkeypatch.setenv("THE_SECRET", SECRET)
    return root


def told(folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Everything that the verbs say of a sweep."""
    text = ""
    names = [run.name for run in GridSearchResult(folder)]
    for words in (
        ["plan", "sweep.yaml", "-o", str(folder)],
        ["show", "sweep.yaml"],
        ["validate", "sweep.yaml"],
        ["status", str(folder)],
        ["results", str(folder), "-m", "train_loss", "--all", "--csv", str(folder / "table.csv")],
        ["clean", str(folder)],
        *(["logs", str(folder), "-n", "1000", name] for name in names),
        *(["explain", str(folder), name] for name in names),
    ):
        for more in ([], ["--json"]):
            main([*words, *more])
            shown = capfd.readouterr()
            text += shown.out + shown.err
    return text


def files_with_the_secret(*folders: Path) -> list[Path]:
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != "config.user":
            content = path.read_bytes()
            if SECRET.encode() in content or SECRET.encode("utf-16-le") in content or SECRET in path.name:
                found.append(path)
    return found


def check_runs(folder: Path) -> None:
    """The secret was there, and was used: else there would be nothing to find."""
    result = GridSearchResult(folder)
    logs = {run.grid: Path(str(run.log)).read_text() for run in result}
    assert "custom_params.tokn: there is no such key (did you mean 'token'?)" in logs["good"]
    assert "optimizer.name: expected one of" in logs["bad"]
    assert "found what '${env:THE_SECRET}' stands for" in logs["bad"]
    assert "scheduler.name: expected one of constant, linear, cosine, found what '${env:THE_SECRET}'" in logs["worse"]
    good = next(run.path for run in result if run.grid == "good")
    for name in ("metrics.jsonl", "metrics.csv", "tensorboard", "wandb-told", "result.json", "code.diff"):
        assert (good / name).exists(), name
    assert "${env:THE_SECRET}" in (good / "wandb-told").read_text()


def test_a_training_here_leaves_no_secret(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = project / "experiments" / "sweep"
    assert main(["run", "sweep.yaml", "-o", str(folder), "-j", "3"]) == 1
    said = capfd.readouterr()
    check_runs(folder)
    assert SECRET not in said.out + said.err + told(folder, capfd)
    assert files_with_the_secret(project) == []


@pytest.fixture
def cluster(slurm_cluster: Callable[..., LocalCluster], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    with slurm_cluster(ClusterSettings(nodes=1, accounting=True)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        yield cluster


def test_a_training_in_slurm_leaves_no_secret(
    cluster: LocalCluster,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither with the runs nor with Slurm, if the job itself fetches it."""
    monkeypatch.delenv("THE_SECRET")
    keeper = tmp_path / "keeper"
    keeper.write_text(f"THE_SECRET={SECRET}\n")
    (project / "sweep.yaml").write_text(SWEEP.format(setup=f'"set -a; . {keeper}; set +a"'))
    folder = project / "experiments" / "sweep"
    assert main(["submit", "sweep.yaml", "-o", str(folder)]) == 0
    said = "".join(capfd.readouterr()) + asked(cluster)
    GridSearchResult(folder).wait(timeout_s=120)
    check_runs(folder)
    assert SECRET not in said + asked(cluster) + told(folder, capfd)
    assert files_with_the_secret(project, cluster.folder) == []


def test_of_slurms_files_only_the_jobs_environment_has_what_the_submitters_had(
    cluster: LocalCluster, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which every job's is kept in, for Slurm's own user, until Slurm forgets the job."""
    folder = project / "experiments" / "sweep"
    (project / "sweep.yaml").write_text(SWEEP.format(setup="") + "command: bash -c '[[ -n $THE_SECRET ]]'\n")
    assert main(["submit", "sweep.yaml", "-o", str(folder)]) == 0
    said = "".join(capfd.readouterr()) + asked(cluster)
    assert GridSearchResult(folder).wait(timeout_s=60).is_complete
    assert SECRET not in said + asked(cluster) + told(folder, capfd)
    exposed = files_with_the_secret(project, cluster.folder)
    assert exposed, "Slurm does without it by now"
    assert [path for path in exposed if not is_environment(path)] == []
    assert [path for path in exposed if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []


def is_environment(path: Path) -> bool:
    """Whether it is slurmctld's copy of a job's environment, which nobody but Slurm's user can read."""
    return path.name == "environment" and path.parent.name.startswith("job.")


def asked(cluster: LocalCluster) -> str:
    """Everything that Slurm tells of its jobs."""
    jobs = cluster.run(["squeue", "--noheader", "--states=all", "--format=%i"]).stdout.split()
    said = [
        ["scontrol", "show", "job", "-dd"],
        ["squeue", "--states=all", "--format=%all"],
        ["sacct", "--allusers", "--parsable", "--format=ALL"],
        ["sacct", "--allusers", "--batch-script"],
        *(["scontrol", "write", "batch_script", job.partition("_")[0], "-"] for job in jobs),
    ]
    answers: list[Any] = [cluster.run(words, check=False) for words in said]
    return "".join(answer.stdout + answer.stderr for answer in answers)
