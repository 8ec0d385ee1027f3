"""What a release is made of: a changelog out of fragments, pages that scripts make, licences, bounds."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import benchmarks
import changelog
import reference
import survey
from repository import ROOT

TODAY = datetime.date(2027, 1, 31)
CHANGELOG = """\
# Changelog

Words before.

## Unreleased

### Added

- What was there.

## 0.1.0 - 2026-12-01

### Added

- Everything.
"""


def project(folder: Path, **fragments: str) -> Path:
    """A project with a changelog and fragments."""
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / ".changes").mkdir()
    (folder / ".changes" / "README.md").write_text("# Changes\n")
    for name, text in fragments.items():
        (folder / ".changes" / f"{name.replace('_', '.')}.md").write_text(text)
    return folder


def test_a_release_moves_the_fragments_into_the_changelog(tmp_path: Path) -> None:
    root = project(tmp_path, zebra_added="A zebra,\nof course.\n", crash_fixed="No crash.", ant_added="An ant.")
    changelog.release(root, "0.2.0", TODAY)
    section = "### Added\n\n- What was there.\n- An ant.\n- A zebra, of course.\n\n### Fixed\n\n- No crash.\n"
    head, _, tail = CHANGELOG.partition("## Unreleased\n")
    old = tail[tail.index("## 0.1.0") :]
    expected = f"{head}## Unreleased\n\n## 0.2.0 - 2027-01-31\n\n{section}\n{old}"
    assert (root / "CHANGELOG.md").read_text() == expected
    assert [file.name for file in (root / ".changes").iterdir()] == ["README.md"]


def test_an_item_is_wrapped_between_words_and_not_within_code() -> None:
    text = f"{'word ' * 22}`mtf run sweep.yaml` runs, {'word ' * 30}."
    lines = changelog.as_item(text).splitlines()
    assert " ".join(" ".join(lines).split()) == f"- {' '.join(text.split())}"
    assert len(lines) > 2
    assert all(len(line) <= 120 and line.count("`") % 2 == 0 for line in lines)


@pytest.mark.parametrize(
    ("version", "fragments", "complaint"),
    [
        ("0.2", {}, "'0.2' is no version"),
        ("0.1.0", {}, "has a section for 0.1.0 already"),
        ("0.2.0", {"a_novelty": "x"}, "expected a name such as"),
        ("0.2.0", {"a_added": " \n"}, "is empty"),
    ],
)
def test_what_cannot_be_released_changes_nothing(
    tmp_path: Path, version: str, fragments: dict[str, str], complaint: str
) -> None:
    root = project(tmp_path, **fragments)
    with pytest.raises(changelog.ChangelogError, match=complaint):
        changelog.release(root, version, TODAY)
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG
    assert len(list((root / ".changes").iterdir())) == 1 + len(fragments)


def test_nothing_is_released_twice(tmp_path: Path) -> None:
    root = project(tmp_path)
    changelog.release(root, "0.2.0", TODAY)
    with pytest.raises(changelog.ChangelogError, match="nothing has changed"):
        changelog.release(root, "0.3.0", TODAY)


def test_the_fragments_of_the_checkout_can_be_read() -> None:
    changelog.split((ROOT / "CHANGELOG.md").read_text("utf-8"))
    changelog.read_fragments(ROOT / ".changes")


def test_pages_that_scripts_make_are_as_they_make_them() -> None:
    architecture = survey.PAGE.read_text("utf-8")
    assert architecture == survey.written(architecture), "hatch run survey --write"
    graph = survey.import_time_graph(survey.modules())
    assert survey.LIST.read_text("utf-8") == survey.module_list(graph), "hatch run survey --write"
    for page, made in reference.PAGES.items():
        assert page.read_text("utf-8") == made(), "hatch run reference"
    assert benchmarks.PAGE.read_text("utf-8") == benchmarks.rendered(), "hatch run benchmarks page"


def test_every_benchmark_is_there() -> None:
    for benchmark in benchmarks.BENCHMARKS:
        first, *names = benchmark.words.split()
        script = ROOT / first if first.endswith(".py") else ROOT / first / f"bench_{names[0]}.py"
        assert script.is_file(), benchmark


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ({"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": 9}, "integer ≥ 0, < 9 or null"),
        ({"anyOf": [{"enum": ["min", "max"]}, {"type": "null"}]}, "`min`, `max` or null"),
        ({"type": "array", "items": {"type": "string"}}, "list of strings"),
        ({}, "anything"),
    ],
)
def test_what_a_value_may_be_is_said_in_words(written: dict[str, Any], shown: str) -> None:
    assert reference.kind(written) == shown


def test_text_in_a_table_is_text_to_the_letter() -> None:
    assert reference.row("`a|<b>`", "4 * <k>") == "| `a\\|<b>` | 4 \\* &lt;k> |\n"


def test_levels_of_imports_are_as_low_as_can_be() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()}
    assert survey.levels(graph, graph) == [["c", "d"], ["b"], ["a"]]


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.stem)
def test_workflows_use_what_cannot_be_replaced_under_its_name(file: Path) -> None:
    text = file.read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert used
    for action in used:  # a tag may be moved, a commit not; which one it is, people read behind it
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.search(rf"uses: {action} # v\d+\.\d+\.\d+$", text, re.MULTILINE), action


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_commands_of_workflows_are_there(name: str) -> None:
    environments = tomllib.loads((ROOT / "hatch.toml").read_text("utf-8"))["envs"]
    text = (ROOT / ".github" / "workflows" / name).read_text("utf-8")
    called = re.findall(r"hatch run ([a-z-]+)(?::([a-z-]+))?", text)
    assert called
    for first, second in called:
        assert (second or first) in environments[first if second else "default"]["scripts"], (first, second)


def run_script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci" / name, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_modules_and_functions_stay_within_their_bounds() -> None:
    done = run_script("survey.py")
    assert done.returncode == 0, done.stdout


def test_licences_are_listed() -> None:
    done = run_script("licences.py", "--check")
    assert done.returncode == 0, done.stderr
