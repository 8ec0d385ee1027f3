"""Submission against a Slurm that fails in ways that a real one cannot be made to on demand.

The cluster is the one function that runs programs; clocks and sleep are the test's own.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_config import ExecutionMode, ExperimentConfig
from mtf_slurm import JobSubmissionError, SLURMError
from mtf_slurm.cluster.choosing import Templates, draft_scripts
from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.patience import Patience
from mtf_slurm.cluster.planning import SubmissionPlanner
from mtf_slurm.cluster.programs import Ran
from mtf_slurm.cluster.submission import Launch
from mtf_slurm.cluster.submitter import Submitter
from mtf_slurm.submissions import Submission, Submissions
from mtf_utils.rundir import SweepDirectory

BASE = {"model": {"name": "none"}, "data": {"dataset_name": "none"}, "optimizer": {"name": "none"}}
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n"
FULL = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates policy\n"


class FakeSlurm:
    """Takes jobs; `plan` says what becomes of each call of sbatch: whether it queues, and what it says."""

    def __init__(self, plan: Sequence[str] = ()) -> None:
        self.plan = list(plan)
        self.jobs: dict[int, str] = {}
        self.arrays: dict[int, int] = {}
        self.calls: list[list[str]] = []
        self.now = 1000.0
        self.silent = 0
        self.most_tasks = 10**9
        self.reason = "Priority"
        self.releases: list[Ran] = []
        self.late: list[tuple[float, list[str]]] = []

    def __call__(self, words: Sequence[str], *, timeout_s: float = 0.0, keep_open: Sequence[int] = ()) -> Ran:
        self.calls.append(list(words))
        for when, late in list(self.late):
            if self.now >= when:
                self.late.remove((when, late))
                self.queue(late)
        if words[0] == "sbatch":
            return self.sbatch(list(words))
        if words[0] == "squeue":
            self.silent -= 1
            if self.silent >= 0:
                return Ran(1, "", "slurm_load_jobs error: Socket timed out on send/recv operation\n")
            return Ran(0, "".join(self.row(job_id) for job_id in self.jobs))
        if words[:2] == ["scontrol", "release"]:
            return self.releases.pop(0) if self.releases else Ran(0)
        if words[0] == "scontrol":
            return Ran(0, "MaxArraySize = 1001\nMinJobAge = 300 sec\n")
        return Ran(1, "", "Slurm accounting storage is disabled\n")

    def sbatch(self, words: list[str]) -> Ran:
        what = self.plan.pop(0) if self.plan else "ok"
        if _tasks(words) > self.most_tasks:
            return Ran(1, "", FULL)
        if what == "lost answer":
            self.queue(words)
            return Ran(1, "", TIMED_OUT)
        if what == "late":
            self.late.append((self.now + 1.0, words))
            return Ran(1, "", TIMED_OUT)
        if what == "timed out":
            return Ran(1, "", TIMED_OUT)
        if what == "away":
            return Ran(1, "", AWAY)
        if what == "strange":
            return Ran(1, "", "sbatch: error: Batch job submission failed: The moon is full\n")
        if what == "strange but queued":
            self.queue(words)
            return Ran(1, "", "sbatch: error: Batch job submission failed: The moon is full\n")
        if what == "no such chain":
            return Ran(1, "", "sbatch: error: Batch job submission failed: Job dependency problem\n")
        if what == "no partition":
            return Ran(1, "", "sbatch: error: invalid partition specified: nope\n")
        return Ran(0, f"{self.queue(words)}\n")

    def queue(self, words: list[str]) -> int:
        job_id = max(self.jobs, default=0) + 1
        self.jobs[job_id] = next(word for word in words if word.startswith("--job-name=")).partition("=")[2]
        self.arrays[job_id] = _tasks(words)
        return job_id

    def row(self, job_id: int) -> str:
        tasks = f"{job_id}_[0-{self.arrays[job_id] - 1}]"
        return f"{tasks}|{job_id}|PENDING|{self.reason}|0|0|1G|N/A|N/A|1:00|{self.jobs[job_id]}|\n"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def submissions(self) -> int:
        return sum(words[0] == "sbatch" for words in self.calls)


def _tasks(words: list[str]) -> int:
    found = next((re.match(r"--array=0-(\d+)", word) for word in words if word.startswith("--array")), None)
    return int(found[1]) + 1 if found else 1


class Place:
    """A folder with runs, and a launcher for them."""

    def __init__(self, folder: Path, slurm: FakeSlurm, groups: Sequence[int] = (3,)) -> None:
        self.directory = SweepDirectory(folder)
        self.slurm = slurm
        self.said: list[str] = []
        self.names: list[str] = []
        for group, count in enumerate(groups):
            for number in range(count):
                self.add_run(f"run-{group}-{number}", f"{group + 1}G")
        self.planner = SubmissionPlanner(self.directory, Templates(folder))

    def add_run(self, name: str, memory: str) -> None:
        config = ExperimentConfig.from_dict(BASE | {"experiment_name": name, "slurm": {"mem": memory}})
        run = self.directory.run(name)
        run.path.mkdir(parents=True)
        run.config_json.write_text(json.dumps(config.to_dict()))
        self.names.append(name)

    def patience(self, timeout_s: float = 60) -> Patience:
        clock: Callable[[], float] = lambda: self.slurm.now  # noqa: E731
        return Patience(timeout_s=timeout_s, clock=clock, sleep=self.slurm.sleep, wall_clock=clock)

    def launch(self, timeout_s: float = 60) -> Launch:
        controller = Controller(self.slurm, wall_clock=lambda: self.slurm.now)
        return Launch(self.planner, controller, self.said.append, self.patience(timeout_s))

    def submitter(self) -> Submitter:
        return Submitter(self.directory, Controller(self.slurm), self.said.append, self.planner.split, self.patience())

    def submission(self) -> Submission:
        (found,) = Submissions(self.directory).all()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Place]:
    return lambda plan=(), groups=(3,): Place(tmp_path / "sweep", FakeSlurm(plan), groups)


def test_a_group_is_one_array(place) -> None:
    here = place(groups=(3, 2))
    done = here.launch().submit(here.names, None)
    assert done.job_ids == {"run-0-0": "1_0", "run-0-1": "1_1", "run-0-2": "1_2", "run-1-0": "2_0", "run-1-1": "2_1"}
    assert here.slurm.submissions == 2
    assert Submissions(here.directory).first_attempts(here.submission(), 1) == {"run-1-0": 1, "run-1-1": 1}


def test_an_answer_that_is_lost_makes_no_second_job(place) -> None:
    here = place(["lost answer"])
    done = here.launch().submit(here.names, None)
    assert here.slurm.submissions == 1
    assert done.job_ids["run-0-2"] == "1_2"
    assert Submissions(here.directory).job(here.submission(), 0).how == "found"
    assert "sbatch did not say whether it queued the job" in here.said[0]


def test_a_job_that_comes_late_is_waited_for(place) -> None:
    here = place(["late"])  # the controller carries it out a second after squeue has answered without it
    here.launch().submit(here.names, None)
    assert here.slurm.submissions == 1
    assert list(here.slurm.jobs) == [1]


def test_a_request_that_never_arrived_is_sent_again(place) -> None:
    here = place(["timed out", "timed out"])
    here.launch().submit(here.names, None)
    assert here.slurm.submissions == 3
    assert len(here.slurm.jobs) == 1


def test_silence_of_squeue_is_no_answer(place) -> None:
    here = place(["lost answer"])
    here.slurm.silent = 5
    here.launch().submit(here.names, None)
    assert (here.slurm.submissions, len(here.slurm.jobs)) == (1, 1)
    assert any("cannot be told yet" in text for text in here.said)


def test_a_controller_that_is_away_is_waited_for(place) -> None:
    here = place(["away"] * 5)
    here.launch().submit(here.names, None)
    assert len(here.slurm.jobs) == 1
    assert [text for text in here.said if "away" in text] == [here.said[0]]  # said once, not at every try


def test_giving_up_loses_nothing(place) -> None:
    here = place(["ok", *["away"] * 200], groups=(3, 2))
    with pytest.raises(JobSubmissionError, match=r"gave up after 60 s with 3 of 5 runs submitted.*goes on where"):
        here.launch().submit(here.names, None)
    here.slurm.plan = []
    done = here.launch().submit(here.names, None)
    assert len(done.job_ids) == 5
    assert len(Submissions(here.directory).all()) == 1
    assert sorted(here.slurm.arrays.values()) == [2, 3]


def test_a_mistake_of_the_user_is_said_and_stops_no_other(place) -> None:
    here = place(["no partition", "ok"], groups=(2, 1))
    done = here.launch().submit(here.names, None)
    assert done.job_ids == {"run-1-0": "1_0"}
    assert set(done.refused) == {"run-0-0", "run-0-1"}
    assert "invalid partition specified: nope; see slurm.partition" in done.refused["run-0-0"]
    assert here.slurm.submissions == 2
    # asked again, they are tried again
    assert here.launch().submit(here.names, None).job_ids["run-0-1"] == "2_1"


def test_words_that_nobody_knows_are_checked_against_the_queue(place) -> None:
    here = place(["strange but queued"])
    assert here.launch().submit(here.names, None).job_ids["run-0-0"] == "1_0"
    other = place_beside(here, ["strange"])
    assert "The moon is full" in other.launch().submit(other.names, None).refused["run-0-0"]
    assert other.slurm.submissions == 1


def place_beside(here: Place, plan: Sequence[str]) -> Place:
    return Place(here.directory.path.with_name("other"), FakeSlurm(plan))


def test_an_array_that_is_too_large_for_a_limit_is_cut(place) -> None:
    here = place(groups=(10, 3))
    here.slurm.most_tasks = 3
    done = here.launch().submit(here.names, 2)
    assert sorted(here.slurm.arrays.values()) == [2, 2, 3, 3, 3]
    assert len(set(done.job_ids.values())) == 13
    submission = here.submission()
    for number in range(len(submission.jobs)):
        tasks = Submissions(here.directory).first_attempts(submission, number)
        assert list(tasks) == submission.runs_of(number)


def test_a_limit_that_leaves_no_room_at_all_is_an_error(place) -> None:
    here = place()
    here.slurm.most_tasks = 0
    with pytest.raises(JobSubmissionError, match="takes no job from you, although you have none"):
        here.launch().submit(here.names, None)


def test_held_jobs_are_released_when_asked_for_again(place) -> None:
    here = place(groups=(2, 1))
    done = here.launch().submit(here.names, None)
    here.slurm.reason = "launch failed requeued held"
    here.slurm.releases = [
        Ran(1, "", TIMED_OUT),
        Ran(1, "", "Job has already finished for job 1_1\nslurm_suspend error: x"),
    ]
    again = here.launch().submit(here.names, None)
    assert (again.job_ids, here.slurm.submissions) == (done.job_ids, 2)
    asked = [words[2] for words in here.slurm.calls if words[:2] == ["scontrol", "release"]]
    assert asked == ["1_0,1_1,2_0"] * 2  # the first time nobody answered
    assert "held jobs cannot be released (scontrol: sbatch: error" in here.said[-2]
    assert here.said[-1] == "released what Slurm held because a node could not start it: 1_0, 1_1, 2_0"
    here.slurm.releases = [Ran(1, "", "Access/permission denied for job 1_0")]
    here.add_run("another", "9G")
    assert here.launch().submit(["run-0-0", "another"], None).job_ids == {"run-0-0": "1_0", "another": "3_0"}
    assert (
        "Slurm does not release what it holds because a node could not start it: 1_0 (scontrol: Access/permission "
        "denied for job 1_0); ask the site"
    ) in here.said


def test_a_job_that_a_crash_has_lost_is_sent_again(place) -> None:
    here = place()
    here.launch().submit(here.names, None)
    here.slurm.jobs.clear()
    here.slurm.jobs[1] = "another-job-which-got-the-id"
    done = here.launch().submit(here.names, None)
    assert done.job_ids["run-0-0"] == "2_0"
    assert any("has lost 1 job in a crash; it is sent again" in text for text in here.said)


def test_a_job_that_a_crash_has_lost_is_sent_again_behind_those_that_it_let_loose(place) -> None:
    here = place(groups=(1, 1, 1, 1))
    here.launch().submit(here.names, 1)
    del here.slurm.jobs[2], here.slurm.jobs[4]
    here.slurm.jobs[4] = "another-job-which-got-the-id"
    here.launch().submit(here.names, 1)
    sent = [words for words in here.slurm.calls if words[0] == "sbatch"][4:]
    assert [[word for word in words if "dependency" in word] for words in sent] == [
        ["--dependency=afterany:1:3"],
        ["--dependency=afterany:1:3:5"],
    ]
    assert here.launch().submit(here.names, 1).job_ids["run-1-0"] == "5_0"


@pytest.mark.parametrize(("times", "taken"), [(1, True), (3, True), (4, False)])
def test_a_job_is_chained_behind_one_that_a_crash_has_lost(place, times: int, taken: bool) -> None:
    """Slurm refuses it while it is about to give it the very id that it is to wait for."""
    here = place(["ok", *["no such chain"] * times], groups=(1, 1))
    done = here.launch().submit(here.names, 1)
    assert ("run-1-0" in done.job_ids) is taken
    assert ("run-1-0" in done.refused) is not taken
    if not taken:
        assert "Job dependency problem" in done.refused["run-1-0"]


def test_a_dependency_of_the_users_own_is_refused_at_once(place) -> None:
    here = place(["no such chain"])
    assert list(here.launch().submit(here.names, 1).refused) == here.names
    assert here.slurm.submissions == 1


def test_a_job_whose_runs_have_all_started_is_not_lost(place) -> None:
    here = place()
    here.launch().submit(here.names, None)
    for name in here.names:
        here.directory.run(name).attempt(1).path.mkdir(parents=True)
    here.slurm.jobs.clear()
    submitter = here.submitter()
    submitter.confirm(here.submission())
    assert here.slurm.submissions == 1


def test_a_call_of_sbatch_that_outlived_its_launcher_is_waited_for(place) -> None:
    here = place()
    here.launch().submit(here.names, None)
    store, submission = Submissions(here.directory), here.submission()
    store.forget_job(submission, 0)
    here.slurm.jobs.clear()
    with store.sent_file(submission, 0).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(JobSubmissionError, match="sbatch, called by a launcher that was killed since, is still"):
            here.submitter().send(submission)
    assert here.slurm.submissions == 1
    here.submitter().send(submission)
    assert here.slurm.submissions == 2


def test_a_job_that_has_left_receipts_is_found_by_them(place) -> None:
    here = place()
    here.launch().submit(here.names, None)
    store, submission = Submissions(here.directory), here.submission()
    store.forget_job(submission, 0)
    here.slurm.jobs.clear()  # over, and forgotten
    attempt = here.directory.run(here.names[1]).attempt(1)
    attempt.path.mkdir(parents=True)
    receipt = {"version": 1, "attempt": 1, "token": submission.token, "restart": 0, "host": "n", "pid": 1}
    attempt.started_file.write_text(json.dumps(receipt | {"job_id": "1_1", "started_at": "2026-01-01T00:00:00Z"}))
    here.submitter().send(submission)
    assert here.slurm.submissions == 1
    assert store.job(submission, 0).job_id == "1"


def test_what_was_cancelled_before_it_was_sent_is_not_sent(place) -> None:
    here = place(["ok", *["away"] * 200], groups=(1, 2))
    with pytest.raises(JobSubmissionError):
        here.launch().submit(here.names, None)
    here.slurm.plan = []
    for name in here.submission().runs_of(1):
        Submissions(here.directory).cancel(here.submission(), name)
    here.launch().complete()
    assert len(here.slurm.jobs) == 1


def test_a_run_that_was_finished_by_hand_is_not_submitted(place) -> None:
    here = place()
    attempt = here.directory.run(here.names[0]).attempt(1)
    attempt.path.mkdir(parents=True)
    receipt = {"version": 1, "attempt": 1, "outcome": "finished", "finished_at": "2026-01-01T00:00:00Z"}
    attempt.finished_file.write_text(json.dumps(receipt))
    done = here.launch().submit(here.names, None)
    assert here.submission().runs == here.names[1:]
    assert "over already" in done.refused[here.names[0]]


def test_jobs_wait_for_what_holds_the_lanes(place) -> None:
    here = place(groups=(2, 2))
    here.launch().submit(here.names, 2)
    assert not any("dependency" in word for words in here.slurm.calls for word in words)
    here.add_run("more", "4G")
    here.launch().submit([*here.names], 2)
    last = [words for words in here.slurm.calls if words[0] == "sbatch"][-1]
    assert "--dependency=afterany:1" in last or "--dependency=afterany:2" in last
    assert "--array=0-0%1" in last


def test_options_that_cannot_be_asked_for_are_found_before_anything_is_written(tmp_path: Path) -> None:
    config = ExperimentConfig.from_dict(
        BASE | {"experiment_name": "x", "slurm": {"additional_args": ["--wait", "--array=0-3"]}}
    )
    (draft,) = draft_scripts(SweepDirectory(tmp_path / "sweep"), {"x": config}, Templates(tmp_path))
    assert draft.runs == ("x",)
    assert "--wait" in draft.problem
    assert "--array" in draft.problem
    assert not (tmp_path / "sweep").exists()


def test_a_job_keeps_its_template_when_it_is_cut(place, tmp_path: Path) -> None:
    here = place(groups=(3,))
    own = tmp_path / "own.j2"
    own.write_text("#!/bin/sh\n# of my own\n{{ body }}\n")
    for name in here.names[:2]:
        file = here.directory.run(name).config_json
        data = json.loads(file.read_text())
        data["slurm"]["template_path"] = str(own)
        file.write_text(json.dumps(data))
    submission, files = here.planner.plan(here.names, mode=ExecutionMode.SLURM, max_tasks=1001)
    assert [(job.count, job.template) for job in submission.jobs] == [(2, str(own)), (1, "")]
    Submissions(here.directory).publish(submission, files)
    # another launcher, which was given no template or another one, goes on with those of the submission
    other = SubmissionPlanner(here.directory, Templates(tmp_path, chosen=tmp_path / "absent.j2"))
    cut = other.split(submission, 0)
    assert [job.template for job in cut.jobs] == [str(own), str(own), ""]
    folder = Submissions(here.directory).script(cut, 0).parent
    assert ["of my own" in (folder / f"{number}.sh").read_text() for number in range(3)] == [True, True, False]


def test_a_dry_run_writes_the_same_and_sends_nothing(place) -> None:
    here = place(groups=(3, 2))
    submission, files = here.planner.plan(here.names, mode=ExecutionMode.DRY_RUN, max_tasks=1001, limit=2)
    Submissions(here.directory).publish(submission, files)
    assert sorted(files) == ["0.sh", "0.tasks", "1.sh", "1.tasks"]
    assert "#SBATCH --mem=1G" in files["0.sh"]
    assert [job.throttle for job in here.submission().jobs] == [1, 1]
    assert here.slurm.calls == []
    here.launch().complete()  # there is nothing to complete
    assert here.slurm.submissions == 0


def test_an_intent_that_cannot_be_written_leaves_nothing(place, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place()
    submission, files = here.planner.plan(here.names, mode=ExecutionMode.SLURM, max_tasks=1001)
    with pytest.raises(OSError, match=r"No such file"):
        Submissions(here.directory).publish(submission, files | {"no/such/folder": ""})
    assert Submissions(here.directory).all() == []
    assert list((here.directory.path / "submissions").iterdir()) == []


STEPS = st.sampled_from(["ok", "lost answer", "late", "timed out", "away", "strange but queued"])


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=12), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_whatever_happens_every_run_is_in_one_job(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str], groups: list[int], silent: int
) -> None:
    here = Place(tmp_path_factory.mktemp("sweep"), FakeSlurm(plan), groups)
    here.slurm.silent = silent
    done = here.launch(600).submit(here.names, None)
    assert sorted(here.slurm.arrays.values()) == sorted(groups)
    assert len(set(here.slurm.jobs.values())) == len(groups)
    assert sorted(done.job_ids) == sorted(here.names)
    assert len(set(done.job_ids.values())) == len(here.names)
    assert not done.refused
    again = here.launch().submit(here.names, None)
    assert again.job_ids == done.job_ids
    assert again.submission is None


def test_a_folder_that_sbatch_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    here = Place(tmp_path / "bad\\name", FakeSlurm())
    with pytest.raises(SLURMError, match="sbatch takes no backslash"):
        here.launch().submit(here.names, None)
    assert here.slurm.submissions == 0
    assert Submissions(here.directory).all() == []
