"""A script that is not there is found before anything is submitted, and nothing else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtf_config import ExecutionMode
from mtf_slurm import JobSubmissionError, SLURMLauncher
from mtf_slurm.command_script import missing_script


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("{python} there.py", ""),
        ("{python} absent.py --config {config}", "absent.py"),
        ("{python} -u -X dev src/absent.py", "src/absent.py"),
        ("/usr/bin/python3.11 -O absent.py", "absent.py"),
        ("bash absent.sh", "absent.sh"),
        ("./absent.sh", "./absent.sh"),
        ("scripts/absent", "scripts/absent"),
        ("{python} -m absent", ""),
        ("{python} -c pass", ""),
        ("{python} -", ""),
        ("{python}", ""),
        ("{python} {run_dir}/made.py", ""),
        ("{python} /on/the/node.py", ""),
        ("torchrun absent.py", ""),
        ("true", ""),
        ("/opt/tool absent.py", ""),
    ],
)
def test_what_can_be_known(tmp_path: Path, line: str, missing: str) -> None:
    (tmp_path / "there.py").touch()
    assert missing_script(line.split(), tmp_path) == missing


@pytest.mark.parametrize("mode", [ExecutionMode.LOCAL, ExecutionMode.DRY_RUN])
def test_it_is_said_once_and_nothing_is_written(project, make_config, make_search, mode) -> None:
    launcher = SLURMLauncher(None, project / "out", project_root=project, command="{python} trian.py")
    says = rf"the command runs 'trian\.py', and there is no {project}/trian\.py"
    with pytest.raises(JobSubmissionError, match=says) as caught:
        launcher.submit_sweep(make_search({"custom_params.x": [1.0, 2.0]}), project / "out" / "sweep", mode)
    assert str(caught.value).count("trian.py'") == 1
    assert len(caught.value.reasons) == 2
    batch = launcher.submit_experiment_batch([make_config("one"), make_config("two")], mode)
    assert set(batch.failed) == {"one", "two"}
    assert not (project / "out").exists()


def test_a_script_that_setup_makes_is_no_mistake(project, make_config) -> None:
    launcher = SLURMLauncher(None, project / "out", project_root=project, command="{python} made.py")
    setup = [f"echo 'print(1)' > {project}/made.py"]
    batch = launcher.submit_experiment_batch(
        [make_config("one", slurm={"setup": setup}), make_config("two")], ExecutionMode.LOCAL
    )
    assert (batch.successful, list(batch.failed)) == (("one",), ["two"])
    assert launcher.get_job_status(batch.job_ids["one"]) == "COMPLETED"


def test_what_has_finished_needs_no_script(project, make_search) -> None:
    launcher = SLURMLauncher(None, project / "out", project_root=project)
    search, folder = make_search({"custom_params.x": [1.0]}), project / "out" / "sweep"
    assert launcher.submit_sweep(search, folder, ExecutionMode.LOCAL).is_complete
    (project / "train.py").rename(project / "elsewhere.py")
    assert launcher.submit_sweep(search, folder, ExecutionMode.LOCAL).is_complete
