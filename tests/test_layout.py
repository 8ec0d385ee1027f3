"""The workspace keeps its shape: one version, pinned siblings, the same files in every package."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from repository import PACKAGES, ROOT, Package

ROOT_FOLDERS = {"packages", "tests", "examples", "docs"}
TEST_COMMAND = 'python3 -m pip install "hatch>=1.18" && python3 -m hatch run test'
DEMO_COMMAND = 'python3 -m pip install "hatch>=1.18" && python3 -m hatch run demo'

every_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder.name)


def read(*parts: str) -> str:
    """Text of a file of the checkout."""
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def test_there_are_five_packages_of_one_version() -> None:
    assert {package.folder.name for package in PACKAGES} == {
        "mtf-utils",
        "mtf-config",
        "mtf-trainer",
        "mtf-slurm",
        "model-training-framework",
    }
    assert len({package.project["version"] for package in PACKAGES}) == 1
    assert len({package.project["requires-python"] for package in PACKAGES}) == 1


@every_package
def test_siblings_are_pinned_to_that_version(package: Package) -> None:
    siblings = {other.project["name"] for other in PACKAGES}
    for requirement in package.project["dependencies"]:
        name, _, version = requirement.partition("==")
        if name in siblings:
            assert version == package.project["version"]
        else:
            assert not requirement.startswith(tuple(siblings)), f"{requirement}: a sibling is pinned with =="


@every_package
def test_metadata_is_static_and_named_after_the_folder(package: Package) -> None:
    assert package.project["name"] == package.folder.name
    assert "dynamic" not in package.project


@every_package
def test_files_that_every_package_has(package: Package) -> None:
    assert (package.source / "py.typed").is_file()
    assert (package.folder / "README.md").read_text(encoding="utf-8").startswith(f"# {package.folder.name}\n")
    assert (package.folder / "LICENSE").read_text(encoding="utf-8") == read("LICENSE")
    assert list(package.folder.glob("tests/test_*.py"))


@every_package
def test_every_package_has_a_page_in_the_reference(package: Package) -> None:
    pages = [file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "api").glob("*.md")]
    assert any(f"\n::: {package.import_name}\n" in page for page in pages)


def test_the_readme_shows_the_command_that_ci_runs() -> None:
    assert TEST_COMMAND in read("README.md")
    assert DEMO_COMMAND in read("README.md")
    assert TEST_COMMAND in read(".ci", "run")
    assert DEMO_COMMAND in read(".github", "workflows", "ci.yml")


def test_no_further_folder_at_the_root() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    folders = {Path(name).parts[0] for name in listed if len(Path(name).parts) > 1}
    assert {name for name in folders if not name.startswith(".")} <= ROOT_FOLDERS
