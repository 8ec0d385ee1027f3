"""Build the distributions; install each alone, from its wheel, in a fresh environment, and test it there.

Usage:
    wheels.py build                           sdists and wheels of all packages in dist/
    wheels.py test [NAME …] [--python P …]    the same, then one environment per distribution (default: all of them) and
                                              Python (default: the one that runs this)

What a distribution must not bring along is listed in ABSENT and checked before anything else is installed beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TEST_TOOLS = ["pytest", "pytest-timeout", "hypothesis"]

# Modules that must not be importable where the distribution is installed alone.
ABSENT = {
    "mtf-utils": ["torch", "numpy", "yaml", "jsonschema", "git", "tenacity"],
    "mtf-config": ["torch", "numpy", "git", "tenacity", "mtf_trainer", "mtf_slurm"],
    "mtf-slurm": ["torch", "numpy", "mtf_trainer"],
    "mtf-trainer": ["yaml", "jsonschema", "git", "tenacity", "mtf_config", "mtf_slurm"],
    "model-training-framework": [],
}

PROBE = """
import importlib, importlib.metadata, sys
name, module, *absent = sys.argv[1:]
importlib.import_module(module)
for entry in importlib.metadata.entry_points(group="mtf.commands"):
    entry.load()
for other in absent:
    try:
        importlib.import_module(other)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} alone brings {other} along")
