"""A control group of the kernel with little memory, where this machine lets one be made."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_MB = 64
HUNGRY = f"held = [bytearray({LIMIT_MB} << 20) for _ in range(4)]"
"""Python that needs more than there is in it."""

_ROOT = Path("/sys/fs/cgroup")
_LIMITS = {"memory.oom_control": "memory.limit_in_bytes", "memory.events": "memory.max"}


@contextlib.contextmanager
def memory_group(name: str) -> Iterator[Path]:
    """A group of that name, which may have folders; the test is skipped where there can be none."""
    top = next((place for place in (_ROOT / "memory", _ROOT) if (place / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no control groups here")
    made: list[Path] = []
    try:
        for part in Path(f"mtf-test-{os.getpid()}", name).parts:
            made.append((made[-1] if made else top) / part)
            made[-1].mkdir()
        count = next((count for count in _LIMITS if (made[-1] / count).exists()), None)
        if count is None:
            pytest.skip("control groups of this machine do not count memory")
        (made[-1] / _LIMITS[count]).write_text(f"{LIMIT_MB}M")
        yield made[-1]
    except PermissionError:
        pytest.skip("control groups cannot be made here")
    finally:
        for group in reversed(made):
            _remove(group)


def _remove(group: Path) -> None:
    """A group can be removed a moment after the last of its processes."""
    end = time.monotonic() + 10
    while group.exists():
        with contextlib.suppress(OSError):
            group.rmdir()
        assert time.monotonic() < end, f"{group} is in use"
        time.sleep(0.01)


def enter(group: Path) -> str:
    """A line of shell that moves the shell there, and what it starts."""
    return f"echo $$ >{group}/cgroup.procs"
