"""What has to hold before a release: the same bytes from two builds, metadata that an index takes, no broken promise.

Usage:
    release.py twice              build everything here, and once more in another place, time zone and language, from
                                  files with other times and permissions; the results have to be the same
    release.py metadata           check what was built last: metadata, and READMEs that render
    release.py api [--against R]  compare what the reference lists with the release before this commit (or R)
    release.py version VERSION    write a new version into every package, and into what they ask of each other
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
import tomllib
from pathlib import Path
from typing import Any

import changelog

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PLACE = re.compile(r"^\S+:\d+: ")
LISTED = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


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


def faces(checkout: Path) -> list[str]:
    """The modules that the reference lists."""
    pages = sorted(checkout.glob("docs/api/*.md"))
    return sorted({name for page in pages for name in LISTED.findall(page.read_text("utf-8"))})


def public_modules(checkout: Path) -> dict[str, Any]:
    """What griffe has read of every module that the reference of a checkout lists; public is what its `__all__` has."""
    packages = read_packages(checkout)
    modules = {}
    for name in faces(checkout):
        root, _, inner = name.partition(".")
        modules[name] = packages[root][inner] if inner else packages[root]
        for member in modules[name].members.values():
            member.public = member.name in modules[name].exports
    return modules


def broken_promises(then: Path, now: Path) -> list[str]:
    """Every change between two checkouts that may break the code of somebody who uses what the reference lists."""
    import griffe

    old, new = public_modules(then), public_modules(now)
    found = {f"{name}: is not listed any more" for name in old.keys() - new.keys()}
    for name in old.keys() & new.keys():
        gone = {str(public) for public in old[name].exports} - {str(public) for public in new[name].exports}
        found |= {f"{name}.{public}: is not offered any more" for public in gone}
        for change in griffe.find_breaking_changes(old[name], new[name]):
            if change.obj.name not in gone:
                told = COLOUR.sub("", change.explain(griffe.ExplanationStyle.ONE_LINE))
                found.add(f"{name}: {PLACE.sub('', told)}")
    return sorted(found)


def numbers(version: str) -> tuple[int, int]:
    """The first two numbers of a version or a tag, those that may break something."""
    major, minor, *_ = re.findall(r"\d+", version)
    return int(major), int(minor)


def version_of_now() -> str:
    """The version of the packages, which is one."""
    project = tomllib.loads((ROOT / "packages" / "mtf-utils" / "pyproject.toml").read_text("utf-8"))["project"]
    version: str = project["version"]
    return version


def set_version(version: str) -> None:
    """Give every package a version, and let each ask for that version of the others."""
    if not changelog.VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version such as 1.2.0 or 1.2.0rc1")
    old = version_of_now()
    for file in sorted(ROOT.glob("packages/*/pyproject.toml")):
        text = file.read_text("utf-8")
        for before in (f'version = "{old}"', f'=={old}"'):
            text = text.replace(before, before.replace(old, version))
        file.write_text(text, "utf-8")


def judge(count: int, old: str, new: str) -> str:
    """What is wrong with so many breaking changes between two versions; empty if they may be, and are told.

    A new major version may, and before 1.0 a new minor one. Between releases the version is still that of the last one:
    then it is enough that a fragment of the changelog says so, for the next version has to follow from it.
    """
    (old_major, old_minor), (new_major, new_minor) = numbers(old), numbers(new)
    is_large = new_major > old_major or (old_major == 0 and new_minor > old_minor)
    is_later = new != old.removeprefix("v")
    complaint = f"{count} change(s) since {old} may break the code of others"
    if is_later and not is_large:
        least = f"0.{old_minor + 1}.0" if old_major == 0 else f"{old_major + 1}.0.0"
        return f"{complaint}: the version has to be {least} at least, not {new}"
    if not re.search(r"^### (Changed|Removed)$", changelog.read_news(ROOT, new if is_later else ""), re.MULTILINE):
        return f"{complaint}, and the changelog does not say so: add a fragment of the kind changed or removed"
    return ""


def last_release() -> str:
    """The tag of the release before this commit, whose own tag does not count; empty if there was none."""
    tags = git("tag", "--merged", "HEAD", "--no-contains", "HEAD", "--list", "v*", "--sort=-creatordate")
    return tags.partition("\n")[0]


def check_api(reference: str | None) -> None:
    """Raise if a promise is broken that the version does not allow, or that the changelog does not tell of."""
    reference = reference or last_release()
    if not reference:
        print("nothing was released yet: there is no tag to compare with")
        return
    with tempfile.TemporaryDirectory(prefix="mtf-then-") as folder:
        archive = Path(folder, "then.tar")
        git("archive", "--output", str(archive), reference, "packages", "docs")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        broken = broken_promises(Path(folder), ROOT)
    for change in broken:
        print(change)
    if broken and (complaint := judge(len(broken), reference, version_of_now())):
        raise ReleaseError(complaint)
    told = "is there" if not broken else "is there, but for what the changelog tells of"
    print(f"what the packages offered at {reference} {told}")


def main() -> int:
    """Run the command line; 0 when everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("twice")
    verbs.add_parser("metadata")
    verbs.add_parser("api").add_argument("--against", metavar="REFERENCE")
    verbs.add_parser("version").add_argument("version")
    options = parser.parse_args()
    try:
        if options.verb == "twice":
            build_twice()
        elif options.verb == "metadata":
            check_metadata()
        elif options.verb == "version":
            set_version(options.version)
        else:
            check_api(options.against)
    except (ReleaseError, subprocess.CalledProcessError) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
