"""Identities as other interpreters compute them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mtf_config
import mtf_utils

PROGRAM = (
    "import json, sys\n"
    "from mtf_config import ExperimentConfig, run_identity\n"
    "print(*[run_identity(ExperimentConfig.from_dict(item)) for item in json.load(sys.stdin)])\n"
)
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def find_python(version: str) -> str | None:
    """An interpreter of that version: on the PATH, or one of pyenv's; None if there is none that runs."""
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in [on_path, *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def identities(python: str, data: list[Any], environment: Mapping[str, str] | None = None) -> list[str]:
    """The identity of each experiment, from an interpreter that has only the sources of these packages."""
    sources = os.pathsep.join(str(Path(module.__path__[0]).parent) for module in (mtf_config, mtf_utils))
    result = subprocess.run(
        [python, "-c", PROGRAM],
        input=json.dumps(data),
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return result.stdout.split()


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same data with the keys of every mapping in another order."""
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    chance.shuffle(keys)
    return {key: shuffled(value[key], chance) for key in keys}


def interpreters() -> Iterator[tuple[str, str]]:
    """Version and path of every interpreter that there is here."""
    for version in VERSIONS:
        if python := find_python(version):
            yield version, python
