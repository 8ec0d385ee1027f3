"""When it is said that Slurm does not answer, and how often."""

from __future__ import annotations

import threading

import pytest

from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.programs import Ran
from mtf_slurm.cluster.silence import Silence


class Slurm:
    """Takes `lasts` seconds of a clock of its own for each answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lasts = 0.0
        self.answer = Ran(0)

    def __call__(self, words, *, timeout_s: float = 0, keep_open=()) -> Ran:
        self.now += self.lasts
        return self.answer


@pytest.fixture
def said() -> list[str]:
    return []


def test_it_is_said_once_and_then_ever_more_seldom(said: list[str]) -> None:
    slurm = Slurm()
    silence = Silence(said.append, first_s=4, clock=lambda: slurm.now, wall_clock=lambda: 1e9 + slurm.now)
    times = []
    while slurm.now < 500:
        with silence.until(600 - slurm.now):
            with silence.asking("squeue", 120):
                slurm.now += 1
            silence.unanswered("squeue")
        if len(said) > len(times):
            times.append(slurm.now)
    assert times == [4, 12, 28, 60, 124, 244, 364, 484]
    assert said[0].startswith("Slurm's controller has not answered since ")
    assert "(4 s); waiting for squeue to hear which jobs there are, until " in said[0]
    assert len({text.partition("until ")[2] for text in said}) == 1  # the end does not move
    silence.answered()
    assert said[-1] == "Slurm answers again, after 500 s"


def test_nothing_is_said_of_what_is_answered_in_time(said: list[str]) -> None:
    slurm = Slurm()
    silence = Silence(said.append, first_s=4, clock=lambda: slurm.now)
    for _ in range(10):
        with silence.asking("squeue", 120):
            slurm.now += 3
        silence.answered()
    assert said == []


def test_it_is_said_while_the_program_still_waits() -> None:
    heard = threading.Event()
    silence = Silence(lambda _: heard.set(), first_s=0)
    with silence.asking("sbatch", 120):
        assert heard.wait(60)


def test_a_silence_of_the_accounting_is_none_of_the_controller(said: list[str]) -> None:
    def run(words, **_) -> Ran:
        return Ran(0) if words[0] == "squeue" else Ran(-1, timed_out=True)

    controller = Controller(run, say=said.append)
    for _ in range(3):
        assert controller.observe(["1"]).accounting_error == "no answer in time"
    assert not any("Slurm answers again" in text for text in said)
