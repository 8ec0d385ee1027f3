"""What the examples share: their options, and the handwritten digits that come with scikit-learn."""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits


def read_options(text: str, *, name: str, epochs: int) -> argparse.Namespace:
    """The options of an example that trains: how long, and where its state lies.

    Args:
        text: the example's docstring; its first line describes it.
        name: of the example; its checkpoints lie in `checkpoints/<name>`.
        epochs: how many, if nothing else is said.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--checkpoints", default=f"checkpoints/{name}", help="continues what lies there")
    return parser.parse_args()


def load_images(*, held_out: int, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of shape (n, 8, 8) with shades from 0 to 16, and their labels; the same split in every process.

    Args:
        held_out: how many of the 1797 are kept for the validation.
        train: whether to return the others.
    """
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    chosen = order[held_out:] if train else order[:held_out]
    return torch.tensor(images)[chosen].reshape(-1, 8, 8), torch.tensor(labels, dtype=torch.int64)[chosen]
