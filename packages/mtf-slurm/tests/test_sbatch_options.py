"""From the configuration to the words of sbatch's command line."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import SLURMConfig
from mtf_slurm.cluster.known_options import ADDABLE, FIELD_OF, LONG_FORMS, OWNED
from mtf_slurm.cluster.options import preemption_signal, sbatch_options, task_count, with_dependency
from mtf_slurm.errors import JobSubmissionError
from mtf_slurm.testing import ClusterSettings, is_available
from mtf_utils.sections import PreemptionConfig

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]

STEADY = ("--requeue", "--open-mode=append", "--signal=B:USR1@300")


def options(preemption: PreemptionConfig | None = None, **values: Any) -> tuple[str, ...]:
    return sbatch_options(SLURMConfig(**values), preemption or PreemptionConfig())


def refusal(preemption: PreemptionConfig | None = None, **values: Any) -> str:
    with pytest.raises(JobSubmissionError) as caught:
        options(preemption, **values)
    return str(caught.value)


def test_nothing_asked_for_is_what_a_preemption_needs() -> None:
    assert sbatch_options(None, PreemptionConfig()) == STEADY


def test_every_field_becomes_one_word_in_one_order() -> None:
    asked = options(
        additional_args=["--nice=100", "--contiguous"], exclusive=True, mail_type=["FAIL", "END"], mail_user="a@b.c",
        dependency="afterok:1", constraint="a&b", gres="gpu:2", mem="32gb", cpus_per_task=4, ntasks_per_node=2, nodes=3,
        time_limit="2-0", qos="q", account="x", partition="p,q", requeue=False, signal="USR1@90", job_name="mine",
        setup=["module load x"], link=["data"],
    )  # fmt: skip
    assert asked == (
        "--partition=p,q", "--account=x", "--qos=q", "--time=2-0", "--nodes=3", "--ntasks-per-node=2",
        "--cpus-per-task=4", "--mem=32G", "--gres=gpu:2", "--constraint=a&b", "--dependency=afterok:1",
        "--mail-user=a@b.c", "--mail-type=END,FAIL", "--exclusive", "--no-requeue", "--open-mode=append",
        "--signal=B:USR1@90", "--contiguous", "--nice=100",
    )  # fmt: skip


def test_every_field_of_the_section_has_a_reader() -> None:
    of_the_run = {"setup", "link", "template_path", "retries", "runs_per_job", "runs_at_once", "additional_args"}
    assert {item.name for item in dataclasses.fields(SLURMConfig)} - of_the_run == set(FIELD_OF.values())


def test_equal_wishes_are_equal_options() -> None:
    first = options(mail_type=["END", "FAIL"], exclusive=False, requeue=True, additional_args=["--nice", "--reboot"])
    second = options(mail_type=["FAIL", "END", "END"], additional_args=["--reboot", "--nice"])
    assert first == second


@pytest.mark.parametrize(
    ("asked", "signals", "minutes", "limit", "becomes"),
    [
        (None, ["SIGTERM", "SIGUSR1"], 5, None, "B:USR1@300"),
        (None, ["SIGUSR2", "SIGTERM"], 0.01, None, "B:USR2@1"),
        (None, ["SIGTERM"], 1, None, "B:TERM@60"),
        (None, ["SIGPWR"], 1, None, "B:TERM@60"),
        (None, ["SIGUSR1"], 1e6, None, "B:USR1@65535"),
        (None, ["SIGUSR1"], 5, "24:00:00", "B:USR1@300"),
        (None, ["SIGUSR1"], 5, "10", "B:USR1@150"),
        (None, ["SIGUSR1"], 5, "1:40", "B:USR1@25"),
        (None, ["SIGUSR1"], 5, "0:01", "B:USR1@1"),
        (None, ["SIGUSR1"], 5, "0-0:16", "B:USR1@240"),
        (None, ["SIGUSR1"], 5, "UNLIMITED", "B:USR1@300"),
        ("USR1@90", ["SIGUSR1"], 5, "1", "B:USR1@90"),
        ("SIGUSR1", ["SIGUSR1"], 5, None, "B:USR1"),
        ("B:TERM@10", ["SIGUSR1"], 5, None, "B:TERM@10"),
        ("R:USR1@10", ["SIGUSR1"], 5, None, "RB:USR1@10"),
        ("BR:10@10", ["SIGUSR1"], 5, None, "RB:10@10"),
    ],
)
def test_the_warning_goes_to_the_script_and_leaves_time_to_work(
    asked: str | None, signals: list[str], minutes: float, limit: str | None, becomes: str
) -> None:
    preemption = PreemptionConfig(signals=signals, timeout_minutes=minutes)
    assert preemption_signal(SLURMConfig(signal=asked, time_limit=limit), preemption) == becomes


@given(
    days=st.integers(0, 400), hours=st.integers(0, 23), minutes=st.integers(0, 59), seconds=st.integers(0, 59),
    lead=st.floats(0.01, 60),
)  # fmt: skip
def test_the_warning_never_comes_in_the_first_half(
    days: int, hours: int, minutes: int, seconds: int, lead: float
) -> None:
    limit = f"{days}-{hours}:{minutes}:{seconds}"
    limit_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    signal = preemption_signal(SLURMConfig(time_limit=limit), PreemptionConfig(timeout_minutes=lead))
    lead_s = int(signal.rpartition("@")[2])
    assert 1 <= lead_s <= max(1, limit_s / 2)
    assert lead_s <= 60 * lead + 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"signal": "USR2@60"}, "this signal would end the run unsaved; add 'SIGUSR2' to preemption.signals"),
        ({"signal": "12@60"}, "this signal would end the run unsaved; add 'SIGUSR2' to preemption.signals"),
        ({"signal": "USR9@60"}, "Slurm knows no signal 'USR9' by name (HUP, INT"),
        ({"dependency": "afterok:1?afterok:2"}, "alternatives ('?') cannot be joined"),
        ({"dependency": "singleton"}, "max_concurrent_jobs=1"),
        ({"additional_args": ["--nise=1"]}, "sbatch has no option --nise; did you mean --nice?"),
        ({"additional_args": ["--partitoin=x"]}, "did you mean slurm.partition?"),
        ({"additional_args": ["--xyzzyx"]}, "sbatch has no option --xyzzyx"),
        ({"additional_args": ["--time=10"]}, "write slurm.time_limit instead of --time"),
        ({"additional_args": ["-t 10"]}, "write slurm.time_limit instead of --time"),
        ({"additional_args": ["-w node1"]}, "write the long form, --nodelist=node1"),
        ({"additional_args": ["-wnode1"]}, "write the long form, --nodelist=node1"),
        ({"additional_args": ["-s"]}, "write the long form, --oversubscribe"),
        ({"additional_args": ["-z"]}, "in its long form, such as --nice=100"),
        ({"additional_args": ["--nice 100"]}, "in its long form, such as --nice=100"),
        ({"additional_args": ["--array=1-3"]}, "--array is the launcher's: the launcher makes the arrays"),
        ({"additional_args": ["-W"]}, "use result.wait()"),
        ({"additional_args": ["--exclude"]}, "--exclude needs a value: --exclude=..."),
        ({"additional_args": ["--exclude="]}, "--exclude needs a value"),
        ({"additional_args": ["--reboot=yes"]}, "--reboot takes no value"),
        ({"additional_args": ["--nice=1", "--nice=2"]}, "slurm.additional_args[1]='--nice=2': --nice is there twice"),
        ({"mem": "1G", "additional_args": ["--mem-per-cpu=1G"]}, "slurm.mem and --mem-per-cpu exclude each other"),
        ({"additional_args": ["--mem-per-gpu=1", "--mem-per-cpu=1"]}, "--mem-per-cpu and --mem-per-gpu exclude"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_remedy(values: dict[str, Any], says: str) -> None:
    assert says in refusal(**values)


def test_tasks_of_srun_need_a_signal_that_it_passes_on() -> None:
    preemption = PreemptionConfig(signals=["SIGTERM"])
    assert "srun passes none of these on to the 4 tasks of a run; add 'SIGUSR1'" in refusal(
        preemption, nodes=2, ntasks_per_node=2
    )
    assert options(preemption)[-1] == "--signal=B:TERM@300"


def test_all_problems_are_told_at_once() -> None:
    said = refusal(signal="USR2", dependency="singleton", additional_args=["--time=1", "--array=2", "--nonsense"])
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize("name", sorted(OWNED))
def test_no_option_of_the_launcher_can_be_added(name: str) -> None:
    for value in ("", "=x"):
        assert OWNED[name] in refusal(additional_args=[f"--{name}{value}"])


def test_dependencies_are_joined() -> None:
    asked = options(dependency="afterok:1", partition="p")
    assert with_dependency(asked, None) == asked
    assert with_dependency(asked, "afterany:7:8")[-1] == "--dependency=afterany:7:8,afterok:1"
    assert sum(word.startswith("--dependency") for word in with_dependency(asked, "afterany:7:8")) == 1
    assert with_dependency(options(), "afterany:7")[-1] == "--dependency=afterany:7"


@pytest.mark.parametrize(
    ("values", "count"),
    [({}, 1), ({"nodes": 2}, 2), ({"ntasks_per_node": 3}, 3), ({"nodes": 2, "ntasks_per_node": 3}, 6)],
)
def test_task_count(values: dict[str, int], count: int) -> None:
    assert task_count(SLURMConfig(**values)) == count
    assert task_count(None) == 1


def test_no_option_is_in_two_tables() -> None:
    assert not set(ADDABLE) & set(FIELD_OF)
    assert not set(ADDABLE) & set(OWNED)
    assert not set(FIELD_OF) & set(OWNED)
    assert set(LONG_FORMS.values()) <= {*ADDABLE, *FIELD_OF, *OWNED}


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_the_tables_know_what_this_sbatch_knows(slurm_cluster: Any) -> None:
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:
        text = cluster.run(["sbatch", "--help"]).stdout
        # what a field can say, sbatch takes
        config = SLURMConfig(time_limit="2-12", mem="900Mb", gres="gpu:1", mail_type=["END", "ARRAY_TASKS"], nodes=1)
        words = sbatch_options(config, PreemptionConfig(timeout_minutes=1e5))
        cluster.run(["sbatch", "--test-only", *words], text_in="#!/bin/sh\n")
    named = set(re.findall(r"^ {0,8}(?:-\w, | {4})? *--([a-z][a-z-]+)", text, re.MULTILINE))
    assert len(named) > 60
    assert named <= {*ADDABLE, *FIELD_OF, *OWNED}


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_the_tables_know_which_options_take_a_value(slurm_cluster: Any) -> None:
    """sbatch refuses an option that lacks its value before it does anything else, and one that must have none."""
    newer = {"container-id", "extra", "oom-kill-step", "resv-ports", "segment", "stepmgr", "tree-width", "tres-bind", "tres-per-task"}  # fmt: skip # noqa: E501
    with slurm_cluster(ClusterSettings(nodes=1)) as cluster:

        def says(word: str) -> str:
            done: subprocess.CompletedProcess[str] = cluster.run(
                ["sbatch", "--test-only", "--wrap=true", word], check=False
            )
            return done.stderr

        for name in sorted(set(ADDABLE) - newer):
            takes = ADDABLE[name]
            assert "unrecognized option" not in says(f"--{name}"), name
            assert ("requires an argument" in says(f"--{name}")) == (takes == "a value"), name
            assert ("doesn't allow an argument" in says(f"--{name}=1")) == (takes == "nothing"), name
