"""Writing YAML that every reader, of YAML 1.1 or 1.2, takes for the same data."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from mtf_config.errors import ConfigurationError, ValidationError
from mtf_config.plain import plain_problems, to_plain
from mtf_config.scalars import resolve_scalar

__all__ = ["dump_json", "dump_yaml", "savable"]

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def savable(config: Any, subject: str) -> dict[str, Any]:
    """A configuration as the plain data that can be written.

    Raises:
        ValidationError: something in it is not plain data.
    """
    data = to_plain(config)
    if not isinstance(data, dict):
        raise ConfigurationError.because(f"expected a configuration, found {type(config).__name__}", subject=subject)
    problems = list(plain_problems(data, ()))
    if problems:
        raise ValidationError(problems, subject=subject)
    return data


def dump_json(data: dict[str, Any]) -> str:
    """Plain data as indented JSON, which is YAML as well."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML, keys in their order, without anchors."""
    import yaml

    return str(yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110))


@cache
def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_string(dumper: Any, text: str) -> Any:
        # PyYAML quotes what YAML 1.1 would take for something else; this quotes what 1.2 would.
        style = '"' if _needs_quotes(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def represent_list(dumper: Any, items: list[Any]) -> Any:
        short = all(not isinstance(item, dict | list) for item in items) and len(repr(items)) < 90
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)

    Dumper.add_representer(str, represent_string)
    Dumper.add_representer(list, represent_list)
    return Dumper


def _needs_quotes(text: str) -> bool:
    if not text or text == "<<":
        return True
    try:
        return not isinstance(resolve_scalar(text), str)
    except ValueError:
        return True
