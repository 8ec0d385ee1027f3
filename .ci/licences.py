"""List the licences of everything that the packages bring along, out of the metadata of an environment that has them.

Usage:
    licences.py           print the table of docs/licences.md
    licences.py --write   write it
    licences.py --check   fail if a dependency is missing there, or has a licence that nobody has looked at
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
# What torch's builds for NVIDIA's and Intel's hardware bring along depends on the platform, and is no choice of ours.
LEFT_OUT = re.compile(r"nvidia-|cuda-|triton|intel-|pytorch-triton")
ACCEPTED = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|Unlicense|Zlib|HPND", re.IGNORECASE)

INTRODUCTION = """\
# Licences

The packages themselves are under the MIT licence; `mtf-config` also holds a data set, the handwritten digits of
`mtf init`, which is under CC BY 4.0 and says so beside it. A report of `mtf report` holds plotly.js, under MIT.

This is what the packages bring along, with the licence that each names in its metadata; `hatch run licences` makes the
list from an environment that has all of it. Of what an extra asks for (its name stands in brackets) the packages
themselves are listed, and not what they need in turn. What torch's builds for GPUs add (CUDA's libraries, Triton)
depends on the platform, has licences of its own, and is not listed either.

| distribution | licence | needed by |
|---|---|---|
"""


class LicenceError(Exception):
    """A distribution is missing, or its licence is."""


@dataclass(frozen=True)
class Dependency:
    """One distribution that comes along."""

    name: str
    licence: str


def normal(name: str) -> str:
    """A name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(distribution: metadata.Distribution, extra: str = "") -> Iterator[str]:
    """The names that a distribution needs here, with one of its extras or with none."""
    from packaging.requirements import Requirement

    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield normal(requirement.name)


def licence_of(distribution: metadata.Distribution) -> str:
    """What a distribution says of its licence: the expression, else the classifiers, else the field's first line."""
    fields = distribution.metadata
    if "License-Expression" in fields:
        return fields["License-Expression"]
    classifiers = [item for item in fields.get_all("Classifier") or () if item.startswith("License ::")]
    named = [item.rpartition(" :: ")[2] for item in classifiers if item != "License :: OSI Approved"]
    if named:
        return ", ".join(named)
    if "License" in fields and fields["License"].strip():
        return fields["License"].strip().splitlines()[0]
    raise LicenceError(f"{distribution.name} names no licence")


def brought_by(name: str) -> set[str]:
    """Everything that a distribution needs, and what that needs."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for needed in requirements(metadata.distribution(waiting.pop())):
            if needed not in found and not LEFT_OUT.match(needed):
                found.add(needed)
                waiting.append(needed)
    return found


def table() -> dict[Dependency, list[str]]:
    """Every dependency, with those of ours that need it."""
    ours = sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml"))
    users: dict[str, list[str]] = {}
    for name in sorted(ours):
        always = brought_by(name)
        for needed in always - set(ours):
            users.setdefault(needed, []).append(name)
        for extra in metadata.distribution(name).metadata.get_all("Provides-Extra") or ():
            for needed in set(requirements(metadata.distribution(name), extra)) - always - set(ours):
                users.setdefault(needed, []).append(f"{name}[{extra}]")
    return {Dependency(name, licence_of(metadata.distribution(name))): users[name] for name in sorted(users)}


def rendered(dependencies: dict[Dependency, list[str]]) -> str:
    """The page."""
    facade = "model-training-framework"
    lines = [
        f"| {each.name} | {each.licence} | {', '.join(user for user in users if user != facade) or facade} |"
        for each, users in dependencies.items()
    ]
    return INTRODUCTION + "\n".join(lines) + "\n"


def complaints(dependencies: dict[Dependency, list[str]]) -> list[str]:
    """What is wrong with the page, or with a licence."""
    page = PAGE.read_text("utf-8") if PAGE.exists() else ""
    absent = [each.name for each in dependencies if f"\n| {each.name} |" not in page]
    refused = [f"{each.name}: {each.licence}" for each in dependencies if not ACCEPTED.search(each.licence)]
    missing = [f"{PAGE.relative_to(ROOT)} lacks {name}: write it anew with --write" for name in absent]
    return missing + [f"a licence that nobody has looked at: {text}" for text in refused]


def main() -> int:
    """Run the command line; 0 when all is well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    dependencies = table()
    if options.write:
        PAGE.write_text(rendered(dependencies), "utf-8")
    elif not options.check:
        print(rendered(dependencies))
    found = complaints(dependencies) if options.check else []
    for complaint in found:
        print(f"FAILED {complaint}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
