"""From runs to jobs: everything is in a job once, in order, within the limits, and never too much at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtf_config import ExecutionMode, SLURMConfig
from mtf_slurm.cluster.batches import ALONE, Group, Pack, Request, group_runs, plan_jobs, rechain_jobs, split_job
from mtf_slurm.cluster.lanes import Holder, Lanes, quotas
from mtf_slurm.submissions import JobPlan, Submission

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


PACKS = st.builds(lambda runs, share: Pack(runs, max(1, runs // share)), st.integers(1, 9), st.integers(1, 4))


def groups_of(sizes: list[int], pack: Pack = ALONE) -> list[Group]:
    return [
        Group((f"--mem={index}G",), "job", tuple(f"run-{index}-{number}" for number in range(size)), pack=pack)
        for index, size in enumerate(sizes)
    ]


def name_job(stem: str, number: int) -> str:
    return f"{stem}-t.{number}"


def rename(name: str, number: int) -> str:
    return f"{name.rpartition('.')[0]}.{number}"


def most_at_a_time(jobs: list[JobPlan], held: dict[str, int], after_held: dict[str, list[str]]) -> int:
    """The largest number of tasks that may run at once under the dependencies, by trying every order of ends."""
    width = dict(held) | {f"@{k}": len(job.lanes) for k, job in enumerate(jobs)}
    after = dict(after_held) | {f"@{k}": job.after for k, job in enumerate(jobs)}
    most = 0
    seen: set[frozenset[str]] = set()
    open_sets = [frozenset[str]()]
    while open_sets:
        over = open_sets.pop()
        if over in seen or len(seen) > 3000:
            continue
        seen.add(over)
        running = [name for name in width if name not in over and all(w in over or w not in width for w in after[name])]
        most = max(most, sum(width[name] for name in running))
        open_sets += [over | {name} for name in running]
    return most


def test_runs_that_ask_for_the_same_share_a_group() -> None:
    asked = [("a", "4G"), ("b", "8G"), ("c", "4G")]
    groups = group_runs(Request(name, (f"--mem={mem}",), "job") for name, mem in asked)
    assert [group.names for group in groups] == [("a", "c"), ("b",)]


def test_other_names_of_jobs_are_other_groups() -> None:
    assert len(group_runs([Request("a", (), "one"), Request("b", (), "two")])) == 2


def test_runs_share_a_task_only_with_those_that_want_to_in_the_same_way() -> None:
    packs = [Pack(8), Pack(8), Pack(8, 2), ALONE]
    groups = group_runs(Request(str(number), (), "job", pack=pack) for number, pack in enumerate(packs))
    assert [(group.names, group.pack) for group in groups] == [
        (("0", "1"), Pack(8)),
        (("2",), Pack(8, 2)),
        (("3",), ALONE),
    ]
    assert Pack.of(SLURMConfig(runs_per_job=8, runs_at_once=2)) == Pack(8, 2)
    assert Pack.of(SLURMConfig()) == Pack.of(None) == ALONE


@given(SIZES, st.integers(0, 15), st.one_of(st.none(), st.integers(1, 12)), PACKS)
def test_every_run_is_in_one_task_of_one_job(sizes: list[int], max_tasks: int, limit: int | None, pack: Pack) -> None:
    names, jobs = plan_jobs(groups_of(sizes, pack), name_job=name_job, max_tasks=max_tasks, limit=limit)
    submission = Submission(token="t", mode=ExecutionMode.SLURM, runs=names, jobs=jobs, created_at="now")
    shared = [submission.runs_of_task(k, index) for k, job in enumerate(jobs) for index in range(job.tasks)]
    assert [name for task in shared for name in task] == names
    assert all(1 <= len(task) <= pack.runs for task in shared)
    assert len(shared) <= sum(-(-size // pack.runs) for size in sizes) + len(jobs)
    for k, job in enumerate(jobs):
        tasks = [submission.runs_of_task(k, index) for index in range(job.tasks)]
        assert job.tasks <= max(max_tasks, 1)
        assert all(len(task) == pack.runs for task in tasks[:-1])  # only the last one may have fewer
        assert job.is_shared is (pack.runs > 1 and job.count > 1)
        assert submission.runs_of_task(k, job.tasks) == []
        assert limit is None or not job.lanes or len(job.lanes) <= job.tasks
        ids = [submission.run_id(k, name, "7") for name in submission.runs_of(k)]
        assert len(set(ids)) == len(ids)
        for index, task in enumerate(tasks):
            one = f"7_{index}" if job.is_array else "7"
            wanted = [f"{one}/{place}" if job.is_shared else one for place in range(len(task))]
            assert [submission.run_id(k, name, "7") for name in task] == wanted


@given(SIZES, st.integers(0, 15), st.one_of(st.none(), st.integers(1, 12)))
def test_every_run_is_in_one_job(sizes: list[int], max_tasks: int, limit: int | None) -> None:
    groups = groups_of(sizes)
    names, jobs = plan_jobs(groups, name_job=name_job, max_tasks=max_tasks, limit=limit)
    assert sorted(names) == sorted(name for group in groups for name in group.names)
    assert [job.start for job in jobs] == [sum(job.count for job in jobs[:k]) for k in range(len(jobs))]
    assert sum(job.count for job in jobs) == len(names)
    assert all(job.count <= max(max_tasks, 1) for job in jobs)
    assert all(job.is_array is (max_tasks > 1) for job in jobs)
    assert len({job.job_name for job in jobs}) == len(jobs)
    asked = {name: list(group.options) for group in groups for name in group.names}
    assert all(asked[name] == job.options for job in jobs for name in names[job.slice])
    for number, job in enumerate(jobs):  # what is waited for was sent before
        assert all(int(reference[1:]) < number for reference in job.after)
    if limit is None:
        assert all(job.throttle is None and not job.after for job in jobs)
    else:
        assert all(job.throttle == (len(job.lanes) if job.is_array else None) for job in jobs)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 6), st.integers(1, 6), PACKS, st.data())
def test_no_order_of_ends_lets_more_tasks_run_than_the_limit(
    sizes: list[int], max_tasks: int, limit: int, pack: Pack, data: st.DataObject
) -> None:
    _, jobs = plan_jobs(groups_of(sizes, pack), name_job=name_job, max_tasks=max_tasks, limit=limit)
    assert most_at_a_time(jobs, {}, {}) <= limit
    # some of these jobs are over, perhaps cancelled before their turn came; a second launcher sends its own
    over = data.draw(st.sets(st.sampled_from(range(len(jobs)))))
    left = {k: job for k, job in enumerate(jobs) if k not in over}
    holders = [Holder(f"#{k}", tuple(job.lanes), job.count) for k, job in left.items()]
    more = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=2))
    _, second = plan_jobs(groups_of(more), name_job=name_job, max_tasks=max_tasks, limit=limit, holders=holders)
    held = {holder.job: len(holder.lanes) for holder in holders}
    waits = {f"#{k}": [f"#{n}" for n in _numbers(job) if n in left] for k, job in left.items()}
    assert most_at_a_time(second, held, waits) <= limit


def _numbers(job: JobPlan) -> list[int]:
    return [int(reference[1:]) for reference in job.after]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 6), st.integers(1, 6), st.data())
def test_jobs_that_a_crash_loses_keep_to_the_limit_though_what_was_behind_them_is_let_loose(
    sizes: list[int], max_tasks: int, limit: int, data: st.DataObject
) -> None:
    _, jobs = plan_jobs(groups_of(sizes), name_job=name_job, max_tasks=max_tasks, limit=limit)
    lost = data.draw(st.sets(st.sampled_from(range(len(jobs))), min_size=1))
    over: set[int] = set()
    for k, job in enumerate(jobs):  # what is over had its turn: everything that it waited for is over, or lost
        if k not in lost and over.union(lost).issuperset(_numbers(job)) and data.draw(st.booleans()):
            over.add(k)
    left = [k for k in range(len(jobs)) if k not in lost | over]
    holders = [Holder(f"@{k}", tuple(jobs[k].lanes), jobs[k].count) for k in left]
    again = rechain_jobs(jobs, lost, limit, holders)
    assert [job for k, job in enumerate(again) if k not in lost] == [job for k, job in enumerate(jobs) if k not in lost]
    for k in left:
        again[k] = _with(again[k], after=[f"@{n}" for n in _numbers(jobs[k]) if n not in lost | over])
    for k in over:
        again[k] = _with(again[k], after=[], lanes=[])
    assert most_at_a_time(again, {}, {}) <= limit


def _with(job: JobPlan, **changes: object) -> JobPlan:
    return JobPlan.from_dict(job.to_dict() | changes)


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 9))
def test_a_smaller_limit_waits_for_what_was_sent_under_a_larger_one(limit: int, held: int, size: int) -> None:
    holders = [Holder("7", tuple(range(held)), held)]
    _, jobs = plan_jobs(groups_of([size]), name_job=name_job, max_tasks=100, limit=limit, holders=holders)
    if held >= limit:
        assert all(job.after for job in jobs)
    assert most_at_a_time(jobs, {"7": held}, {"7": []}) <= max(limit, held)


@given(SIZES, st.integers(0, 50))
def test_quotas_use_every_lane_that_can_be_used(sizes: list[int], lanes: int) -> None:
    given_ = quotas(sizes, lanes)
    assert sum(given_) == min(lanes, sum(sizes) if lanes >= len(sizes) else lanes)
    assert all(quota <= size for quota, size in zip(given_, sizes, strict=True))
    assert sum(quota > 0 for quota in given_) == min(lanes, len(sizes))


def test_quotas_are_in_proportion() -> None:
    assert quotas([90, 10], 10) == [9, 1]
    assert quotas([100, 100, 1], 9) == [4, 4, 1]
    assert quotas([5, 9, 7], 2) == [0, 1, 1]


@given(SIZES, st.integers(2, 15), st.one_of(st.none(), st.integers(1, 6)), PACKS, st.data())
def test_a_job_cut_in_two_has_the_same_tasks_and_the_same_bound(
    sizes: list[int], max_tasks: int, limit: int | None, pack: Pack, data: st.DataObject
) -> None:
    runs, jobs = plan_jobs(groups_of(sizes[:3], pack), name_job=name_job, max_tasks=max_tasks, limit=limit)
    large = [number for number, job in enumerate(jobs) if job.tasks > 1]
    if not large:
        return
    number = data.draw(st.sampled_from(large))
    cut = split_job(jobs, number, rename)
    assert len(cut) == len(jobs) + 1
    assert [task for job in cut for task in range(job.start, job.start + job.count)] == list(range(sum(sizes[:3])))
    assert tasks_of(runs, cut) == tasks_of(runs, jobs)
    assert all(len(job.lanes) <= job.tasks for job in cut)
    assert [job.job_name for job in cut] == [f"job-t.{k}" for k in range(len(cut))]
    if limit is not None:
        assert most_at_a_time(cut, {}, {}) <= limit


def tasks_of(runs: list[str], jobs: list[JobPlan]) -> list[list[str]]:
    submission = Submission(token="t", mode=ExecutionMode.SLURM, runs=runs, jobs=jobs, created_at="now")
    return [submission.runs_of_task(k, index) for k, job in enumerate(jobs) for index in range(job.tasks)]


def test_free_lanes_are_taken_first() -> None:
    lanes = Lanes(4, [Holder("7", (0, 2), 50)])
    assert lanes.free == [1, 3]
    assert lanes.take("@0", lanes.free, 10) == []
    assert lanes.free == []
    assert lanes.take("@1", lanes.shortest(1), 1) == ["@0"]  # which has less left to do than job 7
