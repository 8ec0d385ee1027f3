"""The envelope of what a verb prints with `--json`, and the schemas that describe it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from mtf_utils.display import json_text

__all__ = ["SCHEMA_FOLDER", "VERSION", "output_schema", "print_json"]

VERSION: Final = 1
"""Of the schemas; it counts up when something is taken away or changes its meaning, not when something is added."""

SCHEMA_FOLDER: Final = "output_schemas"
"""Where a package keeps `<verb>.json` for each of its verbs, and `shared.json` for what several have in common."""

_SHARED: Final = "shared.json#/$defs/"


def print_json(verb: str, data: Mapping[str, Any]) -> None:
    """Print the answer of a verb as JSON: `{"verb": ..., "version": ..., "data": ...}`."""
    envelope = {"verb": verb, "version": VERSION, "data": data}
    sys.stdout.write(json_text(json.dumps(envelope, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")


def output_schema(package: str, verb: str) -> dict[str, Any] | None:
    """The JSON Schema of what a verb prints with `--json`, complete in itself; None if its package has none for it.

    Args:
        package: the import name of the package that brings the verb.
        verb: its name.
    """
    folder = resources.files(package).joinpath(SCHEMA_FOLDER)
    file, shared = folder.joinpath(f"{verb}.json"), folder.joinpath("shared.json")
    if not file.is_file():
        return None
    data = json.loads(file.read_text("utf-8"))
    common = json.loads(shared.read_text("utf-8"))["$defs"] if shared.is_file() else {}
    definitions: dict[str, Any] = {}
    envelope = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"mtf {verb} --json",
        "type": "object",
        "properties": {"verb": {"const": verb}, "version": {"const": VERSION}, "data": data},
        "required": ["verb", "version", "data"],
        "additionalProperties": False,
    }
    _bundle(data, common, definitions)
    return envelope | ({"$defs": definitions} if definitions else {})


def _bundle(node: Any, common: Mapping[str, Any], definitions: dict[str, Any]) -> None:
    """Turn references into the shared file into references within the schema, and gather what they refer to."""
    if isinstance(node, list):
        for item in node:
            _bundle(item, common, definitions)
    elif isinstance(node, dict):
        target = node.get("$ref")
        if isinstance(target, str) and target.startswith(_SHARED):
            name = target.removeprefix(_SHARED)
            node["$ref"] = f"#/$defs/{name}"
            if name not in definitions:
                definitions[name] = common[name]
                _bundle(definitions[name], common, definitions)
        for item in node.values():
            _bundle(item, common, definitions)
