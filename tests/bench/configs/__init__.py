"""What the benchmarks of configurations share; the inputs are those of the package's own tests."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[3] / "packages" / "mtf-config" / "tests"
sys.path.append(str(TESTS))