"""


class StepError(Exception):
    """A command ended with a status other than 0, or a built file is not as it should be."""


@dataclass(frozen=True)
class Package:
    """One distribution of the workspace."""

    folder: Path
    name: str
    version: str

    @property
    def stem(self) -> str:
        """The name as files and modules spell it."""
        return self.name.replace("-", "_")

    @property
    def wheel(self) -> Path:
        """Where the wheel lies once built."""
        return DIST / f"{self.stem}-{self.version}-py3-none-any.whl"

    @property
    def sdist(self) -> Path:
        """Where the source distribution lies once built."""
        return DIST / f"{self.stem}-{self.version}.tar.gz"

    def unpacked(self, scratch: Path) -> Path:
        """Where the source distribution is unpacked."""
        return scratch / f"{self.stem}-{self.version}"


def read_packages() -> list[Package]:
    """The packages in the order of ABSENT, which runs from the leaves to the facade."""
    packages = {}
    for file in ROOT.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        packages[project["name"]] = Package(file.parent, project["name"], project["version"])
    if packages.keys() != ABSENT.keys():
        raise StepError(f"packages/ holds {sorted(packages)}, but ABSENT in {__file__} lists {sorted(ABSENT)}")
    return [packages[name] for name in ABSENT]


def step(label: str, command: list[str | Path], cwd: Path = ROOT, path_first: Path | None = None) -> None:
    """Run a command quietly; its output is shown only when it fails."""
    # An inherited PYTHONPATH would let an environment import what it does not have installed.
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    if path_first is not None:
        environment["PATH"] = f"{path_first}{os.pathsep}{environment['PATH']}"
    start = time.monotonic()
    print(f"  {label} … ", end="", flush=True)
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - start:.1f} s)", flush=True)
    if done.returncode != 0:
        print(done.stdout, flush=True)
        raise StepError(f"{label}: exit status {done.returncode}")


def date_by_commit() -> None:
    """Date what is built by the last commit, unless told otherwise: two builds of one state are the same bytes."""
    if "SOURCE_DATE_EPOCH" not in os.environ:
        asked = ["git", "log", "-1", "--format=%ct"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.environ["SOURCE_DATE_EPOCH"] = done.stdout.strip()


def build(packages: list[Package], scratch: Path) -> None:
    """Build each sdist from the checkout and each wheel from its sdist, so that an incomplete sdist shows."""
    shutil.rmtree(DIST, ignore_errors=True)
    print("build")
    for package in packages:
        hatchling: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-d", DIST, "-t"]
        step(package.sdist.name, [*hatchling, "sdist"], cwd=package.folder)
        with tarfile.open(package.sdist) as archive:
            archive.extractall(scratch, filter="data")
        step(package.wheel.name, [*hatchling, "wheel"], cwd=package.unpacked(scratch))
        check_contents(package, scratch)


def check_contents(package: Package, scratch: Path) -> None:
    """Check for the files that an installed package works without, so that no test of it would miss them."""
    names = zipfile.ZipFile(package.wheel).namelist()
    for wanted in (f"{package.stem}/py.typed", f"{package.stem}-{package.version}.dist-info/licenses/LICENSE"):
        if wanted not in names:
            raise StepError(f"{package.wheel.name} lacks {wanted}")
    if not list(package.unpacked(scratch).glob("tests/test_*.py")):
        raise StepError(f"{package.sdist.name} carries no tests")


def write_constraints(packages: list[Package], file: Path) -> None:
    """Bind our names to the wheels just built, whatever an index or a cache offers, and torch to the tested build."""
    shared = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))["envs"]["packages"]["dependencies"]
    ours = [f"{package.name} @ {package.wheel.as_uri()}" for package in packages]
    file.write_text("\n".join([*shared, *ours]) + "\n", encoding="utf-8")


def check_alone(package: Package, interpreter: str, constraints: Path, scratch: Path) -> None:
    """Install one distribution in a fresh environment and run its tests from its sdist, away from the checkout."""
    print(f"{package.name}, {interpreter}")
    home = Path(tempfile.mkdtemp(prefix=f"env-{package.stem}-", dir=scratch))
    step("environment", [interpreter, "-m", "venv", "--without-pip", home])
    bin_folder = home / ("Scripts" if os.name == "nt" else "bin")
    python = bin_folder / ("python.exe" if os.name == "nt" else "python")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    install: list[str | Path] = [*pip, "install", "--quiet", "--constraint", constraints]
    step("install", [*install, package.name])
    step("requirements agree", [*pip, "check"])
    step("imports", [python, "-I", "-c", PROBE, package.name, package.stem, *ABSENT[package.name]], cwd=scratch)
    step("mtf --help", [bin_folder / "mtf", "--help"], cwd=scratch)
    if package.name == "model-training-framework":
        walk(bin_folder, home)
    step("install test tools", [*install, *TEST_TOOLS])
    place = home / "tests-of-the-sdist"
    shutil.copytree(package.unpacked(scratch), place, ignore=shutil.ignore_patterns("src"))
    if package.name == "model-training-framework":
        shutil.copy(ROOT / "tests" / "test_public_api.py", place / "tests")
        step("tests of the new project", [python, "-m", "pytest", "-q"], cwd=home / "walk", path_first=bin_folder)
    # The settings of the checkout's tests hold here too, but not its folder of helpers.
    settings: list[str | Path] = ["-c", ROOT / "pyproject.toml", "-o", "pythonpath=", "--rootdir", place]
    pytest: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *settings, place / "tests"]
    step("tests", pytest, cwd=place, path_first=bin_folder)


def walk(bin_folder: Path, place: Path) -> None:
    """What a new user types first, where nothing but the distributions and what they ask for is installed."""
    mtf = bin_folder / "mtf"
    step("mtf init", [mtf, "init", "walk"], cwd=place)
    project = place / "walk"
    for words in (["validate", "sweep.yaml"], ["plan", "sweep.yaml"], ["run", "sweep.yaml"], ["status"], ["results"]):
        step(f"mtf {' '.join(words)}", [mtf, *words], cwd=project, path_first=bin_folder)
    results = subprocess.run([mtf, "results", "--json"], cwd=project, capture_output=True, text=True, check=True)
    runs = json.loads(results.stdout)["data"]["runs"]
    if [run["status"] for run in runs] != ["COMPLETED"] * 4 or not all(run["metrics"] for run in runs):
        raise StepError(f"mtf run sweep.yaml: not every run has finished with metrics: {results.stdout}")
    step("mtf demo", [mtf, "demo", "demonstration"], cwd=place, path_first=bin_folder)


def check(packages: list[Package], names: list[str], interpreters: list[str], scratch: Path) -> list[str]:
    """Check each named distribution alone, with each Python; return the failures."""
    constraints = scratch / "constraints.txt"
    write_constraints(packages, constraints)
    failures = []
    for interpreter, package in itertools.product(interpreters, packages):
        if package.name in names:
            try:
                check_alone(package, interpreter, constraints, scratch)
            except StepError as error:
                failures.append(f"{package.name}, {interpreter}: {error}")
    return failures


def main() -> int:
    """Run the command line; 0 when everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build")
    test = verbs.add_parser("test")
    test.add_argument("names", nargs="*", metavar="NAME")
    test.add_argument("--python", action="append", metavar="P", help="an interpreter; may be given more than once")
    arguments = parser.parse_args()
    if unknown := set(getattr(arguments, "names", [])) - ABSENT.keys():
        parser.error(f"no distribution is called {', '.join(sorted(unknown))}; there are {', '.join(ABSENT)}")
    with tempfile.TemporaryDirectory(prefix="mtf-wheels-") as folder:
        scratch = Path(folder).resolve()
        try:
            packages = read_packages()
            date_by_commit()
            build(packages, scratch)
            failures = []
            if arguments.verb == "test":
                failures = check(
                    packages, arguments.names or list(ABSENT), arguments.python or [sys.executable], scratch
                )
        except StepError as error:
            failures = [str(error)]
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
