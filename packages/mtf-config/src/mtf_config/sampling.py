"""Random values as a function of (seed, key, index): the same on every machine, in any order, without a generator."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mtf_config.digest import sha256_hex
from mtf_config.errors import ValidationError
from mtf_utils.settings import Problem, Settings, SettingsError, about

__all__ = ["Range"]


@dataclass
class Range(Settings):
    """The range of a parameter that is sampled; both ends belong to it."""

    error: ClassVar[type[SettingsError]] = ValidationError

    low: float = field(metadata=about("The smallest value."))
    high: float = field(metadata=about("The largest value."))
    scale: Literal["linear", "log", "integer"] = field(
        default="linear",
        metadata=about("linear and log: numbers, evenly spread in value or in logarithm; integer: whole numbers."),
    )

    def cross_checks(self) -> Iterable[Problem]:
        """The ends are in order, and fit the scale."""
        if self.low > self.high:
            yield Problem(("high",), f"expected a number >= low ({self.low}), found {self.high}", self.high)
        if self.scale == "log" and self.low <= 0:
            yield Problem(("low",), f"expected a number > 0 for a log scale, found {self.low}", self.low)
        if self.scale == "integer":
            for name, value in (("low", self.low), ("high", self.high)):
                if not value.is_integer():
                    yield Problem((name,), f"expected a whole number for an integer scale, found {value}", value)

    def sample(self, seed: int, key: str, index: int) -> int | float:
        """The value of a parameter at an index.

        Numbers are rounded to six significant digits, so that the last bit of a logarithm, which differs between
        machines, does not make another run.
        """
        u = _uniform(seed, key, index)
        if self.scale == "integer":
            low, high = int(self.low), int(self.high)
            return min(high, low + math.floor(u * (high - low + 1)))
        if self.scale == "log":
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return min(self.high, max(self.low, float(f"{value:.6g}")))


def _uniform(seed: int, key: str, index: int) -> float:
    """A number in [0, 1) with 53 random bits."""
    digest = sha256_hex(f"{seed}\n{key}\n{index}".encode("utf-8", "surrogatepass"))
    return (int(digest[:16], 16) >> 11) / 2**53
