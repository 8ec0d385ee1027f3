"""How the code stands: its largest modules and longest functions, and who imports whom.

Usage:
    survey.py           print all of it; the status is 1 if a bound is passed or imports run in a circle
    survey.py --write   draw the imports into docs/architecture.md, and list the modules in docs/modules.md
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from imports import find_cycle, import_time_graph  # noqa: E402 - the tests' own reading of imports
from repository import PACKAGES  # noqa: E402

PAGE = ROOT / "docs" / "architecture.md"
LIST = ROOT / "docs" / "modules.md"
DRAWING = re.compile(r"(<!-- drawn by .ci/survey.py -->\n).*?(<!-- end of the drawing -->)", re.DOTALL)
MAX_MODULE, MAX_FUNCTION = 400, 60
SHOWN = 10
INTRODUCTION = """\
# Every module

What each module is for, in its own words, and on which level it stands: it imports only from levels below its own.
`hatch run survey --write` makes this page; [Architecture](architecture.md) tells how they work together.
"""


class Size(NamedTuple):
    """A module or a function, and its lines."""

    lines: int
    place: str


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    return {name: file for package in PACKAGES for name, file in package.modules().items()}


def module_sizes() -> list[Size]:
    """The modules, largest first."""
    sizes = (Size(len(file.read_text("utf-8").splitlines()), name) for name, file in modules().items())
    return sorted(sizes, reverse=True)


def function_sizes() -> list[Size]:
    """The functions, longest first."""
    return sorted((size for name, file in modules().items() for size in functions(name, file)), reverse=True)


def functions(module: str, file: Path) -> Iterator[Size]:
    """The functions of a module, from `def` to the last line, and where they begin."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield Size(node.end_lineno - node.lineno + 1, f"{module}.{node.name}, line {node.lineno}")


def arrows(graph: dict[str, set[str]]) -> dict[tuple[str, str], int]:
    """How many modules of a package import something of another, by the names of the two."""
    found: Counter[tuple[str, str]] = Counter()
    for module, targets in graph.items():
        source = module.partition(".")[0]
        found.update({(source, target.partition(".")[0]) for target in targets} - {(source, source)})
    return dict(sorted(found.items()))


def levels(graph: dict[str, set[str]], names: Collection[str]) -> list[list[str]]:
    """Some modules, so that each imports of them only what lies in levels before its own; they must form no circle."""

    @functools.cache
    def level(name: str) -> int:
        return 1 + max((level(target) for target in graph[name] if target in names), default=-1)

    found: list[list[str]] = [[] for _ in range(1 + max(map(level, names)))]
    for name in sorted(names):
        found[level(name)].append(name)
    return found


def drawing(graph: dict[str, set[str]]) -> str:
    """The arrows between the packages, with the number of modules behind each."""
    names = {package.import_name: package.folder.name for package in PACKAGES}
    lines = [
        f"    {source}[{names[source]}] -->|{count}| {target}[{names[target]}]"
        for (source, target), count in arrows(graph).items()
    ]
    return "\n".join(["```mermaid", "graph TD", *lines, "```", ""])


def purpose(file: Path) -> str:
    """The first sentence of a module, or what it says up to a colon or the end of the line."""
    text = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n\n")[0]
    return " ".join(text.split())


def module_list(graph: dict[str, set[str]]) -> str:
    """The page that names every module."""
    parts = [INTRODUCTION]
    for package in PACKAGES:
        files = package.modules()
        parts.append(f"\n## {package.import_name}\n\n| module | level | what it is for |\n|---|---|---|\n")
        level = {name: number for number, names in enumerate(levels(graph, files)) for name in names}
        for name, file in files.items():
            short = name.removeprefix(f"{package.import_name}.")
            parts.append(f"| `{short}` | {level[name]} | {purpose(file)} |\n")
    return "".join(parts)


def written(page: str) -> str:
    """The page with the drawing of now."""
    graph = import_time_graph(modules())
    text, count = DRAWING.subn(lambda found: found[1] + drawing(graph) + found[2], page)
    if count != 1:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no place for the drawing, or several")
    return text


def main() -> int:
    """Run the command line; 0 if everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    large, long, graph = module_sizes(), function_sizes(), import_time_graph(modules())
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
        LIST.write_text(module_list(graph), "utf-8")
        return 0
    if cycle := find_cycle(graph):
        print(f"imports in a circle: {' -> '.join(cycle)}")
        return 1
    for title, sizes in (("largest modules", large), ("longest functions", long)):
        print(f"{title} (of {len(sizes)}, {sum(size.lines for size in sizes)} lines)")
        for size in sizes[:SHOWN]:
            print(f"  {size.lines:>4}  {size.place}")
    print("imports between packages")
    for (source, target), count in arrows(graph).items():
        print(f"  {source} -> {target}, in {count} of its modules")
    for package in PACKAGES:
        print(f"  inside {package.import_name}: {len(levels(graph, package.modules()))} levels, no circle")
    return 1 if large[0].lines > MAX_MODULE or long[0].lines > MAX_FUNCTION else 0


if __name__ == "__main__":
    sys.exit(main())
