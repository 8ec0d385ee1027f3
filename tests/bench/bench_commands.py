"""How long somebody waits for `mtf`, beside an interpreter that does nothing; and how little the facade holds."""

from __future__ import annotations

import ast
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from measure import Fact, Row, compare
from mtf_config import ConfigurationManager, ExecutionMode, load_sweep
from mtf_slurm import SLURMLauncher
from scaling.making import fill, sweep_file

FACADE = Path(__file__).resolve().parents[2] / "packages" / "model-training-framework" / "src"
RUNS = 20
WORDS = (["--help"], ["status", "--help"], ["status", "sweep"], ["results", "sweep"], ["validate", "sweep.yaml"])


def rows(samples: int) -> Iterator[Row | Fact]:
    """One row for each command line, asked about a sweep in the midst of its work; then the size of the facade."""
    mtf = str(Path(sys.executable).with_name("mtf"))
    with tempfile.TemporaryDirectory(prefix="commands-") as temporary:
        folder = _sweep(Path(temporary).resolve())
        # bytecode is kept, as it is for whoever has installed the packages
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        bare = _process([sys.executable, "-c", "pass"], folder, environment)
        for words in WORDS:
            command, name = _process([mtf, *words], folder, environment), f"mtf {' '.join(words)}"
            yield compare(name, command, "python -c pass", bare, samples)
            yield Fact(
                f"{name}, processor time", f"{_cpu_ms(command, samples):.0f} ms ({_cpu_ms(bare, samples):.0f} ms)"
            )
    yield Fact("model-training-framework", facade())


def _sweep(folder: Path) -> Path:
    """A sweep of some runs, in a folder of its own; returns the folder that holds it and its file."""
    search = load_sweep(sweep_file(folder, RUNS), ConfigurationManager(folder)).search
    launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
    launcher.submit_sweep(search, folder / "sweep", ExecutionMode.DRY_RUN)
    fill(folder / "sweep")
    return folder


def _process(words: list[str], folder: Path, environment: Mapping[str, str]) -> Callable[[], object]:
    silent = subprocess.DEVNULL
    return lambda: subprocess.run(
        words, cwd=folder, env=environment, check=True, stdin=silent, stdout=silent, stderr=silent
    )


def _cpu_ms(call: Callable[[], object], samples: int) -> float:
    """The median of what the processes of a call take of a processor, which a busy machine changes less."""
    taken = []
    for _ in range(samples):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        call()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return statistics.median(taken)


def facade() -> str:
    """How much the facade is: all of it, and what is neither an import nor a list of names."""
    texts = [file.read_text("utf-8") for file in sorted(FACADE.rglob("*.py"))]
    lines, size = (sum(map(measure, texts)) for measure in (lambda text: len(text.splitlines()), len))
    nodes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    own = sum(not isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
    return f"{len(texts)} modules, {lines} lines, {size / 1000:.1f} kB; {own} statements beside imports"
