"""A progress bar on a terminal, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtf_trainer.state import ResumeState

__all__ = ["Progress"]


class Progress:
    """Counts optimizer steps; moves when metrics are recorded, so that it costs nothing in between.

    Args:
        total_steps: of the whole training; None when nobody knows.
    """

    def __init__(self, total_steps: int | None) -> None:
        self._total = total_steps
        self._bar: Any | None = None

    def open(self, state: ResumeState) -> None:
        """Begin at the step that the state has reached."""
        from tqdm.auto import tqdm  # looks for a notebook, which takes time that only a bar is worth

        self._bar = tqdm(total=self._total, initial=state.global_step, unit="step", disable=None, dynamic_ncols=True)

    def show(self, state: ResumeState, metrics: Mapping[str, float]) -> None:
        """Move to where the state is."""
        bar = self._bar
        if bar is None or bar.disable:
            return
        bar.set_description(f"epoch {state.epoch + 1}", refresh=False)
        bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()}, refresh=False)
        bar.update(state.global_step - bar.n)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.close()
