"""A step of training, with everything on that ours has, against a loop written by hand; quartiles in brackets."""

# Everyone trains the same in a process of its own, some steps at a time by turns, on one processor with one thread;
# ratios are formed within a round of turns. The others take part where they are installed: `hatch run bench loop`.

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator
from typing import Final

from looping.race import Runner, race
from looping.task import STEPS_A_TURN, TASKS
from measure import Fact, Row

OTHERS: Final = (
    ("Fabric", "lightning", "looping.with_fabric:run"),
    ("Accelerate", "accelerate", "looping.with_accelerate:run"),
    ("HF Trainer", "transformers", "looping.with_transformers:run"),
    ("Lightning, lean", "lightning", "looping.with_lightning:run_lean"),
    ("Lightning, default", "lightning", "looping.with_lightning:run_default"),
)


def rows(samples: int) -> Iterator[Row | Fact]:
    """Both tasks: ten turns of each runner for every sample asked for, fewer where a step takes long."""
    missing = [name for name, package, _ in OTHERS if importlib.util.find_spec(package) is None]
    if missing:
        yield Fact("not installed here", f"{', '.join(missing)}; `hatch run bench loop` has all")
    for task in TASKS:
        raw = Runner("a loop by hand", "looping.with_raw:run")
        ours = Runner("mtf-trainer, everything on", "looping.with_ours:run")
        others = [Runner(name, place) for name, _, place in OTHERS if name not in missing]
        race([raw, ours, *others], task, turns=(10 if task == "tiny MLP" else 4) * samples)
        for runner in (ours, *others):
            yield row(runner, raw, task)
        shown = ", ".join(f"{runner.name} {runner.ratios(raw, cpu=True)[1]:.3f}" for runner in (ours, *others))
        yield Fact(f"{task}: processor time, of a loop by hand", shown)


def row(runner: Runner, raw: Runner, task: str) -> Row:
    """One comparison, in milliseconds a step."""
    a_turn = STEPS_A_TURN[task] / 1000
    low, ratio, high = runner.ratios(raw)
    return Row(
        name=f"{task}: {runner.name}",
        reference=raw.name,
        median_ms=statistics.median(runner.wall_s) / a_turn,
        reference_ms=statistics.median(raw.wall_s) / a_turn,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
    )
