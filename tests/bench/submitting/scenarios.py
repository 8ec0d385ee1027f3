"""The scenarios of the campaign, each on a cluster of its own."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mtf_slurm.testing import ClusterSettings, LocalCluster
from submitting.findings import Findings, examine, peak, wait_until_started
from submitting.launching import Order, answer
from submitting.trouble import Trouble

DEADLINE_S = 300.0
SPAN = "date +%s%N > {run_dir}/.span; sleep 1; date +%s%N >> {run_dir}/.span; mv {run_dir}/.span {run_dir}/span"


@dataclass
class Report:
    """What a scenario found."""

    is_good: bool = True
    lines: list[str] = field(default_factory=list)

    def add(self, line: object, *, good: bool = True) -> None:
        """Note a finding."""
        self.lines.append(str(line))
        self.is_good &= good


@contextmanager
def place(settings: ClusterSettings) -> Iterator[tuple[LocalCluster, Path]]:
    """A cluster and an empty folder; both are left on disk if KEEP_SUBMISSIONS names where."""
    keep = os.environ.get("KEEP_SUBMISSIONS")
    with tempfile.TemporaryDirectory(prefix="submit-") as temporary:
        folder = Path(keep or temporary)
        (folder / "project").mkdir(parents=True)
        with LocalCluster(settings, folder=folder / "cluster" if keep else None) as cluster:
            yield cluster, folder / "project"


def names(count: int, groups: int) -> dict[str, int]:
    """Experiments, each with the memory that it asks for, in so many groups."""
    return {f"run-{number}": 100 + number % groups for number in range(count)}


def controller(*, seed: int, size: int | None, steps: int | None = None) -> Report:
    """See the campaign."""
    return _in_trouble(seed, size or 200, kill_launcher=False)


def both(*, seed: int, size: int | None, steps: int | None = None) -> Report:
    """See the campaign."""
    return _in_trouble(seed, size or 200, kill_launcher=True)


def _in_trouble(seed: int, size: int, *, kill_launcher: bool) -> Report:
    report = Report()
    chance = random.Random(seed)
    with place(ClusterSettings(message_timeout_s=2)) as (cluster, folder):
        order = Order(folder=str(folder), memory=names(size, max(1, size // 2)))
        environ = cluster.environment()
        calls, killed = 0, 0
        start = time.monotonic()
        said: list[str] = []
        with Trouble(cluster, seed, longest_s=10 + size / 4) as trouble:
            done = None
            while done is None:
                launcher = order.start(environ)
                calls += 1
                if kill_launcher and killed < size // 8:
                    timer = threading.Timer(chance.uniform(0.4, 6.0), launcher.kill)
                    timer.start()
                    done = answer(launcher)
                    timer.cancel()
                    killed += done is None
                else:
                    done = answer(launcher)
            said += done["said"]
        seconds = time.monotonic() - start
        crashes = f"{trouble.freezes} freezes and {trouble.kills} kills of the controller"
        crashes += f" ({trouble.drained} with drained nodes)"
        report.add(f"{crashes}, {killed} kills of the launcher, in {seconds:.0f} s")
        again = settle(order, cluster, folder)
        report.add(f"jobs that a crash of the controller had lost by the end, sent again by a repeated call: {again}")
        findings = examine(cluster, folder, order.memory)
        report.add(findings, good=findings.is_good)
        report.add(f"the launcher said: {sorted({line.partition('(')[0] for line in said})}")
    return report


def settle(order: Order, cluster: LocalCluster, folder: Path) -> int:
    """Repeat the call until nothing is left to be done, and tell how many jobs it sent again."""
    sent = 0
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        # a job that was forgotten and still runs, and a new one with its id, make Slurm drain their node
        cluster.run(["scontrol", "update", "NodeName=ALL", "State=RESUME"], check=False)
        done = order.carry_out(cluster.environment())
        assert done is not None
        sent += done["steps"].count("sbatch")
        if not wait_until_started(folder, order.memory, 20.0):
            break
    return sent


def journal(*, seed: int, size: int | None, steps: int | None) -> Report:
    """See the campaign."""
    report = Report()
    chance = random.Random(seed)
    memory = names(size or 6, 3)
    with place(ClusterSettings(message_timeout_s=2)) as (cluster, folder):
        environ = cluster.environment()
        whole = Order(folder=str(folder / "whole"), memory=memory)
        (folder / "whole").mkdir()
        done = whole.carry_out(environ)
        assert done is not None
        trials = [(number, 0.0) for number in range(1, len(done["steps"]) + 1)]
        calls = [number for number, step in enumerate(done["steps"], 1) if step == "sbatch"]
        trials += [(number, chance.uniform(0.0005, 0.012)) for number in calls for _ in range(6)]
        chosen = trials if steps is None else chance.sample(trials, min(steps, len(trials)))
        bad: list[str] = []
        for index, (number, delay) in enumerate(chosen):
            findings = _kill_once(cluster, folder / str(index), memory, number, delay)
            if not findings.is_good:
                bad.append(f"step {number} ({done['steps'][number - 1]}), {1000 * delay:.1f} ms after: {findings}")
        report.add(f"{len(done['steps'])} steps, {len(chosen)} kills: {len(chosen) - len(bad)} without a trace")
        for line in bad:
            report.add(line, good=False)
    return report


def _kill_once(cluster: LocalCluster, folder: Path, memory: dict[str, int], number: int, delay: float) -> Findings:
    folder.mkdir()
    environ = cluster.environment()
    Order(folder=str(folder), memory=memory, kill_at=number, kill_after_s=delay).carry_out(environ)
    done = Order(folder=str(folder), memory=memory).carry_out(environ)
    assert done is not None
    wait_until_started(folder, memory, 30.0)
    return examine(cluster, folder, memory)


def arrays(*, seed: int, size: int | None, steps: int | None = None) -> Report:
    """See the campaign."""
    report = Report()
    count = size or 1000
    memory = names(count, 1)
    with place(ClusterSettings(max_array_size=count + 1)) as (cluster, folder):
        fast, requests, submits = _time_submission(cluster, folder, memory)
        bare = _time_sbatch(cluster, count)
    with place(ClusterSettings(options={"MaxArraySize": "1"})) as (cluster, folder):
        slow, many, _ = _time_submission(cluster, folder, memory)
    report.add(f"{count} experiments as an array: {fast:.3f} s, {submits} submissions, {requests} requests in all")
    report.add(f"{count} bare calls of sbatch, for comparison: {bare:.1f} s, {bare / fast:.0f} times as long")
    report.add(
        f"{count} experiments, one job each: {slow:.1f} s, {slow / fast:.0f} times as long; {many} requests in all"
    )
    report.add("the array is at least 20 times as fast as bare calls", good=count < 1000 or bare / fast >= 20)
    report.add("at most 20 requests for the array", good=requests <= 20)
    return report


def _time_sbatch(cluster: LocalCluster, count: int) -> float:
    """Seconds for so many calls of sbatch, one after the other, with nothing around them."""
    start = time.monotonic()
    for _ in range(count):
        cluster.run(["sbatch", "--parsable", "--output=/dev/null"], text_in="#!/bin/sh\ntrue\n")
    return time.monotonic() - start


def _time_submission(cluster: LocalCluster, folder: Path, memory: dict[str, int]) -> tuple[float, int, int]:
    """Seconds from the first sbatch to the end, all requests of the launcher, and its submissions."""
    cluster.reset_rpc_counts()
    launcher = Order(folder=str(folder), memory=memory).start(cluster.environment())
    done = answer(launcher)
    assert done is not None
    counts = cluster.rpc_counts()
    asked = ("REQUEST_SUBMIT_BATCH_JOB", "REQUEST_JOB_INFO", "REQUEST_JOB_USER_INFO", "REQUEST_BUILD_INFO")
    return done["sending_s"], sum(counts.get(name, 0) for name in asked), counts.get("REQUEST_SUBMIT_BATCH_JOB", 0)


def large(*, seed: int, size: int | None, steps: int | None = None) -> Report:
    """See the campaign."""
    report = Report()
    memory = names(size or 230, 2)
    with place(ClusterSettings(max_array_size=50)) as (cluster, folder):
        order = Order(folder=str(folder), memory=memory)
        done = order.carry_out(cluster.environment())
        assert done is not None
        jobs = {job_id.partition("_")[0] for job_id in done["job_ids"].values()}
        wait_until_started(folder, memory)
        findings = examine(cluster, folder, memory)
        report.add(f"MaxArraySize 50: {len(memory)} experiments in 2 groups are {len(jobs)} arrays")
        report.add(findings, good=findings.is_good)
    return report


def bound(*, seed: int, size: int | None, steps: int | None = None) -> Report:
    """See the campaign."""
    report = Report()
    limit, count = 5, size or 60
    with place(ClusterSettings(max_array_size=8, nodes=4)) as (cluster, folder):
        every = names(count, 3)
        first = dict(list(every.items())[: count // 2])
        second = {name: memory for name, memory in every.items() if name not in first}
        orders = [
            Order(folder=str(folder), memory=memory, command=["bash", "-c", SPAN], limit=limit)
            for memory in (first, second)
        ]
        launchers = [order.start(cluster.environment()) for order in orders]
        for launcher in launchers:
            assert answer(launcher) is not None
        rebalanced = _rebalance_until_done(cluster, folder, every)
        findings = examine(cluster, folder, every)
        most, counted = peak(folder)
        report.add(findings, good=findings.is_good)
        report.add(
            f"{counted['runs']} runs, at most {limit} at a time asked for, at most {most} seen", good=most <= limit
        )
        report.add(f"the bound was used: {most == limit}", good=most == limit)
        report.add(f"idle lanes given to other arrays: {rebalanced}")
    return report


def _rebalance_until_done(cluster: LocalCluster, folder: Path, memory: dict[str, int]) -> int:
    from mtf_slurm.cluster.controller import Controller
    from mtf_slurm.cluster.holders import rebalance
    from mtf_slurm.cluster.programs import Ran
    from mtf_utils.rundir import SweepDirectory

    def run(words: object, **_: object) -> Ran:
        done = cluster.run(list(words), check=False)  # type: ignore[call-overload]
        return Ran(done.returncode, done.stdout, done.stderr)

    slurm = Controller(run)
    given = 0
    end = time.monotonic() + DEADLINE_S
    while wait_until_started(folder, memory, 1.0) and time.monotonic() < end:
        given += rebalance(SweepDirectory(folder / "out" / "single"), slurm, slurm.queue())
    return given


SCENARIOS: dict[str, Callable[..., Report]] = {
    scenario.__name__: scenario for scenario in (controller, both, journal, arrays, large, bound)
}
