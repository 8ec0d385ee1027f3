"""torchrun and its ranks out of a process that has imported torch already: for `killing.zygote`.

Most of the time of a short distributed training goes into imports. What is forked here is torchrun itself, and before
it does anything one process for each rank, which becomes that rank when torchrun starts it: the same tree of processes
as ever, in the same sessions, with the same environment. Only the imports are done.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch._dynamo  # the first optimizer that is made imports it, which takes longer than the whole training
import torch.distributed.fsdp  # noqa: F401 - and so does the trainer, where a model is divided
import torch.distributed.run as torchrun
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

from ranking.task import TASK

sys.path.insert(0, str(TASK.parent))
import ranks_task  # type: ignore[import-not-found]  # noqa: F401 - imported for those who are forked


class Blank:
    """A process that is to become a rank."""

    def __init__(self) -> None:
        self._order, self._orders = os.pipe()
        self.pid = os.fork()
        os.close(self._orders if self.pid == 0 else self._order)

    def order(self, words: list[str], environment: dict[str, str]) -> None:
        """Have it become one."""
        with os.fdopen(self._orders, "w") as orders:
            print(json.dumps({"words": words, "environment": environment}), file=orders)

    def await_order(self) -> dict[str, Any] | None:
        """In the process itself: what to do; None if it is not needed."""
        with os.fdopen(self._order) as order:
            text = order.readline()  # the end of the pipe is far: blanks that were forked later hold it open as well
        orders: dict[str, Any] | None = json.loads(text) if text else None
        return orders


class Rank(subprocess.Popen[bytes]):
    """What torchrun holds of a rank: as if it had started it."""

    def __init__(self, blank: Blank, words: list[str], environment: dict[str, str]) -> None:
        self._blank = blank
        super().__init__(words, env=environment)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        environment = next(each for each in rest if isinstance(each, dict))
        self.pid = self._blank.pid
        self._child_created = True
        self._blank.order(args, environment)


def run(request: dict[str, Any]) -> None:
    """Be torchrun; in a process that was forked for it, be a rank.

    Args:
        request: `words`, as they follow `torchrun`, and how many `ranks` it starts.
    """
    blanks = []
    for _ in range(request["ranks"]):
        blank = Blank()
        if blank.pid == 0:
            be_rank(blank)
            return
        blanks.append(blank)
    waiting = iter(blanks)

    def take(handler: SubprocessHandler, words: tuple[str, ...], environment: dict[str, str]) -> Rank:
        return Rank(next(waiting), list(words), environment)

    SubprocessHandler._popen = take  # type: ignore[assignment,method-assign]
    sys.argv = ["torchrun", *request["words"]]
    torchrun.main(request["words"])


def be_rank(blank: Blank) -> None:
    """Wait until torchrun starts this rank, and run its script as Python would."""
    orders = blank.await_order()
    if orders is None:
        return
    os.setsid()
    os.environ.clear()
    os.environ.update(orders["environment"])
    script = next(index for index, word in enumerate(orders["words"]) if word.endswith(".py"))
    sys.argv = orders["words"][script:]
    runpy.run_path(str(Path(sys.argv[0])), run_name="__main__")
