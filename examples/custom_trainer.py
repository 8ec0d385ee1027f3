"""Write a trainer of one's own: a residual network on handwritten digits, with a step, metrics and a state of its own.

    pip install mtf-trainer scikit-learn
    python examples/custom_trainer.py

The step mixes images (mixup) and weighs the classes by how hard they were so far; the validation counts what is taken
for what. All of that survives a kill: the mixing draws from the streams that the trainer restores, the difficulty is a
registered state, the counts are a metric object.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    EarlyStopping,
    GenericTrainer,
    GenericTrainerConfig,
    GradientNorm,
    LoggingConfig,
    optimizer_steps,
)
from support import load_images, read_options

CLASSES = 10


class Digits(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images of shape (1, 8, 8) in [0, 1] and labels; a training image is shifted and made noisy at random."""

    def __init__(self, *, train: bool) -> None:
        images, self.labels = load_images(held_out=300, train=train)
        self.images = images[:, None].float() / 16
        self.train = train

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        if self.train:
            down, right = torch.randint(-1, 2, (2,)).tolist()
            image = image.roll((down, right), dims=(1, 2)) + 0.05 * torch.randn(image.shape)
        return image, self.labels[index]


class BasicBlock(nn.Module):
    """Two convolutions and a way around them. Source: He et al., Deep Residual Learning, 2015."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        hidden = functional.relu(self.bn1(self.conv1(images)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.downsample(images))


class ResNet(nn.Module):
    """A stem, three stages of residual blocks, and a linear layer on their mean: (batch, 1, 8, 8) to (batch, 10)."""

    def __init__(self, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths, stages = [width, width, 2 * width, 4 * width], []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            stages += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2)]
            stages += [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = self.head(self.stages(self.stem(images)).mean(dim=(2, 3)))
        return logits


class Difficulty:
    """A running mean of the loss of every class; what is difficult weighs more."""

    def __init__(self, decay: float = 0.95) -> None:
        self.decay = decay
        self.losses = torch.ones(CLASSES)

    def update(self, losses: torch.Tensor, labels: torch.Tensor) -> None:
        """Take the losses of a batch, one per sample."""
        for label in set(labels.tolist()):
            mean = losses[labels == label].mean().cpu()
            self.losses[label] = self.decay * self.losses[label] + (1 - self.decay) * mean

    def weights(self) -> torch.Tensor:
        """One weight per class, 1 on average."""
        softened = self.losses.sqrt()
        return softened / softened.mean()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        self.losses = state["losses"]


class Confusion:
    """Counts what is taken for what, and computes what no mean of batches gives: the worst recall of a class."""

    def __init__(self) -> None:
        self.counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a batch."""
        cells = labels * CLASSES + logits.argmax(dim=1)
        self.counts += torch.bincount(cells.cpu(), minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def compute(self) -> dict[str, float]:
        """The accuracy, and the recall of the class that is recognised worst."""
        right, all_ = self.counts.diagonal(), self.counts.sum(dim=1).clamp(min=1)
        return {"accuracy": (right.sum() / all_.sum()).item(), "worst_recall": (right / all_).min().item()}

    def reset(self) -> None:
        """Forget everything."""
        self.counts = torch.zeros_like(self.counts)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, also in the middle of a validation."""
        return {"counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        self.counts = state["counts"]


class MixupTrainer(GenericTrainer):
    """Classification with mixup, and with weights for the classes that are difficult.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017.
    """

    def __init__(self, config: GenericTrainerConfig, *, alpha: float = 0.2) -> None:
        super().__init__(config)
        self.mixing = torch.distributions.Beta(alpha, alpha)
        self.difficulty = Difficulty()
        self.register_state("difficulty", self.difficulty)
        self.confusion = Confusion()
        self.add_metric("class", self.confusion)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The loss of mixed images against both of their labels."""
        images, labels = batch
        share = self.mixing.sample().item()
        partners = torch.randperm(len(images), device=images.device)
        logits = self.model(share * images + (1 - share) * images[partners])
        weights = self.difficulty.weights().to(logits.device)
        own = functional.cross_entropy(logits, labels, weights, reduction="none")
        other = functional.cross_entropy(logits, labels[partners], weights, reduction="none")
        losses = share * own + (1 - share) * other
        self.difficulty.update(losses.detach(), labels)
        return {"loss": losses.mean(), "share": share}

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The plain loss; the metric object collects the rest."""
        images, labels = batch
        logits = self.model(images)
        self.confusion.update(logits, labels)
        return {"loss": functional.cross_entropy(logits, labels)}


def main() -> None:
    """Train, then say which class is the most difficult."""
    options = read_options(__doc__, name="custom_trainer", epochs=8)
    config = GenericTrainerConfig(
        epochs=options.epochs,
        max_grad_norm=5.0,
        seed=0,
        checkpoint=CheckpointConfig(
            checkpoint_dir=options.checkpoints, monitor="val_class_accuracy", mode="max", save_every_n_steps=10
        ),
        logging=LoggingConfig(log_every_n_steps=5),
    )
    trainer = MixupTrainer(config)  # seeds every random stream: the model comes after it
    model = ResNet()
    train_loader = DataLoader(Digits(train=True), batch_size=64, shuffle=True, drop_last=True)
    val_loader = DataLoader(Digits(train=False), batch_size=100)
    total = optimizer_steps(len(train_loader), config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total)
    trainer.add_callback(EMA(0.98))
    trainer.add_callback(EarlyStopping("val_loss", patience=6))
    trainer.add_callback(GradientNorm())
    trainer.fit(model, optimizer, train_loader, val_loader, scheduler)
    losses = trainer.difficulty.losses
    print(f"the most difficult digit was {losses.argmax().item()}, with a mean loss of {losses.max():.2f}")


if __name__ == "__main__":
    main()
