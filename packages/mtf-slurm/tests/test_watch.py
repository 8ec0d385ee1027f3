"""When Slurm is asked, about what, and what the answer says of the jobs that are noted on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import ExecutionMode
from mtf_slurm.cluster import references as references_module
from mtf_slurm.cluster.answers import TaskState
from mtf_slurm.cluster.controller import Controller, Observation
from mtf_slurm.cluster.programs import Ran
from mtf_slurm.cluster.references import JobReference, references
from mtf_slurm.cluster.watch import Pace, Watch
from mtf_slurm.status import JobStatus
from mtf_slurm.submissions import JobFile, JobPlan, Submission, Submissions
from mtf_utils.rundir import SweepDirectory, now

S = JobStatus


class FakeSlurm:
    """Answers as squeue, sacct and scontrol do; counts the questions."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.asked: list[list[str]] = []

    def __call__(self, words: Sequence[str], *, timeout_s: float = 0, keep_open: Sequence[int] = ()) -> Ran:
        self.asked.append(list(words))
        if words[0] == "squeue":
            lines = [
                f"{job}|{job}|{state}|None|0|0|0|N/A|N/A|1:00|{name}|"
                for job, state, name in map(str.split, self.queue)
            ]
            return Ran(0, "\n".join(lines))
        return Ran(0, "MinJobAge = 300 sec\n") if words[0] == "scontrol" else Ran(1, err="no accounting")

    def count(self, program: str) -> int:
        return sum(words[0] == program for words in self.asked)


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def watch(slurm: FakeSlurm, clock: list[float]) -> Watch:
    return Watch(Controller(slurm), clock=lambda: clock[0])


def job(job_id: str, name: str = "n.0", **known: object) -> JobReference:
    return JobReference(token="t", job_name=name, first_attempt=1, job_id=job_id, **known)  # type: ignore[arg-type]


@given(st.integers(1, 100_000), st.lists(st.booleans(), max_size=30))
def test_pauses_grow_with_the_jobs_and_with_quiet(jobs: int, changes: list[bool]) -> None:
    pace, wait_s = Pace(jobs), 0.0
    assert 2 <= pace.shortest_s <= 30
    assert pace.shortest_s <= pace.longest_s <= 180
    for changed in changes:
        before, wait_s = wait_s, pace.next_s(wait_s, changed=changed)
        assert pace.shortest_s <= wait_s <= pace.longest_s
        assert changed or wait_s >= min(before, pace.longest_s)
    assert Pace(jobs + 1).shortest_s >= pace.shortest_s
    assert Pace(jobs + 1).longest_s >= pace.longest_s


def test_a_few_jobs_are_asked_for_after_seconds_and_many_after_minutes() -> None:
    assert (Pace(3).shortest_s, Pace(3).longest_s) == (2, 10)
    assert (Pace(1000).shortest_s, Pace(1000).longest_s) == (30, 180)


def test_one_question_for_all_jobs(watch: Watch, slurm: FakeSlurm) -> None:
    slurm.queue = [f"7_{index} PENDING n.0" for index in range(500)]
    seen = watch.observe([job(f"7_{index}") for index in range(500)])
    assert seen is not None
    assert len(seen.tasks) == 500
    assert (slurm.count("squeue"), slurm.count("sacct")) == (1, 0)


def test_nothing_is_asked_where_slurm_can_know_nothing(watch: Watch, slurm: FakeSlurm) -> None:
    assert watch.observe([]) is None
    assert watch.observe([job("", sent=False), job("", refused="no"), job("7", hidden="not yours")]) is None
    assert slurm.asked == []


def test_the_patient_take_what_was_told_before(watch: Watch, slurm: FakeSlurm, clock: list[float]) -> None:
    jobs = [job("7")]
    slurm.queue = ["7 RUNNING n.0"]
    first = watch.observe(jobs, patient=True)
    clock[0] = 1.9
    assert watch.observe(jobs, patient=True) is first
    assert slurm.count("squeue") == 1
    clock[0] = 2.0
    watch.observe(jobs, patient=True)
    assert slurm.count("squeue") == 2
    clock[0] = 4.5  # nothing had changed: the pause has grown
    watch.observe(jobs, patient=True)
    assert slurm.count("squeue") == 2
    watch.stir()
    watch.observe(jobs, patient=True)
    assert slurm.count("squeue") == 3
    watch.observe(jobs)
    assert slurm.count("squeue") == 4
    watch.forget()
    watch.observe(jobs, patient=True)
    assert slurm.count("squeue") == 5


def test_an_answer_from_before_a_job_was_noted_says_nothing_of_it(watch: Watch, slurm: FakeSlurm) -> None:
    slurm.queue = ["7 RUNNING n.0"]
    watch.observe([job("7")], patient=True)
    slurm.queue.append("8 PENDING n.1")
    seen = watch.observe([job("7"), job("8", "n.1")], patient=True)
    assert seen is not None
    assert job("8", "n.1").evidence(seen).state is S.PENDING
    assert slurm.count("squeue") == 2


