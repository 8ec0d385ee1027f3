"""Guards against running in circles: what became of a run's attempts, and when another one makes no sense."""

from __future__ import annotations

from mtf_trainer.guard.circumstances import circumstances
from mtf_trainer.guard.guard import REMEDY, Guard
from mtf_trainer.guard.ledger import AttemptRecord, Ledger
from mtf_trainer.guard.place import Fault, Place
from mtf_trainer.guard.trail import Trail

__all__ = ["REMEDY", "AttemptRecord", "Fault", "Guard", "Ledger", "Place", "Trail", "circumstances"]
