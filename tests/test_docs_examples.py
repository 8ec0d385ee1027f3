"""Every Python example of the documentation runs as it stands, in a fresh process and an empty folder.

Of a block under the line `<!-- fragment -->` (it needs a model, a cluster or a file that the reader has) only the
imports are run, so that it cannot name what does not exist.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from repository import PACKAGES, ROOT

READMES = [ROOT / "README.md", *(package.folder / "README.md" for package in PACKAGES)]
DOCUMENTS = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<mark><!-- fragment -->\n+)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One Python block of a document."""

    place: str
    code: str
    is_fragment: bool


def python_blocks(file: Path) -> list[Block]:
    """The Python blocks of a document; none if there is no such document."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    name = file.relative_to(ROOT).as_posix()
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start('code'))}", found["code"], found["mark"] is not None)
        for found in BLOCK.finditer(text)
    ]


def imports_alone(code: str) -> str:
    """The import statements of some code."""
    wanted = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(ast.unparse(node) for node in wanted)


BLOCKS = [block for file in DOCUMENTS for block in python_blocks(file)]


@pytest.mark.parametrize("readme", READMES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_readme_shows_an_example_that_runs(readme: Path) -> None:
    assert any(not block.is_fragment for block in python_blocks(readme))


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_example_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(imports_alone(block.code) if block.is_fragment else block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"
