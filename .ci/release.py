"""What has to hold before a release: the same bytes from two builds, metadata that an index takes, no broken promise.

Usage:
    release.py twice              build everything here, and once more in another place, time zone and language, from
                                  files with other times and permissions; the results have to be the same
    release.py metadata           check what was built last: metadata, and READMEs that render
    release.py api [--against R]  compare what the packages offer with the last tag (or R)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ReleaseError(Exception):
    """Something does not hold."""


def git(*words: str) -> str:
    """What git prints."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def build(place: Path, **environ: str) -> dict[str, str]:
    """Build all distributions in a checkout or a copy of one; the SHA-256 of each file."""
    epoch = {"SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct")}
    command: list[str | Path] = [sys.executable, place / ".ci" / "wheels.py", "build"]
    subprocess.run(command, cwd=place, env=os.environ | epoch | environ, check=True)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((place / "dist").iterdir())}


def copy_elsewhere(place: Path) -> None:
    """Copy what git tracks, with other times and other permissions."""
    long_ago = time.time() - 3e8
    for name in git("ls-files").splitlines():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o600)
        os.utime(target, (long_ago, long_ago))


def build_twice() -> None:
    """Raise if two builds differ."""
    here = build(ROOT)
    with tempfile.TemporaryDirectory(prefix="mtf-again-") as folder:
        place = Path(folder)
        copy_elsewhere(place)
        there = build(place, TZ="Pacific/Kiritimati", LC_ALL="C", PYTHONHASHSEED="7", HOME=folder)
    for name in sorted(here.keys() | there.keys()):
        same = here.get(name) == there.get(name)
        print(f"{here.get(name, '-' * 64)}  {name}{'' if same else '  DIFFERS: ' + there.get(name, 'is not there')}")
    if here != there:
        raise ReleaseError("two builds of one state are not the same")


def check_metadata() -> None:
    """Raise if an index would refuse a file, or could not render its README."""
    files = sorted(DIST.glob("*"))
    if len(files) != 10:
        raise ReleaseError(f"{DIST} holds {len(files)} files, not five sdists and five wheels; build first")
    subprocess.run([sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files], check=True)


def read_packages(checkout: Path) -> dict[str, Any]:
    """What griffe reads of every package of a checkout, by import names; nothing is imported."""
    import griffe

    folders = sorted(file.parent for file in checkout.glob("packages/*/pyproject.toml"))
    loader = griffe.GriffeLoader(search_paths=[folder / "src" for folder in folders], allow_inspection=False)
    names = [folder.name.replace("-", "_") for folder in folders]
    for name in names:
        loader.load(name)
    loader.resolve_aliases(external=False)
    return {name: loader.modules_collection[name] for name in names}


def broken_promises(reference: str) -> list[str]:
    """Every change since a reference that may break the code of somebody who uses what `__all__` lists."""
    import griffe

    with tempfile.TemporaryDirectory(prefix="mtf-then-") as folder:
        archive = Path(folder, "then.tar")
        git("archive", "--output", str(archive), reference, "packages")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        old, new = read_packages(Path(folder)), read_packages(ROOT)
        found = []
        for name, package in old.items():
            for public in sorted(map(str, package.exports or ())):
                if name not in new or public not in new[name].members:
                    found.append(f"{name}.{public}: is not there any more")
                    continue
                changes = griffe.find_breaking_changes(package[public], new[name][public])
                found += [COLOUR.sub("", change.explain(griffe.ExplanationStyle.ONE_LINE)) for change in changes]
    return found


def check_api(reference: str | None) -> None:
    """Raise if a promise is broken; before 1.0 a minor version may, and then the changelog has to say so."""
    reference = reference or git("tag", "--list", "v*", "--sort=-version:refname").partition("\n")[0]
    if not reference:
        print("nothing was released yet: there is no tag to compare with")
        return
    broken = broken_promises(reference)
    for change in broken:
        print(change)
    if broken:
        raise ReleaseError(f"{len(broken)} change(s) since {reference} may break the code of others")
    print(f"what the packages offered at {reference} is there")


def main() -> int:
    """Run the command line; 0 when everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("twice")
    verbs.add_parser("metadata")
    verbs.add_parser("api").add_argument("--against", metavar="REFERENCE")
    options = parser.parse_args()
    try:
        if options.verb == "twice":
            build_twice()
        elif options.verb == "metadata":
            check_metadata()
        else:
            check_api(options.against)
    except (ReleaseError, subprocess.CalledProcessError) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
