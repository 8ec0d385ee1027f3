"""Importing `mtf_config` beyond a bare interpreter, and whether every interpreter computes the same identities."""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from configs.identities import EXPERIMENTS, identities, interpreters, shuffled
from measure import Fact

ORDERS = 20


def rows(samples: int) -> Iterator[Fact]:
    """The import, then one line for each interpreter."""
    yield Fact("import mtf_config beyond a bare interpreter", import_cost(samples))
    chance = random.Random(0)
    expected = set(identities(sys.executable, EXPERIMENTS))
    for version, python in interpreters():
        found: set[str] = set()
        for seed in ("0", "1", "random"):
            orders = [shuffled(EXPERIMENTS, chance) for _ in range(ORDERS)]
            data = [experiment for order in orders for experiment in order]
            found |= set(identities(python, data, {"PYTHONHASHSEED": seed}))
        verdict = "as here" if found == expected else f"DIFFERENT: {sorted(found ^ expected)}"
        what = f"{len(EXPERIMENTS)} experiments, 3 PYTHONHASHSEEDs, {ORDERS} key orders each"
        yield Fact(f"identities in Python {version}", f"{verdict} ({what})")


def import_cost(samples: int) -> str:
    """Differences within pairs, bytecode cached as it is for whoever has installed the package."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        cost("import mtf_config", environment)
        pairs = [(cost("import mtf_config", environment), cost("pass", environment)) for _ in range(samples)]
    wall, cpu = (sorted(taken[kind] - bare[kind] for taken, bare in pairs) for kind in (0, 1))
    bare = statistics.median(bare[0] for _, bare in pairs)
    return (
        f"{statistics.median(wall):.1f} ms ({wall[0]:.1f} .. {wall[-1]:.1f}; the interpreter alone {bare:.1f} ms), "
        f"of CPU time {statistics.median(cpu):.1f} ms ({cpu[0]:.1f} .. {cpu[-1]:.1f})"
    )


def cost(code: str, environment: Mapping[str, str]) -> tuple[float, float]:
    """How many milliseconds a process takes, and how many of CPU time."""
    used, start = _cpu_of_children(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL, env=environment)
    return (time.perf_counter() - start) * 1000, (_cpu_of_children() - used) * 1000


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
