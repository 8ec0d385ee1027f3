"""Train a model of `transformers` from its configuration: a small GPT-2 that learns to draw handwritten digits.

    pip install mtf-trainer transformers scikit-learn
    python examples/huggingface_model.py

Every image of scikit-learn's digits becomes a sentence: which digit it is, then its 64 pixels row by row, each as one
of 17 shades. No trainer of one's own is needed, since the model computes its loss from the batch by itself. It has what
such models have: tied embeddings, activation checkpointing, dropout. Kill it whenever you like and start it again.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, get_linear_schedule_with_warmup

from mtf_trainer import CheckpointConfig, GenericTrainer, GenericTrainerConfig, LoggingConfig, optimizer_steps
from support import load_images, read_options

SHADES = 17  # a pixel is 0 to 16; the tokens after these name the ten digits
SIDE = 8


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Digits as sequences of 1 + 64 tokens, with the keys that the model's forward has."""

    def __init__(self, *, train: bool) -> None:
        images, labels = load_images(held_out=200, train=train)
        self.tokens = torch.cat([labels[:, None] + SHADES, images.flatten(start_dim=1).long()], dim=1)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def build_model() -> GPT2LMHeadModel:
    """Two layers of width 48."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=SHADES + 10,
            n_positions=1 + SIDE * SIDE,
            n_embd=48,
            n_layer=2,
            n_head=4,
            bos_token_id=SHADES,
            eos_token_id=SHADES,
            use_cache=False,
        )
    )
    model.activation_checkpointing_enable()
    return model


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases and the gains of layer norms do not."""

    def group(parameters: Iterable[torch.nn.Parameter], decay: float) -> dict[str, object]:
        return {"params": list(parameters), "weight_decay": decay}

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        group((each for each in parameters if each.dim() >= 2), weight_decay),
        group((each for each in parameters if each.dim() < 2), 0.0),
    ]


@torch.no_grad()
def draw(model: GPT2LMHeadModel, digit: int) -> str:
    """An image of a digit, one likely shade after the other, as text."""
    model.eval()
    chance = torch.Generator(model.device).manual_seed(0)
    tokens = torch.tensor([[SHADES + digit]], device=model.device)
    for _ in range(SIDE * SIDE):
        logits = model(input_ids=tokens).logits[:, -1, :SHADES]
        shade = torch.multinomial((1.5 * logits).softmax(dim=-1), 1, generator=chance)
        tokens = torch.cat([tokens, shade], dim=1)
    rows = tokens[0, 1:].reshape(SIDE, SIDE).tolist()
    return "\n".join("".join(2 * " .:-=+*#%@"[shade * 9 // 16] for shade in row) for row in rows)


def main() -> None:
    """Train, then draw."""
    options = read_options(__doc__, name="huggingface_model", epochs=3)
    config = GenericTrainerConfig(
        epochs=options.epochs,
        max_grad_norm=1.0,
        seed=0,
        checkpoint=CheckpointConfig(checkpoint_dir=options.checkpoints, save_every_n_steps=10),
        logging=LoggingConfig(log_every_n_steps=5),
    )
    trainer = GenericTrainer(config)  # seeds every random stream: the model comes after it
    model = build_model()
    train_loader = DataLoader(Sentences(train=True), batch_size=32, shuffle=True)
    val_loader = DataLoader(Sentences(train=False), batch_size=100)
    optimizer = torch.optim.AdamW(decay_groups(model, weight_decay=0.01), lr=3e-3)
    total = optimizer_steps(len(train_loader), config)
    scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=total // 10, num_training_steps=total)
    trainer.fit(model, optimizer, train_loader, val_loader, scheduler)
    print(draw(trainer.model, digit=3))


if __name__ == "__main__":
    main()
