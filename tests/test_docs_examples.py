"""Every Python example of the documentation runs as it stands, in a fresh process and an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import PACKAGES, ROOT

READMES = [ROOT / "README.md", *(package.folder / "README.md" for package in PACKAGES)]
DOCUMENTS = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(file: Path) -> list[tuple[str, str]]:
    """Each Python example of a document with its place."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [
        (f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", found.group(1))
        for found in FENCE.finditer(text)
    ]


EXAMPLES = [block for file in DOCUMENTS for block in python_blocks(file)]


@pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_readme_shows_an_example(readme: Path) -> None:
    assert python_blocks(readme)


@pytest.mark.parametrize(("place", "code"), EXAMPLES, ids=[place for place, _ in EXAMPLES])
def test_example_runs(place: str, code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"
