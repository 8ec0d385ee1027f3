"""Runs benchmarks: `python tests/bench [--list] [--samples N] [NAME …]`.

A benchmark is a file `bench_<name>.py` here with a docstring and a function `rows(samples)` that yields `measure.Row`s
and, for what is no comparison, `measure.Fact`s.
"""

from __future__ import annotations

import argparse
import ast
import importlib
from pathlib import Path

FILES = {file.stem.removeprefix("bench_"): file for file in sorted(Path(__file__).parent.glob("bench_*.py"))}


def main() -> None:
    """List or run the benchmarks that the command line names; all of them by default."""
    parser = argparse.ArgumentParser(prog="bench", description="Benchmarks; times are ratios to a reference.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(FILES)} (default: all)")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--samples", type=int, default=15, help="timed pairs of each comparison (default: 15)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - FILES.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(FILES)}")
    if arguments.samples < 1:
        parser.error(f"--samples is {arguments.samples}; at least 1 is needed")
    for name in arguments.names or FILES:
        print(f"{name}: {ast.get_docstring(ast.parse(FILES[name].read_text(encoding='utf-8')))}", flush=True)
        if arguments.list:
            continue
        for row in importlib.import_module(FILES[name].stem).rows(arguments.samples):
            print(f"  {row}", flush=True)


if __name__ == "__main__":
    main()