def test_one_job_after_the_other_comes_to_one_question(watch: Watch, slurm: FakeSlurm) -> None:
    slurm.queue = [f"7_{index} PENDING n.0" for index in range(9)]
    for _ in range(2):
        for index in range(9):
            watch.observe([job(f"7_{index}")], patient=True)
    assert slurm.count("squeue") == 1
    forgotten = [job("3", "old.0"), job("4", "older.0")]
    for _ in range(3):
        for one in forgotten:
            watch.observe([one], patient=True)
    assert slurm.count("squeue") == 3  # once for each, then for both


def tell(*tasks: tuple[str, str, JobStatus, str], **known: object) -> Observation:
    states = {job_id: TaskState(job_id, name, state, "", source) for job_id, name, state, source in tasks}  # type: ignore[arg-type]
    return Observation(tasks=states, **known)  # type: ignore[arg-type]


def test_an_id_that_belongs_to_another_job_by_now_tells_nothing() -> None:
    assert job("7").evidence(tell(("7", "n.0", S.RUNNING, "squeue"))).state is S.RUNNING
    assert job("7").evidence(tell(("7", "other.0", S.RUNNING, "squeue"))).state is None


def test_a_job_without_an_answer_is_found_by_its_name() -> None:
    seen = tell(("9_0", "n.0", S.RUNNING, "squeue"), ("9_1", "n.0", S.PENDING, "squeue"))
    found = job("", index=1).evidence(seen)
    assert (found.job_id, found.state) == ("9_1", S.PENDING)
    assert job("", "n.1", index=1).evidence(seen).may_be_active


@pytest.mark.parametrize(
    ("age_s", "known", "certain"),
    [
        (0, {}, True),
        (7.9, {}, True),
        (8.1, {}, False),  # clocks differ
        (12, {}, False),
        (1, {"min_job_age_s": None}, False),
        (1, {"queue_error": "down"}, False),
    ],
)
def test_a_controller_has_forgotten_nothing_that_is_younger_than_its_memory(
    age_s: float, known: dict[str, object], certain: bool
) -> None:
    seen = tell(**({"min_job_age_s": 10, "seen_at": 100.0 + age_s} | known))  # type: ignore[arg-type]
    assert job("7", submitted_at=100.0).evidence(seen).unforgettable is certain
    assert not job("7").evidence(seen).unforgettable


def publish(directory: SweepDirectory, token: str, mode: ExecutionMode, runs: list[str]) -> Submission:
    jobs = [
        JobPlan(start=0, count=2, job_name=f"n-{token}.0"),
        JobPlan(start=2, count=1, job_name=f"n-{token}.1", is_array=False),
    ]
    submission = Submission(
        token=token, mode=mode, runs=runs, jobs=jobs if mode is ExecutionMode.SLURM else [], created_at=now()
    )
    Submissions(directory).publish(submission, {"0.tasks": "1 a\n3 b\n", "1.tasks": "1 c\n"})
    return submission


def test_references_tell_what_the_files_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, files = SweepDirectory(tmp_path), Submissions(SweepDirectory(tmp_path))
    submission = publish(directory, "t1", ExecutionMode.SLURM, ["a", "b", "c"])
    found = references(directory, files.all())
    assert not any(reference.sent for reference in found.values())
    files.sent_file(submission, 0).touch()
    found = references(directory, files.all())
    assert [(found[name].sent, found[name].job_id) for name in "abc"] == [(True, ""), (True, ""), (False, "")]
    files.note_job(submission, 0, JobFile(job_id="7", submitted_at=now(), how="answered"))
    files.note_job(submission, 1, JobFile(job_id="8", submitted_at=now(), how="found"))
    found = references(directory, files.all())
    assert [(found[name].job_id, found[name].first_attempt) for name in "abc"] == [("7_0", 1), ("7_1", 3), ("8", 1)]
    assert found["a"].submitted_at == files.sent_file(submission, 0).stat().st_mtime
    assert found["c"].submitted_at is None  # who found it does not know for how long it had been there
    assert found["b"].job_name == "n-t1.0"
    assert found["c"].output.endswith("t1/1.out")
    files.refuse(submission, 1, "no such partition")
    assert references(directory, files.all())["c"].refused == "no such partition"
    publish(directory, "t2", ExecutionMode.LOCAL, ["b"])
    publish(directory, "t3", ExecutionMode.DRY_RUN, ["a"])
    found = references(directory, files.all())
    assert [found[name].superseded for name in "abc"] == [False, True, False]
    publish(directory, "t4", ExecutionMode.SLURM, ["a", "b", "d"])
    found = references(directory, files.all())
    assert [found[name].token for name in "abcd"] == ["t4", "t4", "t1", "t4"]
    owner = references_module.os.geteuid() + 1
    monkeypatch.setattr(references_module.os, "geteuid", lambda: owner)
    assert "the jobs are those of user" in references(directory, files.all())["a"].hidden
