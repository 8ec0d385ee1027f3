"""Real experiments as plain data, and their identities as the interpreters of this machine compute them."""

from __future__ import annotations

from typing import Any, Final

from config_pythons import identities, interpreters, shuffled
from config_support import DATA, MINIMAL

from mtf_config.reader import read_document

__all__ = ["EXPERIMENTS", "identities", "interpreters", "shuffled"]

EXPERIMENTS: Final[list[dict[str, Any]]] = [MINIMAL, *(read_document(path).data for path in sorted(DATA.iterdir()))]
