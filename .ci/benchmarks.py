"""The page of benchmarks, made of what the benchmarks print.

Usage:
    benchmarks.py record [NAME …]   run benchmarks (default: all) and keep their output; times want an idle machine
    benchmarks.py page              write docs/benchmarks.md from what was kept
    benchmarks.py list              what there is
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "assets" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
QUIET = 1.5  # the load of a machine that times can be taken on, the benchmark before among it

INTRODUCTION = """\
# Benchmarks

Every block below is what a benchmark printed, with its command, the day and the machine; nothing was typed in by hand.
`hatch run benchmarks list` names them, `hatch run benchmarks record loop` runs one anew, and
`hatch run benchmarks page` makes this page. Times are ratios to a reference that is measured by turns with the subject,
so that a busy machine slows both; the numbers in brackets are quartiles.
"""


@dataclass(frozen=True)
class Benchmark:
    """One command.

    Attributes:
        name: of its file of output.
        title: of its section.
        words: of the command, after the interpreter.
        times: whether it measures times, so that the machine has to be idle.
    """

    name: str
    title: str
    words: str
    times: bool = True

    @property
    def kept(self) -> Path:
        """Where its output lies."""
        return KEPT / f"{self.name}.txt"


BENCHMARKS = [
    Benchmark("loop", "What a step costs", "tests/bench loop"),
    Benchmark("checkpoint", "What a checkpoint costs", "tests/bench checkpoint"),
    Benchmark("resume_position", "Resuming in the middle of an epoch", "tests/bench resume_position"),
    Benchmark("agreement_cost", "How several ranks agree on a stop", "tests/bench/agreement_cost.py"),
    Benchmark("imports", "What an import costs", "tests/bench imports"),
    Benchmark("commands", "What a command costs", "tests/bench commands"),
    Benchmark("config", "Reading a configuration", "tests/bench config"),
    Benchmark("config_grids", "Grids", "tests/bench config_grids"),
    Benchmark("config_errors", "Errors and hostile input", "tests/bench config_errors", times=False),
    Benchmark("trivial_tasks", "A hundred trivial runs on Slurm", "tests/bench/trivial_tasks.py"),
    Benchmark("scale", "Sweeps of ten thousand runs", "tests/bench/scale.py"),
    Benchmark("submissions", "Submission under trouble", "tests/bench/submission_campaign.py", times=False),
    Benchmark(
        "preemptions", "Preemptions on Slurm", "tests/bench/preemptions.py --runs 20 --stops 3 --grace 5", times=False
    ),
    Benchmark("kills", "Kills", "tests/bench/kills.py", times=False),
    Benchmark("kills_peers", "The same kills for others", "tests/bench/kills_peers.py", times=False),
    Benchmark("local_kills", "Kills of the local runner", "tests/bench/local_kills.py", times=False),
    Benchmark("rank_kills", "Kills of ranks: DDP", "tests/bench/rank_kills.py", times=False),
    Benchmark("rank_kills_fsdp", "Kills of ranks: FSDP2", "tests/bench/rank_kills.py --strategy fsdp", times=False),
    Benchmark("rank_kills_4", "Kills of ranks: DDP, four of them", "tests/bench/rank_kills.py --ranks 4", times=False),
]


def circumstances() -> str:
    """The day, the machine and what ran on it."""
    versions = []
    for name in ("torch", "numpy"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    return ", ".join([today, where, f"Python {platform.python_version()}", *versions])


def record(benchmark: Benchmark) -> bool:
    """Run a benchmark and keep what it prints; whether it came to a good end."""
    if benchmark.times and os.getloadavg()[0] > QUIET:
        print(f"{benchmark.name}: left out; the load is {os.getloadavg()[0]:.1f}, and times want less than {QUIET}")
        return False
    head = f"$ python {benchmark.words}\n# {circumstances()}\n"
    command = [sys.executable, *shlex.split(benchmark.words)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode != 0:
        print(f"{benchmark.name}: ended with status {done.returncode}; its output is not kept", file=sys.stderr)
        return False
    KEPT.mkdir(parents=True, exist_ok=True)
    benchmark.kept.write_text(head + done.stdout, "utf-8")
    return True


def rendered() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for benchmark in BENCHMARKS:
        if benchmark.kept.exists():
            printed = benchmark.kept.read_text("utf-8").rstrip("\n")
            parts.append(f"## {benchmark.title}\n\n```text\n{printed}\n```\n")
    missing = [benchmark for benchmark in BENCHMARKS if not benchmark.kept.exists()]
    if missing:
        rows = [f"| {item.title} | `python {item.words}` |" for item in missing]
        table = "\n".join(["| what | command |", "|---|---|", *rows])
        parts.append(f"## Not kept yet\n\n{table}\n")
    return "\n".join(parts)


def main() -> int:
    """Run the command line; 0 when all is well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("record").add_argument("names", nargs="*", metavar="NAME")
    verbs.add_parser("page")
    verbs.add_parser("list")
    options = parser.parse_args()
    if options.verb == "page":
        PAGE.write_text(rendered(), "utf-8")
        return 0
    if options.verb == "list":
        for benchmark in BENCHMARKS:
            print(f"{benchmark.name:<16} python {benchmark.words}")
        return 0
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if unknown := set(options.names) - known.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = [name for name in options.names or known if not record(known[name])]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
