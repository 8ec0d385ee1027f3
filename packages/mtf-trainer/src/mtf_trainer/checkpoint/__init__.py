"""Checkpoints: folders of safetensors and JSON, written durably, verified to the last byte, kept while needed.

The format is described in `docs/checkpoint-format.md`.
"""

from __future__ import annotations

from mtf_trainer.checkpoint.decoding import decode
from mtf_trainer.checkpoint.encoding import encode
from mtf_trainer.checkpoint.faults import DamagedCheckpointError
from mtf_trainer.checkpoint.folder import Checkpoint, Snapshot, read_checkpoint, write_checkpoint
from mtf_trainer.checkpoint.manifest import Kind, Manifest, read_manifest
from mtf_trainer.checkpoint.store import CheckpointStore

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "DamagedCheckpointError",
    "Kind",
    "Manifest",
    "Snapshot",
    "decode",
    "encode",
    "read_checkpoint",
    "read_manifest",
    "write_checkpoint",
]
