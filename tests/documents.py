"""The pages of the documentation as the tests see them: blocks of code, what is said about how to run them, and links.

A comment right above a block says what a test has to know:

    <!-- needs: lightning, slurm -->  it is run where these are, and skipped elsewhere
    <!-- given: python … -->          what stands there by then: made by a line of the shell, as by tests/given/
    <!-- not run: why -->             it is not run

A block with `title="train.py"` behind its language is a file of that name, which readers see. On a page with the line
`<!-- story -->` the blocks are run one after the other, in one folder. In a block of the kind `console` the lines
behind `$ ` are run, and the others show what comes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from repository import PACKAGES, ROOT

READMES = [ROOT / "README.md", *(package.folder / "README.md" for package in PACKAGES)]
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]

STORY = re.compile(r"^<!-- story -->$", re.MULTILINE)
MARK = re.compile(r"<!-- (needs|given|not run): (.+?) -->\n+")
BLOCK = re.compile(
    rf"^(?P<marks>(?:{MARK.pattern})*)```(?P<language>\w*)(?: title=\"(?P<file>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"!?\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of code of a page.

    Attributes:
        place: page and line.
        language: what follows the three backticks.
        code: its text.
        file: the file that it is; empty if it is none.
        marks: what is said about it, by the word before the colon.
    """

    place: str
    language: str
    code: str
    file: str
    marks: dict[str, str]

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be there."""
        return tuple(word.strip() for word in self.marks.get("needs", "").split(",") if word.strip())

    @property
    def commands(self) -> list[str]:
        """The lines for a shell that it shows, a line each, however many it is written on."""
        lines = self.code.replace("\\\n", " ").splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return lines if self.language == "bash" else []


@dataclass(frozen=True)
class Document:
    """One page."""

    path: Path

    @property
    def name(self) -> str:
        """Where it lies in the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text("utf-8")

    @property
    def is_story(self) -> bool:
        """Whether its blocks build on each other."""
        return STORY.search(self.text) is not None

    @cached_property
    def blocks(self) -> list[Block]:
        """Its blocks of code."""
        return [
            Block(
                f"{self.name}:{self.text.count(chr(10), 0, found.start('code'))}",
                found["language"],
                found["code"],
                found["file"] or "",
                dict(MARK.findall(found["marks"])),
            )
            for found in BLOCK.finditer(self.text)
        ]

    def links(self) -> Iterator[str]:
        """The targets of its links; what is code has none."""
        prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL))
        return (found["target"] for found in LINK.finditer(prose))

    @cached_property
    def anchors(self) -> set[str]:
        """What a link can name behind `#`, as Python-Markdown makes it of a heading."""
        prose = re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)
        return {slug(found["text"]) for found in HEADING.finditer(prose)}


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


PAGES = [Document(file) for file in sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*(Document(file) for file in [*READMES, *OTHERS]), *PAGES]
