"""Completion: the words that are offered, and a real shell that asks for them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_utils.completion import candidates

ASK = """
{script}
COMP_WORDS=({words}); COMP_CWORD={index}
_mtf
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def words_of(*words: str) -> list[str]:
    return [text for text, _ in candidates(words)]


def test_verbs_and_what_they_do() -> None:
    offered = dict(candidates([""]))
    assert offered["completion"].startswith("let your shell complete")
    assert words_of("compl") == ["completion"]
    assert words_of("help", "compl") == ["completion"]
    assert words_of("--v") == ["--version"]
    assert "completion" in words_of()


def test_options_and_choices_of_a_verb() -> None:
    assert words_of("completion", "--") == ["--help"]
    assert words_of("completion", "") == ["bash", "zsh", "fish", "words"]
    assert words_of("completion", "f") == ["fish"]


def test_words_that_bash_splits_at_equals_signs() -> None:
    assert "bash" in words_of("completion", "key", "=", "")
    assert words_of("completion", "key", "=") == []


@pytest.fixture
def mtf(tmp_path: Path) -> Path:
    """A command `mtf` on the PATH that is this interpreter's."""
    file = tmp_path / "bin" / "mtf"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mtf_utils "$@"\n')
    file.chmod(0o755)
    return file


def complete(shell: str, mtf: Path, *words: str) -> list[str]:
    """What a real bash offers for the last word."""
    environ = os.environ | {"PATH": f"{mtf.parent}{os.pathsep}{os.environ['PATH']}"}
    script = subprocess.run([mtf, "completion", shell], capture_output=True, text=True, check=True, env=environ).stdout
    quoted = " ".join(map(shlex.quote, ["mtf", *words]))
    text = ASK.format(script=script, words=quoted, index=len(words))
    command = [shell, "--norc", "--noprofile", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(mtf: Path) -> None:
    assert complete("bash", mtf, "compl") == ["completion"]
    assert complete("bash", mtf, "completion", "z") == ["zsh"]
    assert complete("bash", mtf, "completion", "--h") == ["--help"]
    assert complete("bash", mtf, "completion", "--") == ["--help"]
    assert complete("bash", mtf, "--v") == ["--version"]
    assert complete("bash", mtf, "no-such-verb", "") == []  # files are left to bash


@pytest.mark.parametrize(("shell", "check"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_every_script_is_one(shell: str, check: list[str], mtf: Path, tmp_path: Path) -> None:
    script = subprocess.run([mtf, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert f"mtf completion for {shell}" in script.splitlines()[0]
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([shell, *check, file], check=True)


def test_a_shell_that_is_not_known(mtf: Path) -> None:
    done = subprocess.run([mtf, "completion", "bsh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'bash'?" in done.stderr
