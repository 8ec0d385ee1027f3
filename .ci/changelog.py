"""The changelog out of fragments: one small file per change, so that changes made side by side never meet in a line.

A fragment is `.changes/<what>.<kind>.md`, its text the item of the list, in the words of those who use the packages.

Usage:
    changelog.py show              the section "Unreleased" as it would be, with the fragments
    changelog.py release VERSION   write it into CHANGELOG.md under the version and today's date; remove the fragments
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = {
    "added": "Added",
    "changed": "Changed",
    "deprecated": "Deprecated",
    "removed": "Removed",
    "fixed": "Fixed",
    "security": "Security",
}
NAME = re.compile(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md")
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
CODE = re.compile(r"`[^`]*`")
HEADING = "## Unreleased"
NEXT = re.compile(r"^## (?!Unreleased)", re.MULTILINE)


class ChangelogError(Exception):
    """A fragment or the changelog is not as it should be."""


def read_fragments(folder: Path) -> dict[str, list[str]]:
    """The items of each kind, in the order of their names."""
    items: dict[str, list[str]] = {}
    for file in sorted(folder.glob("*.md")):
        if file.name == "README.md":
            continue
        if not NAME.fullmatch(file.name):
            raise ChangelogError(f"{file}: expected a name such as faster-saves.changed.md; kinds: {', '.join(KINDS)}")
        words = file.read_text("utf-8").split()
        if not words:
            raise ChangelogError(f"{file} is empty: say what changed for those who use it")
        items.setdefault(KINDS[file.name.split(".")[1]], []).append(as_item(" ".join(words)))
    return items


def as_item(text: str) -> str:
    """An item of a list within the width of a page; what stands in backticks stays on its line."""
    glued = CODE.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(glued, 118, break_long_words=False, break_on_hyphens=False)
    return "- " + "\n  ".join(lines).replace("\0", " ")


def split(text: str) -> tuple[str, str, str]:
    """The changelog before its section "Unreleased", that section without the heading, and what comes after it."""
    before, found, rest = text.partition(f"{HEADING}\n")
    if not found:
        raise ChangelogError(f"the changelog has no section {HEADING!r}")
    end = NEXT.search(rest)
    place = end.start() if end else len(rest)
    return before, rest[:place].strip("\n"), rest[place:]


def merge(section: str, items: dict[str, list[str]]) -> str:
    """A section with the items behind those that it has of their kind."""
    parts = re.split(r"^### (.+)\n", section, flags=re.MULTILINE)
    kinds = dict(zip(parts[1::2], (part.strip("\n") for part in parts[2::2]), strict=True))
    for kind, new in items.items():
        kinds[kind] = "\n".join([*([kinds[kind]] if kind in kinds else []), *new])
    order = [kind for kind in KINDS.values() if kind in kinds]
    return "\n\n".join(f"### {kind}\n\n{kinds[kind]}" for kind in order)


def release(root: Path, version: str, today: datetime.date) -> None:
    """Write the section of a version."""
    if not VERSION.fullmatch(version):
        raise ChangelogError(f"{version!r} is no version such as 1.2.0 or 1.2.0rc1")
    changelog, folder = root / "CHANGELOG.md", root / ".changes"
    before, section, after = split(changelog.read_text("utf-8"))
    if f"\n## {version} " in f"\n{after}":
        raise ChangelogError(f"the changelog has a section for {version} already")
    merged = merge(section, read_fragments(folder))
    if not merged:
        raise ChangelogError("nothing has changed: there is no fragment, and the section Unreleased is empty")
    new = f"{before}{HEADING}\n\n## {version} - {today.isoformat()}\n\n{merged}\n"
    changelog.write_text(f"{new}\n{after}" if after else new, "utf-8")
    for file in folder.glob("*.*.md"):
        file.unlink()


def read_news(root: Path, version: str = "") -> str:
    """What is unreleased, with the fragments, and the section of a version if one is named and there."""
    _, section, released = split((root / "CHANGELOG.md").read_text("utf-8"))
    own = re.search(rf"^## {re.escape(version)} .*?(?=^## |\Z)", released, re.MULTILINE | re.DOTALL)
    return merge(section, read_fragments(root / ".changes")) + (f"\n\n{own[0]}" if version and own else "")


def main() -> int:
    """Run the command line; 0 when all is well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("show")
    verbs.add_parser("release").add_argument("version")
    options = parser.parse_args()
    try:
        if options.verb == "release":
            release(ROOT, options.version, datetime.datetime.now(datetime.UTC).date())
        else:
            print(read_news(ROOT))
    except ChangelogError as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
