"""What a fresh process pays for importing each package, against a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from measure import Row, compare

SUBJECTS = ["mtf_utils", "mtf_config", "mtf_slurm", "model_training_framework", "mtf_trainer"]


def process(code: str) -> Callable[[], object]:
    """A call that runs code in a fresh interpreter."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)


def rows(samples: int) -> Iterator[Row]:
    """One row for each package; the trainer is compared with torch, which it cannot do without."""
    for name in SUBJECTS:
        reference = "import torch" if name == "mtf_trainer" else "pass"
        shown = "a bare interpreter" if reference == "pass" else reference
        yield compare(f"import {name}", process(f"import {name}"), shown, process(reference), samples)
