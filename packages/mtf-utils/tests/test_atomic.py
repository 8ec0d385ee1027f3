"""Atomic files: killed at any moment, on a full disk, under readers, there is the old content or the new."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_utils import atomic

OLD, NEW = b"o" * 300_000, b"n" * 700_001

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic.write_bytes(file, OLD)
    atomic.write_bytes(file, b"")
    assert (file.read_bytes(), names(tmp_path)) == (b"", ["file"])
    atomic.write_text(file, "grüße\n")
    assert file.read_bytes() == "grüße\n".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes")
def test_the_mode_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "file", b"")
        atomic.write_bytes(tmp_path / "script", b"", mode=0o777)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "script")]
    assert modes == [0o640, 0o750]


def test_the_longest_name_that_the_file_system_takes(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 255)
    atomic.write_bytes(file, OLD)
    assert file.read_bytes() == OLD


KEEPS_WRITING = """
import sys
from pathlib import Path
from mtf_utils import atomic
path = Path(sys.argv[1])
print("ready", flush=True)
while True:
    atomic.write_bytes(path, b"n" * 700_001)
    atomic.write_bytes(path, b"o" * 300_000)
"""


@posix
@pytest.mark.parametrize("seed", range(12))
def test_a_killed_writer_leaves_the_old_content_or_the_new(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic.write_bytes(file, OLD)
    reads = random.Random(seed).randrange(60)
    with subprocess.Popen([sys.executable, "-c", KEEPS_WRITING, str(file)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        seen = [file.read_bytes() for _ in range(reads)]  # also what concurrent readers see
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert {*seen, file.read_bytes()} <= {OLD, NEW}
    atomic.write_bytes(file, b"after")  # what a killed writer left is in nobody's way
    assert file.read_bytes() == b"after"


LIMITED = """
import resource, signal, sys
from pathlib import Path
from mtf_utils import atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    atomic.write_bytes(Path(sys.argv[1]), b"n" * 700_001)
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@posix
@pytest.mark.parametrize("limit", [0, 1, 4096, 700_000])
def test_a_disk_that_takes_no_more_leaves_the_old_content(limit: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic.write_bytes(file, OLD)
    done = run(LIMITED, file, limit)
    assert done.stdout.startswith("OSError"), done.stderr
    assert (file.read_bytes(), names(tmp_path)) == (OLD, ["file"])


@posix
def test_a_disk_that_takes_just_enough(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert run(LIMITED, file, 700_001).stdout == ""
    assert file.read_bytes() == NEW


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic.write_bytes(file, OLD)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            atomic.write_bytes(file, NEW)
    finally:
        tmp_path.chmod(0o755)
    assert (file.read_bytes(), names(tmp_path)) == (OLD, ["file"])


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        atomic.write_bytes(tmp_path / "file", NEW)
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "none" / "file", NEW)


def test_json_is_standard_and_readable(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    atomic.write_json(file, {"näme": [1, None, 1e-8]})
    assert file.read_text("utf-8") == '{\n  "näme": [\n    1,\n    null,\n    1e-08\n  ]\n}\n'


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), ({"a": [float("inf")]}, ValueError), ("\ud800", ValueError), ({1, 2}, TypeError)],
)
def test_what_is_no_json_is_refused_with_the_file_named(value: object, error: type[Exception], tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    atomic.write_json(file, "old")
    with pytest.raises(error, match=r"file\.json: cannot be written as JSON"):
        atomic.write_json(file, value)
    assert (file.read_text(), names(tmp_path)) == ('"old"\n', ["file.json"])
