"""Hostile values from end to end: they reach the script as they are, run nothing, and nothing leaves the folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_values import HOSTILE, SAYS_WHAT_IT_GOT, canaries, got, outside
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf_config import ExecutionMode, ExperimentConfig, ValidationError
from mtf_config.reader import read_document
from mtf_slurm import GridSearchResult, JobSubmissionError, SLURMError, SLURMLauncher
from mtf_slurm.configurations import read_experiment
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from mtf_utils.cli import main
from mtf_utils.display import printable
from mtf_utils.rundir import SweepDirectory, is_safe_name

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

LOCAL, DRY_RUN, SLURM = ExecutionMode.LOCAL, ExecutionMode.DRY_RUN, ExecutionMode.SLURM
BASE = {"model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a project, the home and the working folder have names that are hostile themselves."""
    root = tmp_path / "it's a $(touch hacked) `touch hacked` ; {config} %A \u202e project"
    (root / "home").mkdir(parents=True)
    (root / "train.py").write_text(SAYS_WHAT_IT_GOT)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root / "home"))
    return root


def test_values_of_a_sweep_file_reach_the_script_as_they_are(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = {
        "base": BASE | {"experiment_name": "x", "custom_params": {"all": HOSTILE, **dict.fromkeys(HOSTILE[:4], 1)}},
        "grids": [{"name": "; $(touch hacked)/../..", "parameters": {"custom_params.note": HOSTILE[:12]}}],
        "naming": "descriptive",
        "output_dir": "out;$(touch hacked)\n-rf",
    }
    (project / "sweep.yaml").write_text(json.dumps(sweep))
    before = outside(tmp_path)
    assert main(["run", "sweep.yaml", "-j", "4"]) == 0
    folder = project / str(sweep["output_dir"])
    runs = [SweepDirectory(folder).run(run.name) for run in GridSearchResult(folder)]
    assert [got(run)["params"]["note"] for run in runs] == HOSTILE[:12]
    for run in runs:
        assert is_safe_name(run.name)
        assert got(run)["params"]["all"] == HOSTILE
        assert got(run)["words"] == ["--config", str(run.config_json)]
        assert got(run)["cwd"] == got(run)["env"]["MTF_PROJECT_ROOT"] == str(project)
        assert got(run)["env"]["MTF_RUN_DIR"] == str(run.path)
        assert read_document(run.config_yaml).data["custom_params"]["all"] == HOSTILE
    assert canaries(tmp_path) == []
    assert outside(tmp_path, folder) == before
    shown = capsys.readouterr()
    assert printable(shown.out + shown.err, lines=True) == shown.out + shown.err


def test_words_of_a_command_arrive_and_placeholders_in_values_mean_nothing(project: Path, tmp_path: Path) -> None:
    words = [value for value in HOSTILE if "\0" not in value and "{" not in value]
    command = ["{python}", "train.py", "{{config}}", "{name}", "$${env:HOME}", *words]
    launcher = SLURMLauncher(None, project / "out", project_root=project, command=command)
    launcher.submit_experiment(ExperimentConfig.from_dict(BASE | {"experiment_name": "a"}), LOCAL)
    run = SweepDirectory(project / "out" / "single").run("a")
    assert got(run)["words"] == ["{config}", "a", "${env:HOME}", *words]
    assert canaries(tmp_path) == []


@pytest.mark.parametrize("word", ["${env:TOKEN}", "--token=${env:TOKEN,none}", "x$${env:A}${env:B}", "${env:"])
def test_a_reference_that_nobody_looks_up_is_no_word_of_a_command(project: Path, word: str) -> None:
    with pytest.raises(JobSubmissionError, match=r"^command: '\$\{env:.*: no variable is looked up in a command"):
        SLURMLauncher(None, project / "out", project_root=project, command=["{python}", "train.py", word])


@pytest.mark.parametrize("name", [*HOSTILE[:16], "a/b", "..", "a..b", ".a", "a.lock", "x" * 129, "CON\0", "é", "a\n"])
def test_a_name_that_is_none_is_refused_with_place_and_remedy(project: Path, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig.from_dict(BASE | {"experiment_name": name})
    said = str(caught.value)
    assert "experiment_name: expected a name of at most 128 letters, digits and any of . _ = + -" in said
    assert "found the string" in said
    assert printable(said, lines=True) == said
    sweep = {
        "name": name,
        "base": BASE | {"experiment_name": "x"},
        "grids": [{"name": "g", "parameters": {"seed": [1]}}],
    }
    (project / "sweep.yaml").write_text(json.dumps(sweep))
    assert main(["run", "sweep.yaml"]) == 2
    assert not (project / "experiments").exists()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"setup": ["true\0"]}, "slurm.setup[0]: expected text without NUL"),
        (
            {"setup": ["true", "export KEY=${env:KEY}"]},
            "slurm.setup[1]: expected text without ${env:...}: lines",
        ),
        ({"additional_args": ["--comment=${env:KEY}"]}, "slurm.additional_args[0]: expected text without ${env:...}"),
        ({"job_name": "a\nb"}, "slurm.job_name: expected a single line"),
        ({"account": "a\n#SBATCH --wrap=x"}, "slurm.account: expected a single line"),
        ({"partition": "\x1b[31m"}, "slurm.partition: expected a single line"),
        ({"mail_user": "${env:HOME}"}, "slurm.mail_user: expected text without ${env:...}"),
        ({"signal": "USR1@9; touch hacked"}, "slurm.signal: expected a signal"),
        ({"time_limit": "1:00\n"}, "slurm.time_limit: expected a time"),
        ({"mem": "$(touch hacked)"}, "slurm.mem: expected an amount"),
        ({"gres": "gpu:1;touch hacked"}, "slurm.gres: expected generic resources"),
        ({"mail_type": ["END,FAIL"]}, "slurm.mail_type[0]: expected one of"),
        ({"link": ["../x"]}, "slurm.link[0]: expected a path inside the project"),
        ({"link": ["/etc"]}, "slurm.link[0]: expected a path inside the project"),
        ({"link": ["~/x"]}, "slurm.link[0]: expected a path inside the project"),
        ({"additional_args": ["--comment=a\nb"]}, "slurm.additional_args[0]: expected an option"),
        ({"additional_args": ["; touch hacked"]}, "slurm.additional_args[0]: expected an option"),
    ],
)
def test_options_that_are_none_are_refused_with_place_and_remedy(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ExperimentConfig.from_dict(BASE | {"experiment_name": "a", "slurm": section})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "word", ["--output=/etc/x", "--wrap=touch hacked", "--chdir=/", "--array=0-9", "-o/tmp/%j", "--uid=0"]
)
def test_no_added_option_leads_out_of_the_folder(word: str, project: Path, display: Any) -> None:
    launcher = SLURMLauncher(None, project / "out", project_root=project, display=display)
    config = ExperimentConfig.from_dict(BASE | {"experiment_name": "a", "slurm": {"additional_args": [word]}})
    with pytest.raises(JobSubmissionError, match=r"slurm\.additional_args\[0\]="):
        launcher.submit_experiment(config, DRY_RUN)
    assert not (project / "out" / "single" / "runs").exists()


