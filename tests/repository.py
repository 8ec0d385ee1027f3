"""What the repository-level tests know about the checkout: its packages, their metadata and their modules."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Package:
    """One folder of packages/."""

    folder: Path

    @cached_property
    def project(self) -> dict[str, Any]:
        """The [project] table."""
        table: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return table

    @property
    def import_name(self) -> str:
        """The name that is imported."""
        return self.folder.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """The folder of the import package."""
        return self.folder / "src" / self.import_name

    def modules(self) -> dict[str, Path]:
        """Dotted name of every module, with its file."""
        found = {}
        for file in sorted(self.source.rglob("*.py")):
            parts = [self.import_name, *file.relative_to(self.source).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
        return found


PACKAGES = [Package(file.parent) for file in sorted(ROOT.glob("packages/*/pyproject.toml"))]
