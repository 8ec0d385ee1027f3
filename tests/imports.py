"""Reads import statements from source text: what a module imports, and whether that happens when it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported dotted name."""

    target: str
    line: int
    at_import_time: bool


def _is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _targets(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        drop = node.level - (1 if is_package else 0)
        base = ".".join([*parts[: len(parts) - drop], *([node.module] if node.module else [])])
    # `from a import b` may import the module a.b or the name b of a: both readings are given, `a.b` as the finer one.
    yield from (f"{base}.{alias.name}" for alias in node.names)


def read_imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import of a module; those in functions and under TYPE_CHECKING are not at import time."""
    found: list[Import] = []

    def walk(node: ast.AST, at_import_time: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(Import(name, node.lineno, at_import_time) for name in _targets(node, module, is_package))
        if isinstance(node, ast.If) and _is_type_checking(node):
            for statement in node.body:
                walk(statement, False)
            for statement in node.orelse:
                walk(statement, at_import_time)
            return
        inside = at_import_time and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(ast.parse(source), True)
    return found


def import_time_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """For each module the modules of the same mapping that have to be imported before it is complete.

    Importing `a.b.c` runs `a.b` first, so a module outside of `a.b` depends on that package too. A module does not
    depend on the packages that it lies in: they are being imported already.
    """
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        graph[name] = set()
        for found in read_imports(file.read_text(encoding="utf-8"), name, file.name == "__init__.py"):
            if not found.at_import_time:
                continue
            target = found.target if found.target in modules else found.target.rpartition(".")[0]
            if target in modules and target != name:
                graph[name].add(target)
            while "." in target:
                target = target.rpartition(".")[0]
                if target in modules and not f"{name}.".startswith(f"{target}."):
                    graph[name].add(target)
    return graph


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """One cycle as a path that ends where it began; empty when there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if cycle := visit(following, [*path, node]):
                return cycle
        done.add(node)
        return []

    for start in sorted(graph):
        if cycle := visit(start, []):
            return cycle
    return []
