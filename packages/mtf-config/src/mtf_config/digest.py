"""Hashing, with the modules that it needs loaded at the first use: they are a tenth of what importing may cost."""

from __future__ import annotations

__all__ = ["sha256_hex"]


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of some bytes as 64 hexadecimal digits."""
    import hashlib

    return hashlib.sha256(data).hexdigest()
