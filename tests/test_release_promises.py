"""A release keeps what the one before it offered, or its version and the changelog say that it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import release
from repository import PACKAGES, ROOT

OFFERED = "def train(epochs: int) -> None: ...\n\n\ndef stop() -> None: ...\n"
CHANGELOG = "# Changelog\n\n## Unreleased\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one package, which nothing was released of yet."""
    monkeypatch.setattr(release, "ROOT", tmp_path)
    for name, value in {"NAME": "a", "EMAIL": "a@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    write(tmp_path, "docs/api/utils.md", "# mtf_utils\n\n::: mtf_utils\n\n# mtf_utils.files\n\n::: mtf_utils.files\n")
    write(tmp_path, "packages/mtf-utils/src/mtf_utils/files.py", '__all__ = ["read"]\n\n\ndef read() -> None: ...\n')
    write(tmp_path, "CHANGELOG.md", CHANGELOG)
    write(tmp_path, ".changes/README.md", "# Changes\n")
    offer(tmp_path, OFFERED, version="0.1.0")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def offer(root: Path, code: str, *, version: str) -> None:
    """The package as it is from now on."""
    names = [line.split("(")[0].removeprefix("def ") for line in code.splitlines() if line.startswith("def ")]
    write(root, "packages/mtf-utils/pyproject.toml", f'[project]\nname = "mtf-utils"\nversion = "{version}"\n')
    write(root, "packages/mtf-utils/src/mtf_utils/__init__.py", f"__all__ = {names!r}\n\n\n{code}")


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def commit(root: Path, *, tag: str = "", day: int = 1) -> None:
    git(root, "add", ".")
    git(root, "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", f"--date=2027-01-{day:02}", "-m", "x")
    if tag:
        git(root, "tag", tag)


def test_without_a_release_there_is_nothing_to_keep(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release.check_api(None)
    assert "nothing was released yet" in capsys.readouterr().out
    git(checkout, "tag", "v0.1.0")
    release.check_api(None)  # the first release itself
    assert "nothing was released yet" in capsys.readouterr().out


def test_more_may_be_offered(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(checkout, "tag", "v0.1.0")
    offer(checkout, OFFERED + "\n\ndef go_on() -> None: ...\n", version="0.1.1")
    commit(checkout, tag="v0.1.1")
    release.check_api(None)
    assert capsys.readouterr().out == "what the packages offered at v0.1.0 is there\n"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def train(epochs: int) -> None: ...\n", "mtf_utils.stop: is not offered any more"),
        ("def train(epochs: int, seed: int) -> None: ...\n\n\ndef stop() -> None: ...\n", "seed"),
    ],
)
def test_a_release_that_breaks_is_compared_with_the_one_before_and_not_with_itself(
    checkout: Path, code: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    git(checkout, "tag", "v0.1.0")
    offer(checkout, code, version="0.1.1")
    commit(checkout, tag="v0.1.1")
    with pytest.raises(release.ReleaseError, match=r"the version has to be 0\.2\.0 at least, not 0\.1\.1"):
        release.check_api(None)
    assert told in capsys.readouterr().out


def test_a_module_that_the_reference_lists_counts(checkout: Path) -> None:
    git(checkout, "tag", "v1.4.0")
    write(checkout, "packages/mtf-utils/src/mtf_utils/files.py", "__all__ = []\n")
    offer(checkout, OFFERED, version="1.5.0")
    commit(checkout)
    with pytest.raises(release.ReleaseError, match=r"1 change.*has to be 2\.0\.0 at least, not 1\.5\.0"):
        release.check_api(None)


def test_what_breaks_has_to_be_told(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(checkout, "CHANGELOG.md", CHANGELOG + "\n## 0.1.0 - 2027-01-01\n\n### Changed\n\n- Everything.\n")
    commit(checkout, tag="v0.1.0")
    offer(checkout, "def train(epochs: int) -> None: ...\n", version="0.1.0")
    commit(checkout)
    with pytest.raises(release.ReleaseError, match="the changelog does not say so"):
        release.check_api(None)  # what an earlier release has told is no excuse
    write(checkout, ".changes/stop.removed.md", "`stop` is gone.\n")
    release.check_api(None)
    assert "but for what the changelog tells of" in capsys.readouterr().out


def test_what_a_release_tells_stands_in_its_section(checkout: Path) -> None:
    git(checkout, "tag", "v0.1.0")
    offer(checkout, "def train(epochs: int) -> None: ...\n", version="0.2.0")
    write(checkout, "CHANGELOG.md", CHANGELOG + "\n## 0.2.0 - 2027-02-01\n\n### Added\n\n- A zebra.\n")
    commit(checkout, tag="v0.2.0")
    with pytest.raises(release.ReleaseError, match="the changelog does not say so"):
        release.check_api(None)
    write(checkout, "CHANGELOG.md", CHANGELOG + "\n## 0.2.0 - 2027-02-01\n\n### Removed\n\n- `stop`.\n")
    release.check_api(None)


def test_a_new_version_stands_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [package.folder / "pyproject.toml" for package in PACKAGES]
    for file in files:
        write(tmp_path, str(file.relative_to(ROOT)), file.read_text("utf-8"))
    monkeypatch.setattr(release, "ROOT", tmp_path)
    old = release.version_of_now()
    with pytest.raises(release.ReleaseError, match="is no version"):
        release.set_version("9.8")
    assert release.version_of_now() == old
    release.set_version("9.8.7rc1")
    for file in files:
        before, after = (root / file.relative_to(ROOT) for root in (ROOT, tmp_path))
        assert after.read_text("utf-8").count("9.8.7rc1") == before.read_text("utf-8").count(old)
        assert old not in after.read_text("utf-8")
