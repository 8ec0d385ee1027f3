"""Values that try to be something else than values, and a training script that says what has reached it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtf_utils.rundir import RunDirectory

HOSTILE = [
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked;",
    "' ; touch hacked; '",
    '" ; touch hacked; "',
    "a\nb\r\n",
    "--help",
    "-rf",
    "../../../hacked",
    "/etc/hacked",
    "~/hacked",
    "%A_%a %j %%",
    "{config} {{name}} {python}",
    "{{ body }} {% raw %}",
    "${HOME} $HOME \\$HOME",
    "!!python/object/apply:os.system ['touch hacked']",
    "&anchor *alias <<: # comment",
    "=cmd|'/C touch hacked'!A0",
    "\x1b]0;title\x07\x9b31m",
    "\u202etxt.hacked",  # writing from right to left
    "p\u0430ypal",  # a Cyrillic letter
    "e\u0301",  # a combining accent
    "\u2028\u2029\x85\ufeff",
    "no",
    "1e5",
    "null",
    "",
    " ",
    "a\0b",
    "x" * 20_000,
]

SAYS_WHAT_IT_GOT = r"""
import json, os, sys
run = os.environ["MTF_RUN_DIR"]
with open(os.environ["MTF_CONFIG"], encoding="utf-8") as file:
    config = json.load(file)
env = {name: os.environ[name] for name in ("MTF_RUN_DIR", "MTF_CONFIG", "MTF_EXPERIMENT", "MTF_PROJECT_ROOT")}
got = {"words": sys.argv[1:], "params": config["custom_params"], "cwd": os.getcwd(), "env": env}
with open(os.path.join(run, "got.json"), "w", encoding="utf-8") as file:
    json.dump(got, file)
"""


def got(run: RunDirectory) -> dict[str, Any]:
    """What has reached the script of a run."""
    said: dict[str, Any] = json.loads((run.path / "got.json").read_text("utf-8"))
    return said


def canaries(*folders: Path) -> list[Path]:
    """What was executed."""
    return [path for folder in folders for path in folder.rglob("*") if path.name == "hacked"]


def outside(top: Path, *inside: Path) -> dict[Path, bytes]:
    """Every file below a folder that is not in one of others."""
    files = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: path.read_bytes() for path in files if not any(path.is_relative_to(folder) for folder in inside)}
