"""The public face: every name is there once, cheap to import, and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtf_utils

MODULES = sorted(module.name for module in pkgutil.iter_modules(mtf_utils.__path__) if module.name != "__main__")


def test_what_a_training_script_imports_is_there() -> None:
    logs, paths = {"setup_logging", "get_logger"}, {"get_project_root", "validate_project_structure"}
    assert logs | paths | {"ensure_directory_exists", "Result", "Success", "Error"} <= set(mtf_utils.__all__)


def test_all_is_complete_and_holds_no_object_twice() -> None:
    objects = [getattr(mtf_utils, name) for name in mtf_utils.__all__]
    assert len({id(item) for item in objects}) == len(mtf_utils.__all__) == len(set(mtf_utils.__all__))
    public = {name for name, item in vars(mtf_utils).items() if not name.startswith("_") and not inspect.ismodule(item)}
    assert public - {"annotations"} == set(mtf_utils.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_of_a_module_exists_and_is_documented(name: str) -> None:
    module = importlib.import_module(f"mtf_utils.{name}")
    assert module.__doc__
    for public in module.__all__:
        item = getattr(module, public)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert item.__doc__, public


@pytest.mark.parametrize("name", [*MODULES, "__init__", "__main__"])
def test_only_the_standard_library_is_imported(name: str) -> None:
    tree = ast.parse((Path(mtf_utils.__file__).parent / f"{name}.py").read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {full.split(".")[0] for full in imported} <= sys.stdlib_module_names | {"mtf_utils"}


def test_importing_loads_nothing_heavy() -> None:
    program = "import sys, mtf_utils; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, env=bare())
    loaded = set(done.stdout.split())
    assert "mtf_utils.settings" in loaded
    assert not loaded & {"argparse", "asyncio", "importlib.metadata", "subprocess", "email", "mtf_utils.cli"}


def bare() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(mtf_utils.__file__).parent.parent)}
