"""What Slurm prints, as it printed it (22.05.8), and what is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm import JobStatus
from mtf_slurm.cluster.answers import (
    base_id,
    complaint,
    parse_accounting,
    parse_config,
    parse_partitions,
    parse_peaks,
    parse_queue,
)
from mtf_slurm.cluster.programs import Ran, clean_environment, run_program
from mtf_slurm.cluster.refusals import Outcome, explain_refusal, is_silence, read_answer
from mtf_slurm.errors import ClusterUnreachableError

QUEUE = """\
1|1|FAILED|NonZeroExitCode|0|768|100M|2026-11-23T20:44:43|2026-11-23T20:44:43|1:00:00|sbatch|
2|2|FAILED|JobLaunchFailure|0|9|100M|2026-11-23T20:44:43|2026-11-23T20:44:44|1:00:00|sbatch|
4_7|12|PENDING|JobArrayTaskLimit|0|0|100M|N/A|N/A|1:00:00|grid-t.0|
4_[9-13:2,20%1]|4|PENDING|JobArrayTaskLimit|0|0|100M|N/A|N/A|1:00:00|grid-t.0|
5|5|PENDING|BeginTime|1|0|100M|N/A|N/A|1:00:00|a|b c|
6|6|RUNNING|None|0|0|0|2026-11-23T20:44:43|2026-11-23T21:44:43|UNLIMITED|x-t.1|
"""

ACCOUNTS = """\
1|1|FAILED|None|3:0|100M|2026-11-23T20:44:43|2026-11-23T20:44:43|01:00:00|sbatch
2|2|FAILED|None|0:9|100M|2026-11-23T20:44:43|2026-11-23T20:44:44|01:00:00|sbatch
3|3|CANCELLED by 0|None|0:15|100M|2026-11-23T20:44:43|2026-11-23T20:44:43|01:00:00|a|b
4_[0-2%1]|4_[0-2%1]|PENDING|JobArrayTaskLimit|0:0|100M|Unknown|Unknown|01:00:00|grid-t.0
7|7|OUT_OF_ME+|None|0:125|16G|2026-11-23T20:44:43|2026-11-23T20:45:43|01:00:00|y
"""

CONFIG = """\
Configuration data as of 2026-11-23T20:41:42
AccountingStorageType   = accounting_storage/none
JobRequeue              = 1
MaxArraySize            = 50
MaxJobCount             = 20000
MessageTimeout          = 2 sec
MinJobAge               = 300 sec
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at localhost is UP
"""


def test_the_queue() -> None:
    tasks = {task.job_id: task for task in parse_queue(QUEUE)}
    assert list(tasks) == ["1", "2", "4_7", "4_9", "4_11", "4_13", "4_20", "5", "6"]
    assert (tasks["1"].state, tasks["1"].exit_status, tasks["1"].signal) == (JobStatus.FAILED, 3, None)
    assert (tasks["2"].exit_status, tasks["2"].signal) == (None, 9)
    assert (tasks["4_11"].job_name, tasks["4_7"].number) == ("grid-t.0", "12")
    assert (tasks["5"].job_name, tasks["5"].restarts, tasks["5"].start) == ("a|b c", 1, "")
    assert (tasks["6"].exit_status, tasks["6"].reason, tasks["6"].source) == (None, "", "squeue")


def test_the_accounts() -> None:
    tasks = {task.job_id: task for task in parse_accounting(ACCOUNTS)}
    assert list(tasks) == ["1", "2", "3", "4_0", "4_1", "4_2", "7"]
    assert (tasks["1"].exit_status, tasks["2"].signal) == (3, 9)
    assert (tasks["3"].state, tasks["3"].job_name) == (JobStatus.CANCELLED, "a|b")
    assert (tasks["4_1"].state, tasks["4_1"].end) == (JobStatus.PENDING, "")
    assert tasks["7"].state is JobStatus.UNKNOWN  # cut off: better no state than a guess
    assert tasks["7"].memory == "16G"


def test_the_configuration() -> None:
    config = parse_config(CONFIG)
    assert (config.max_array_size, config.max_job_count, config.min_job_age_s) == (50, 20000, 300)
    assert (config.message_timeout_s, config.requeue, config.version) == (2, True, "22.05.8")
    assert not config.keeps_accounts
    assert parse_config("").max_array_size == 1001


def test_the_memory_that_steps_used() -> None:
    # as sacct of 22.05 prints it: a job that was killed, one that nobody sampled, and a task with two steps
    text = (
        "1||out-1.0\n1.batch|323640K|batch\n2||other\n2.batch||batch\n3_4||array\n3_4.batch|1500K|batch\n"
        "3_4.extern|0|extern\n3_4.0|2.5G|python\nwarning: nothing\n"
    )
    assert list(parse_peaks(text)) == [("1", "out-1.0", "316M"), ("3_4", "array", "2.5G")]


@given(st.text() | st.from_regex(r"([0-9_]+(\.[a-z0-9]+)?\|[0-9.]*[KMGTPX]?\|[a-z]*\n)*", fullmatch=True))
def test_any_text_about_memory_can_be_read(text: str) -> None:
    for job_id, _, peak in parse_peaks(text):
        assert "." not in job_id
        assert re.fullmatch(r"[0-9.e+]+[KMGTP]?", peak)


def test_the_partitions() -> None:
    low, high = parse_partitions("low*|up|infinite|2\nhigh|down|1-00:00:00|2\n")
    assert (low.name, low.is_default, low.is_up, low.nodes) == ("low", True, True, 2)
    assert (high.name, high.is_default, high.is_up, high.time_limit) == ("high", False, False, "1-00:00:00")


@given(st.text())
def test_nothing_that_is_printed_breaks_the_parsers(text: str) -> None:
    list(parse_queue(text))
    list(parse_accounting(text))
    parse_config(text)
    parse_partitions(text)
    read_answer(Ran(1, text, text))


@given(
    st.integers(1, 10**7),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.sampled_from([state for state in JobStatus if state.value.isupper()]),
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60),
)
def test_what_is_in_a_row_is_what_comes_out(number: int, index: int | None, state: JobStatus, name: str) -> None:
    job_id = str(number) if index is None else f"{number}_{index}"
    rows = f"{job_id}|{number}|{state.value}|None|2|0|1G|N/A|N/A|1:00|{name}|\n"
    (task,) = parse_queue(rows)
    assert (task.job_id, task.state, task.restarts, task.job_name.strip()) == (job_id, state, 2, name.strip())
    assert base_id(job_id) == str(number)


# what sbatch said, and what came of it
ANSWERS = [
    (1, "", "sbatch: error: Batch job submission failed: Invalid job array specification\n", Outcome.FULL, ()),
    (0, "12\n", "", Outcome.QUEUED, ()),
    (0, "a site's plugin says hello\n12;cluster\n", "", Outcome.QUEUED, ()),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
        Outcome.UNCLEAR,
        (),
    ),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        Outcome.UNCLEAR,
        (),
    ),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (send failure)",
        Outcome.UNCLEAR,
        (),
    ),
    (-9, "", "", Outcome.UNCLEAR, ()),
    (0, "", "", Outcome.UNCLEAR, ()),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
        Outcome.AWAY,
        (),
    ),
    (
        1,
        "",
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
        Outcome.REFUSED,
        ("partition",),
    ),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        Outcome.REFUSED,
        ("partition", "account"),
    ),
    (1, "", "sbatch: error: Batch job submission failed: Invalid qos specification", Outcome.REFUSED, ("qos",)),
    (1, "", "sbatch: error: Invalid generic resource (gres) specification\n", Outcome.REFUSED, ("gres",)),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Invalid feature specification",
        Outcome.REFUSED,
        ("constraint",),
    ),
    (255, "", "sbatch: error: Invalid --time specification\n", Outcome.REFUSED, ("time_limit",)),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        Outcome.REFUSED,
        ("time_limit",),
    ),
    (
        1,
        "",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available\n",
        Outcome.REFUSED,
        ("nodes", "ntasks_per_node", "cpus_per_task", "mem", "gres"),
    ),
    (1, "", "sbatch: error: Batch job submission failed: Job dependency problem\n", Outcome.REFUSED, ("dependency",)),
    (
        1,
        "",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)",
        Outcome.FULL,
        (),
    ),
    (
        1,
        "",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        Outcome.FULL,
        (),
    ),
]


@pytest.mark.parametrize(("status", "out", "err", "outcome", "fields"), ANSWERS)
def test_what_sbatch_says(status: int, out: str, err: str, outcome: Outcome, fields: tuple[str, ...]) -> None:
    answer = read_answer(Ran(status, out, err))
    assert answer.outcome is outcome
    if outcome is Outcome.REFUSED:
        assert answer.fields == fields
        assert answer.certain
    assert (answer.job_id == "12") is (outcome is Outcome.QUEUED)


def test_a_program_that_is_killed_for_its_time_says_nothing() -> None:
    assert read_answer(Ran(-1, "", "", timed_out=True)).outcome is Outcome.UNCLEAR
    assert complaint(Ran(-1, timed_out=True)) == "no answer in time"


def test_words_that_are_not_known_are_no_certain_refusal() -> None:
    answer = read_answer(Ran(1, "", "sbatch: error: Batch job submission failed: The moon is full\n"))
    assert (answer.outcome, answer.certain) == (Outcome.REFUSED, False)


def test_a_refusal_names_what_was_asked_and_what_there_is() -> None:
    answer = read_answer(Ran(1, "", "sbatch: error: invalid partition specified: nope\n"))
    text = explain_refusal(answer, ["--partition=nope", "--mem=4G"], ["low", "high"])
    assert text == (
        "Slurm refuses it: invalid partition specified: nope; see slurm.partition (--partition=nope); the partitions "
        "are low, high"
    )
    full = read_answer(Ran(1, "", "Requested node configuration is not available"))
    assert "see slurm.gres (--gres=gpu:99)" in explain_refusal(full, ["--gres=gpu:99", "--time=1:00"])


@pytest.mark.parametrize("said", ["Socket timed out on send/recv", "slurm controller (connect failure)"])
def test_silence(said: str) -> None:
    assert is_silence(f"slurm_load_jobs error: {said}")
    assert not is_silence("slurm_load_jobs error: Invalid job id specified")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ClusterUnreachableError, match=r"no-such-sbatch cannot be run: .*login node"):
        run_program(["no-such-sbatch"])


def test_a_program_that_takes_too_long_is_ended() -> None:
    ran = run_program(["sh", "-c", "echo begun; exec sleep 60"], timeout_s=0.3)
    assert (ran.timed_out, ran.out) == (True, "begun\n")


def test_jobs_get_nothing_of_the_job_that_the_launcher_runs_in() -> None:
    environ = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_RESTART_COUNT": "3",
        "SLURM_ARRAY_TASK_ID": "4",
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_WAIT": "1",
        "SQUEUE_FORMAT": "%i",
        "MTF_RUN_DIR": "/somewhere",
        "PATH": "/bin",
        "LC_ALL": "de_DE.UTF-8",
    }
    clean = clean_environment(environ)
    assert {key for key in environ if key in clean} == {"SLURM_CONF", "SBATCH_ACCOUNT", "PATH", "LC_ALL"}
    assert clean["LC_ALL"] == "de_DE.UTF-8"


def test_answers_are_in_one_locale_and_jobs_keep_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "squeue"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$LC_ALL $SLURM_BITSTR_LEN"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert [run_program([name]).out for name in ("sbatch", "squeue")] == ["C.UTF-8 \n", "C 0\n"]
