"""Imports run along the arrows of the architecture, in no circle, and never to pickle."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imports import Import, find_cycle, import_time_graph, read_imports
from repository import PACKAGES, Package

ALLOWED = {
    "mtf_utils": set(),
    "mtf_config": {"mtf_utils"},
    "mtf_trainer": {"mtf_utils"},
    "mtf_slurm": {"mtf_utils", "mtf_config"},
    "model_training_framework": {"mtf_utils", "mtf_config", "mtf_trainer", "mtf_slurm"},
}
IMPORTED_AS = {"pyyaml": "yaml", "gitpython": "git"}
PICKLING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLING_CALLS = {("torch", "load"), ("torch", "save")}
EXPORTS = {"inspection.py": {("torch", "save")}}  # a state dict file for other programs, which nothing here reads

every_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder.name)


def imports_of(package: Package) -> Iterator[tuple[str, Import]]:
    """Every import of a package, with the place to show when it is wrong."""
    for module, file in package.modules().items():
        for found in read_imports(file.read_text(encoding="utf-8"), module, file.name == "__init__.py"):
            yield f"{file}:{found.line} imports {found.target}", found


def import_names(requirements: list[str]) -> set[str]:
    """The modules that a list of requirements provides."""
    names = [re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in requirements]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def test_the_table_of_arrows_names_every_package() -> None:
    assert ALLOWED.keys() == {package.import_name for package in PACKAGES}
    assert all(package.modules() for package in PACKAGES)


@every_package
def test_imports_follow_the_arrows_even_lazily(package: Package) -> None:
    for place, found in imports_of(package):
        root = found.target.partition(".")[0]
        if root in ALLOWED and root != package.import_name:
            assert root in ALLOWED[package.import_name], place


@every_package
def test_what_is_imported_is_declared(package: Package) -> None:
    extras = package.project.get("optional-dependencies", {}).values()
    declared = import_names(package.project["dependencies"])
    optional = import_names([requirement for extra in extras for requirement in extra])
    for place, found in imports_of(package):
        root = found.target.partition(".")[0]
        if root in sys.stdlib_module_names or root == package.import_name:
            continue
        if root == "pytest" and "pytest_plugin.py:" in place:
            continue  # pytest alone imports its plugins
        allowed = declared if found.at_import_time else declared | optional
        assert root in allowed, f"{place}, which pyproject.toml does not declare"


@every_package
def test_no_circle_at_import_time(package: Package) -> None:
    assert find_cycle(import_time_graph(package.modules())) == []


@every_package
def test_nothing_pickles(package: Package) -> None:
    for place, found in imports_of(package):
        assert found.target.partition(".")[0] not in PICKLING, place
        assert tuple(found.target.split(".")) not in PICKLING_CALLS, place
    for file in package.modules().values():
        forbidden = PICKLING_CALLS - EXPORTS.get(file.name, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in forbidden, f"{file}:{node.lineno} uses {node.attr}"


def write_package(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    modules = {}
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        modules[name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = file
    return modules


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        ({"a/__init__.py": "from a.b import B", "a/b.py": "B = 1"}, []),
        ({"a/__init__.py": "from a.b import B", "a/b.py": "from a import C"}, ["a", "a.b", "a"]),
        ({"a/__init__.py": "from .b import B", "a/b.py": "from . import C"}, ["a", "a.b", "a"]),
        ({"a/__init__.py": "", "a/b.py": "import a.c", "a/c.py": "from a.b import B"}, ["a.b", "a.c", "a.b"]),
        ({"a/__init__.py": "", "a/b.py": "import a.c", "a/c.py": "def f():\n    from a.b import B"}, []),
        (
            {
                "a/__init__.py": "",
                "a/b.py": "import a.c",
                "a/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import B",
            },
            [],
        ),
        (
            {
                "a/__init__.py": "",
                "a/b.py": "from a.d.leaf import L",
                "a/d/__init__.py": "from a.d.user import U",
                "a/d/leaf.py": "L = 1",
                "a/d/user.py": "from a.b import B",
            },
            ["a.b", "a.d", "a.d.user", "a.b"],
        ),
    ],
)
def test_circles_are_found(tmp_path: Path, files: dict[str, str], cycle: list[str]) -> None:
    assert find_cycle(import_time_graph(write_package(tmp_path, files))) == cycle
