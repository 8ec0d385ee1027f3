"""Where a run stands, for the person in front of it: a bar on a terminal or in a notebook, else a line now and then."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from mtf_trainer.state import ResumeState
from mtf_utils.display import printable

__all__ = ["Progress"]

logger = logging.getLogger(__name__)

REDRAW_S: Final = 0.25
SLOWEST_REDRAW_S: Final = 2.0
SHARE: Final = 0.002
"""How much of the training's time may go into drawing a bar, as long as that leaves one picture in two seconds."""

FIRST_LINES_S: Final = 10.0
LATER_LINES_S: Final = 60.0

Kind = Literal["auto", "bar", "lines", "off"]


class Progress:
    """Counts optimizer steps; moves when metrics are recorded, so that it costs nothing in between.

    A line says what a bar does: epoch, step, the metrics of the record, samples per second and the time that is left.
    Rates are those of this process: the time before a restart, and between two, is in none of them.

    Args:
        kind: `bar`, `lines` (through logging, the first at once, then every 10 s and later every minute), `off`, or
            `auto`: a bar where there is a terminal or a notebook, lines elsewhere.
        epochs: of the whole training.
        total_steps: of the whole training; None when nobody knows.
        clock: in seconds.
    """

    def __init__(
        self, kind: Kind, *, epochs: int, total_steps: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind = kind
        self.epochs = epochs
        self.total_steps = total_steps
        self._clock = clock
        self._bar: Any | None = None
        self._waiting: tuple[ResumeState, Mapping[str, float]] | None = None
        self._started_at = self._shown_at = 0.0
        self._redraw_s = REDRAW_S
        self._first_step = 0
        self._first_samples = 0.0

    def open(self, state: ResumeState) -> None:
        """Begin at the step that the state has reached."""
        if self._kind == "auto":
            self._kind = "bar" if sys.stderr.isatty() or _in_notebook() else "lines"
        self._started_at = self._clock()
        self._shown_at = -math.inf
        self._first_step, self._first_samples = state.global_step, state.samples
        if self._kind == "bar":
            from tqdm.auto import tqdm  # looks for a notebook, which takes time that only a bar is worth

            self._bar = tqdm(total=self.total_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def show(self, state: ResumeState, metrics: Mapping[str, float]) -> None:
        """Move to where the state is, unless that was just done."""
        if self._kind == "off":
            return
        now = self._clock()
        lines_s = min(max((now - self._started_at) / 10, FIRST_LINES_S), LATER_LINES_S)
        pause = lines_s if self._bar is None else self._redraw_s
        is_last = self._bar is not None and state.global_step == self.total_steps  # the last line comes with `close`
        if now - self._shown_at < pause and not is_last:
            self._waiting = state, metrics
            return
        self._shown_at, self._waiting = now, None
        self._draw(state, metrics, now - self._started_at)
        self._redraw_s = min(max((self._clock() - now) / SHARE, REDRAW_S), SLOWEST_REDRAW_S)

    def _draw(self, state: ResumeState, metrics: Mapping[str, float], elapsed: float) -> None:
        rate = (state.samples - self._first_samples) / elapsed if elapsed > 0 else math.nan
        shown = {printable(name): f"{value:.4g}" for name, value in metrics.items() if name != "samples_per_s"}
        if rate > 0:
            shown["samples/s"] = f"{rate:.4g}"
        if self._bar is None:
            logger.info("%s", self._line(state, shown, elapsed))
            return
        self._bar.set_description(f"epoch {min(state.epoch + 1, self.epochs)}/{self.epochs}", refresh=False)
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(state.global_step - self._bar.n)

    def _line(self, state: ResumeState, shown: Mapping[str, str], elapsed: float) -> str:
        total = "" if self.total_steps is None else f"/{self.total_steps}"
        parts = [f"epoch {min(state.epoch + 1, self.epochs)}/{self.epochs}", f"step {state.global_step}{total}"]
        parts += [f"{name} {value}" for name, value in shown.items()]
        done = state.global_step - self._first_step
        if self.total_steps is not None and done > 0:
            parts.append(f"{_duration((self.total_steps - state.global_step) * elapsed / done)} left")
        return ", ".join(parts)

    def close(self) -> None:
        """Show what is still to be shown, and leave the terminal in order."""
        if self._waiting is not None:
            self._draw(*self._waiting, self._clock() - self._started_at)
        if self._bar is not None:
            self._bar.close()
        self._bar = self._waiting = None


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this, whose standard error is no terminal but shows a bar all the same."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
