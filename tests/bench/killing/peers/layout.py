"""The sizes of the task, for those who do not import torch."""

from __future__ import annotations

from typing import Final

EPOCHS: Final = 3
BATCH: Final = 2
WINDOW: Final = 4
"""Micro-batches in an optimizer step."""
SAVE_EVERY: Final = 5
"""Optimizer steps between checkpoints."""
TRAIN_SIZE: Final = 96
VAL_SIZE: Final = 12
STEPS: Final = EPOCHS * TRAIN_SIZE // (BATCH * WINDOW)
