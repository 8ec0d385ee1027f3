"""Under which circumstances an attempt runs: after a change of them, what became of earlier ones says nothing."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtf_utils import rundir

__all__ = ["circumstances"]


def circumstances(parts: Mapping[str, Any]) -> str:
    """A digest of the code that is loaded, of who started it, and of further plain data.

    Code counts by the size and time of its files, as far as they are no part of Python's installation: what a person
    changes, and quickly had on any file system. A launcher's token is new for every submission that somebody made.
    """
    found = {"code": list(_code()), "token": os.environ.get(rundir.ENV_TOKEN, ""), **parts}
    text = json.dumps(found, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code() -> Iterator[tuple[str, int, int]]:
    installed = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for path in sorted(str(file) for file in files if file and not str(file).startswith(installed)):
        try:
            status = Path(path).stat()
        except OSError:  # in an archive, or gone
            continue
        yield path, status.st_size, status.st_mtime_ns