def test_paths_that_no_script_can_hold_are_refused(tmp_path: Path, display: Any) -> None:
    root = tmp_path / os.fsdecode(b"no text \xff")
    root.mkdir()
    for folder in (root, tmp_path):
        (folder / "train.py").touch()
    config = ExperimentConfig.from_dict(BASE | {"experiment_name": "a"})
    with pytest.raises(JobSubmissionError, match="the path is not UTF-8"):
        SLURMLauncher(None, tmp_path / "out", project_root=root, display=display).submit_experiment(config, DRY_RUN)
    launcher = SLURMLauncher(None, root / "out", project_root=tmp_path, display=display)
    with pytest.raises(SLURMError, match="rename it"):
        launcher.submit_experiment(config, DRY_RUN)


def test_a_hostile_place_in_a_sweep_file_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = {"base": BASE | {"experiment_name": "x"}, "grids": [{"name": "g", "parameters": {"seed": [1]}}]}
    (project / "sweep.yaml").write_text(json.dumps(sweep | {"output_dir": "a\0b"}))
    assert main(["run", "sweep.yaml"]) == 2
    assert r"output_dir: expected a path that is not empty, without NUL characters, found the string 'a\x00b'" in (
        capsys.readouterr().err
    )
    (project / "sweep.yaml").write_text("base: !!python/object/apply:os.system ['touch hacked']\n")
    assert main(["run", "sweep.yaml"]) == 2
    assert canaries(project) == []


