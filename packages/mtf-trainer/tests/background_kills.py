"""Trains, dies at a chosen moment of a chosen save in the background, and goes on: a script for the tests.

It imports torch once and forks for every process that is to die, and reports in JSON lines.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import exact_task
import torch

from mtf_trainer.checkpoint import CheckpointStore
from mtf_trainer.checkpoint.shelf import Shelf
from mtf_trainer.checkpoint.staging import Copies

MOMENTS = {
    "begun": (CheckpointStore, "save_in_background"),
    "copied": (Copies, "finish"),
    "joined": (Copies, "join"),
    "published": (Shelf, "add"),
}


def die_after(moment, number):
    """Kill this process as soon as that method has returned for that time."""
    owner, name = MOMENTS[moment]
    method, calls = getattr(owner, name), 0

    def counted(self, *arguments, **options):
        nonlocal calls
        result = method(self, *arguments, **options)
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def train(folder, moment=None, number=0):
    """Train in a process of its own; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if moment is not None:
                die_after(moment, number)
            trainer, fit = exact_task.prepare(folder)
            fit()
            (folder / "digest.json").write_text(json.dumps(exact_task.digest(trainer)))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main():
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    train(place / "whole")
    expected = (place / "whole" / "digest.json").read_text()
    for moment in MOMENTS:
        for number in (1, 2, 4):
            folder = place / f"{moment}-{number}"
            statuses = [train(folder, moment, number), train(folder)]
            equal = (folder / "digest.json").exists() and (folder / "digest.json").read_text() == expected
            print(json.dumps({"case": folder.name, "statuses": statuses, "equal": equal}), flush=True)


if __name__ == "__main__":
    main()
