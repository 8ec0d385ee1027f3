"""What a sweep of ten thousand runs may cost."""

from __future__ import annotations

from scaling.counting import Call

RUNS = 10_000
SECONDS = {"plan": 10.0, "status": 2.0, "browser: filter": 1.0}
MEGABYTES = {"plan": 300.0}
PER_RUN = 8.0
"""Files read and folders listed for each run, by what only looks at its state."""

LIMITS = {
    "plan": f"{SECONDS['plan']:.0f} s and {MEGABYTES['plan']:.0f} MB",
    "status": f"{SECONDS['status']:.0f} s",
    "a filter in the browser": f"{SECONDS['browser: filter']:.0f} s",
    "files read and folders listed by status and results": f"{PER_RUN:.0f} a run",
}


def exceeded(measure: Call) -> str:
    """What is too much in a measurement; empty if nothing is."""
    problems = []
    if measure.runs == RUNS:
        if measure.seconds > SECONDS.get(measure.what, float("inf")):
            problems.append(f"{measure.seconds:.2f} s")
        if measure.megabytes > MEGABYTES.get(measure.what, float("inf")):
            problems.append(f"{measure.megabytes:.0f} MB")
    if measure.what in ("status", "results") and measure.runs >= 1000 and measure.per_run > PER_RUN:
        problems.append(f"{measure.per_run:.1f} files and folders a run")
    return f"{measure.what} of {measure.runs} runs: {', '.join(problems)}" if problems else ""
