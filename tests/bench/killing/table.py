"""What a campaign found, as text."""

from __future__ import annotations

import signal
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from killing.attempt import Attempt, Sight
from killing.campaign import Campaign
from killing.runs import Caught, Run
from killing.whereabouts import Activity

__all__ = ["render"]

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)
_WRITING = "of these, during a checkpoint write"
_TWICE = "of these, followed by another"


def render(campaign: Campaign) -> str:
    """The whole report."""
    runs = campaign.runs
    return "\n".join([*_heading(campaign), "", *_by_place(runs), "", *_by_setup(campaign), "", *_verdict(runs)])


def _heading(campaign: Campaign) -> Iterator[str]:
    kills = sum(run.kills for run in campaign.runs)
    processes = sum(len(run.attempts) for run in campaign.runs)
    killed = sum(run.kills > 0 for run in campaign.runs)
    most = max(run.kills for run in campaign.runs)
    yield (
        f"{kills} kills in {killed} runs, up to {most} a run; {processes} processes in {campaign.elapsed_s:.0f} s "
        f"({campaign.lanes} at a time, seed {campaign.seed})"
    )


def _by_place(runs: Sequence[Run]) -> Iterator[str]:
    counts: Counter[tuple[str, signal.Signals, bool]] = Counter()
    for attempt in _killed(runs):
        assert attempt.shot is not None
        assert attempt.sight is not None
        labels = [_label(attempt.sight), "all"]
        labels += [_WRITING] * attempt.sight.writing + [_TWICE] * (attempt.shot.second is not None)
        counts.update((label, attempt.shot.signal, attempt.shot.group) for label in labels)
    columns = [(number, group) for number in _SIGNALS for group in (False, True)]
    names = [f"{number.name[3:]} {'group' if group else 'process'}" for number, group in columns]
    yield f"{'killed in':<38}" + "".join(f"{name:>14}" for name in names) + f"{'all':>8}"
    for label in [*_LABELS, "all", _WRITING, _TWICE]:
        row = [counts[label, number, group] for number, group in columns]
        yield f"{label:<38}" + "".join(f"{count:>14}" for count in row) + f"{sum(row):>8}"


_NAMES = {
    Activity.START_UP: "start-up, handlers in place",
    Activity.TRAINING: "training, first micro-batch of a window",
    Activity.ACCUMULATION: "training, gradients accumulated",
    Activity.VALIDATION: "validation",
    Activity.FINISHED: "the end",
}
_BEFORE = "start-up, before the handlers"
_LABELS = (_BEFORE, *_NAMES.values())


def _label(sight: Sight) -> str:
    return _BEFORE if sight.activity is Activity.START_UP and not sight.listening else _NAMES[sight.activity]


def _by_setup(campaign: Campaign) -> Iterator[str]:
    yield f"{'setup':<40}{'runs':>8}{'kills':>8}{'bit-identical':>15}"
    for setup in campaign.setups:
        runs = [run for run in campaign.runs if run.setup == setup]
        kills = sum(run.kills for run in runs)
        yield f"{setup!s:<40}{len(runs):>8}{kills:>8}{sum(run.identical for run in runs):>15}"


def _verdict(runs: Sequence[Run]) -> Iterator[str]:
    yield f"bit-identical: {sum(run.identical for run in runs)} of {len(runs)} runs"
    fates = Counter(fate for run in runs for fate in run.fates)
    yield f"signals that met handlers: {fates.total()}"
    for fate in (Caught.DURABLE, Caught.COMPLETE, Caught.CUT_SHORT, Caught.LOST):
        yield f"  {fates[fate]:>5}  {fate}"
    times = sorted(seconds for run in runs for seconds in run.to_durable_s)
    if times:
        yield (
            f"from signal to durable checkpoint: longest {1000 * times[-1]:.0f} ms, "
            f"median {1000 * statistics.median(times):.0f} ms"
        )
    faults = [f"{run.setup}: {fault}" for run in runs for fault in run.faults]
    yield f"faults: {len(faults) or 'none'}"
    yield from faults


def _killed(runs: Iterable[Run]) -> Iterator[Attempt]:
    return (attempt for run in runs for attempt in run.attempts if attempt.shot is not None)
