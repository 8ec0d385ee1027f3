"""Models of `transformers`, built from their configurations, with what their users do; skipped where it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mtf_trainer import (
    EMA,
    CheckpointConfig,
    CheckpointStore,
    GenericTrainer,
    GenericTrainerConfig,
    LoggingConfig,
    TrainerError,
    TrainingCallback,
    TrainingPreempted,
    attestation,
    load_weights,
)

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None,
        reason="needs transformers: hatch run examples:test has it",
    ),
    pytest.mark.slow,
]

VOCABULARY, LENGTH = 20, 7


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=8, n_layer=2, n_head=2))


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=3, **sizes))
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    return model


def checkpointing_gpt2() -> Any:
    model = gpt2()
    model.activation_checkpointing_enable()
    return model


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes))


def samples(model: Any, count: int = 24) -> list[dict[str, torch.Tensor]]:
    source = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        tokens = torch.randint(0, VOCABULARY, (LENGTH,), generator=source)
        labels = tokens[0] % 3 if "Classification" in type(model).__name__ else tokens
        found.append({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels})
    return found


def encode(samples: list[dict[str, torch.Tensor]]) -> Any:
    """A batch as a tokenizer gives it."""
    from transformers import BatchEncoding

    return BatchEncoding({key: torch.stack([sample[key] for sample in samples]) for key in samples[0]})


class PreemptedAt(TrainingCallback):
    """Asks to be stopped after some batches of this process."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch_end(self, trainer: GenericTrainer, batch_idx: int, logs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            trainer._session.flag.request("SIGTERM")


def train(
    folder: Path, build: Callable[[], Any], *, stop_after: int | None = None, collate: Any = encode, **settings: Any
) -> GenericTrainer:
    from transformers import get_linear_schedule_with_warmup

    config = GenericTrainerConfig(
        epochs=2,
        seed=4,
        gradient_accumulation_steps=2,
        max_grad_norm=1.0,
        checkpoint=CheckpointConfig(checkpoint_dir=str(folder)),
        logging=LoggingConfig(log_every_n_steps=1, progress="off"),
        **settings,
    )
    trainer = GenericTrainer(config)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer.add_callback(EMA(0.9))
    if stop_after is not None:
        trainer.add_callback(PreemptedAt(stop_after))
    loader = DataLoader(samples(model), batch_size=4, shuffle=True, collate_fn=collate)
    val = DataLoader(samples(model, 8), batch_size=4, collate_fn=collate)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=6)
    trainer.fit(model, optimizer, loader, val, schedule)
    return trainer


def state(folder: Path) -> attestation.Digests:
    with CheckpointStore(folder, CheckpointConfig(), run_id=None) as store:
        checkpoint = store.newest()
    assert checkpoint is not None
    return attestation.digests(checkpoint.sections)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("build", [gpt2, checkpointing_gpt2, bert, t5])
def test_stopped_in_mid_accumulation_and_continued(tmp_path: Path, build: Any, precision: str) -> None:
    train(tmp_path / "whole", build, precision=precision)
    for batches in (3, 4):
        with pytest.raises(TrainingPreempted):
            train(tmp_path / "stopped", build, stop_after=batches, precision=precision)
    train(tmp_path / "stopped", build, precision=precision)
    assert state(tmp_path / "stopped") == state(tmp_path / "whole")


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    trainer = train(tmp_path, gpt2)
    again = train(tmp_path, gpt2).model
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(again.lm_head.weight, trainer.model.lm_head.weight)
    newest = max(tmp_path.glob("ckpt-*"))
    size = sum(parameter.nbytes for parameter in trainer.model.parameters())
    stored = sum(file.stat().st_size for file in newest.glob("model*.safetensors"))
    assert 0 < stored < size + 16_000, [file.name for file in newest.iterdir()]
    fresh = gpt2()
    load_weights(fresh, newest)
    assert torch.equal(fresh.transformer.wte.weight, trainer.model.lm_head.weight)


def test_frozen_parameters_stay_frozen_and_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(TrainingPreempted):
        train(tmp_path, bert, stop_after=3)
    model = train(tmp_path, bert).model
    assert not any(parameter.requires_grad for parameter in model.bert.embeddings.parameters())
    assert all(parameter.requires_grad for parameter in model.classifier.parameters())


def test_a_step_may_return_what_the_model_returns(tmp_path: Path) -> None:
    class Whole(GenericTrainer):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(**batch)

    trainer = Whole(GenericTrainerConfig(epochs=1, seed=1, checkpoint=CheckpointConfig(checkpoint_dir=str(tmp_path))))
    model = bert()
    loader = DataLoader(samples(model, 8), batch_size=4, collate_fn=encode)
    with pytest.raises(TrainerError, match="'logits' with shape"):
        trainer.fit(model, torch.optim.AdamW(model.parameters()), loader)


def test_a_validation_without_labels_says_what_to_do(tmp_path: Path) -> None:
    trainer = GenericTrainer(
        GenericTrainerConfig(epochs=1, seed=1, checkpoint=CheckpointConfig(checkpoint_dir=str(tmp_path)))
    )
    model = bert()
    loader = DataLoader(samples(model, 8), batch_size=4)
    bare = [{key: value for key, value in sample.items() if key != "labels"} for sample in samples(model, 8)]
    with pytest.raises(TrainerError, match=r"returned no loss.*labels.*validation_step"):
        trainer.fit(model, torch.optim.AdamW(model.parameters()), loader, DataLoader(bare, batch_size=4))


@dataclass
class Pair:
    """A batch as one's own class."""

    tokens: torch.Tensor
    labels: torch.Tensor


def test_a_dataclass_as_batch_counts_its_samples(tmp_path: Path) -> None:
    class Paired(GenericTrainer):
        def training_step(self, batch: Pair, batch_idx: int) -> Any:
            return {"loss": self.model(input_ids=batch.tokens, labels=batch.labels).loss}

    def collate(samples: list[dict[str, torch.Tensor]]) -> Pair:
        encoded = encode(samples)
        return Pair(encoded["input_ids"], encoded["labels"])

    trainer = Paired(GenericTrainerConfig(epochs=1, seed=1, checkpoint=CheckpointConfig(checkpoint_dir=str(tmp_path))))
    model = bert()
    loader = DataLoader(samples(model, 9), batch_size=4, collate_fn=collate)
    trainer.fit(model, torch.optim.AdamW(model.parameters()), loader)
    assert trainer.state.samples == 9
