"""The README's example does what the README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(tmp_path: Path) -> None:
    text = README.read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    environ = {name: value for name, value in os.environ.items() if name not in ("OPTIMIZER", "RANK", "SLURM_PROCID")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (claimed,) = re.findall(r"`(Optimizer: .*)`\.", text)
    assert claimed in done.stderr
    assert claimed in (tmp_path / "example" / "training.log").read_text()
    assert json.loads((tmp_path / "example" / "optimizer.json").read_text())["name"] == "adamw"