@pytest.mark.parametrize("verb", ["status", "logs", "explain", "results", "clean", "cancel", "run", "plan"])
@pytest.mark.parametrize("name", [value for value in HOSTILE if value.strip() and "\0" not in value])
def test_names_on_the_command_line_are_names(
    verb: str, name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = outside(project)
    words = [verb, "--", name, *([name] if verb in ("explain", "cancel") else [])]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"mtf {verb}: ")
    assert "unexpected" not in shown.err
    assert printable(shown.err, lines=True) == shown.err
    assert outside(project) == before


_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text().filter(lambda text: "${" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_json)
def test_any_value_is_kept_as_it_is(value: Any, tmp_path_factory: pytest.TempPathFactory, display: Any) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "train.py").touch()
    launcher = SLURMLauncher(None, root / "out", project_root=root, display=display)
    config = ExperimentConfig.from_dict(BASE | {"experiment_name": "a", "custom_params": {"value": value}})
    launcher.submit_experiment(config, DRY_RUN)
    run = SweepDirectory(root / "out" / "single").run("a")
    assert read_experiment(run).custom_params["value"] == value
    assert json.loads(run.config_json.read_text("utf-8"))["custom_params"]["value"] == value
    assert sys.executable in run.job_script.read_text("utf-8")


ACCOUNTS = [
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked;",
    "a 'b' \"c\" \\d #e",
    "--wrap=x",
    "%j %a",
    "é\u202e",
    "{{ body }}",
]


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_what_slurm_is_asked_for_is_what_was_written(
    slurm_cluster: Callable[..., LocalCluster],
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    display: Any,
) -> None:
    """Every free text of a job, in a folder of a hostile name, on a real cluster."""
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        folder = tmp_path / "out '$(touch hacked)' %A %j {config} é ; touch hacked"
        launcher = SLURMLauncher(None, folder, project_root=project, display=display)
        configs = [
            ExperimentConfig.from_dict(
                BASE
                | {"experiment_name": f"run-{number}", "custom_params": {"note": HOSTILE}}
                | {
                    "slurm": {
                        "job_name": value,
                        "account": value.lower(),
                        "mail_user": value,
                        "mail_type": ["NONE"],
                        "additional_args": [f"--comment={value}", f"--wckey={value}"],
                        "setup": ["cd /"],
                    }
                }
            )
            for number, value in enumerate(ACCOUNTS)
        ]
        before = outside(tmp_path)
        batch = launcher.submit_experiment_batch(configs, SLURM)
        assert batch.failed == {}
        result = GridSearchResult(folder / "single")
        shown = {
            number: cluster.run(["scontrol", "show", "job", "-o", result[f"run-{number}"].job_id]).stdout
            for number in range(len(ACCOUNTS))
        }
        result.wait(timeout_s=100)
        assert result.is_complete, result.failures()
    for number, value in enumerate(ACCOUNTS):
        assert f" Account={value.lower()} " in shown[number]
        assert f" Comment={value} " in shown[number]
        run = SweepDirectory(folder / "single").run(f"run-{number}")
        assert got(run)["params"]["note"] == HOSTILE
        assert got(run)["words"] == ["--config", str(run.config_json)]
    assert canaries(tmp_path, project / "home") == []
    assert outside(tmp_path, folder) == before
