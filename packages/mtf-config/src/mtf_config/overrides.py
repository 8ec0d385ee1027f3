"""Settings over what files say: dotted keys that win, as they come from a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mtf_config.compose import Composition, parameter_layer
from mtf_config.errors import ConfigurationError, ValidationError
from mtf_config.keys import unknown_key

__all__ = ["COMMAND_LINE", "overridden"]

COMMAND_LINE: Final = "command line"
"""What errors and origins call such settings."""


def overridden(composition: Composition, settings: Mapping[str, Any], varied: Sequence[str] = ()) -> Composition:
    """The composition with settings over it.

    Args:
        composition: what files say.
        settings: dotted key → value.
        varied: keys that grids set at every point, so that a setting would not count.

    Raises:
        ValidationError: a key is not known.
        ConfigurationError: a key is one that varies.
    """
    if problems := [problem for key in settings if (problem := unknown_key(key, composition.data))]:
        raise ValidationError(problems, subject=COMMAND_LINE)
    for key in settings:
        if clash := next((other for other in varied if _overlap(key, other)), None):
            raise ConfigurationError.because(
                f"{key}: the sweep varies {clash}, which would win; change its values in the sweep file",
                subject=COMMAND_LINE,
            )
    return Composition([*composition.layers, parameter_layer(settings, COMMAND_LINE)]) if settings else composition


def _overlap(first: str, second: str) -> bool:
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")
