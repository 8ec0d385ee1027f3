"""JSON Schema of configuration files, generated from the dataclasses: for editors, and for checks by `jsonschema`.

Source: JSON Schema 2020-12.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin

from mtf_config.compose import EXTENDS
from mtf_config.errors import ConfigurationError
from mtf_config.formats import Format
from mtf_config.schema import ExperimentConfig
from mtf_config.slurm import ITEM_FORMATS, SLURMConfig
from mtf_config.sweep import SweepSpec
from mtf_utils.problems import Problem
from mtf_utils.settings import Settings, field_types

__all__ = ["experiment_schema", "schema_problems", "settings_schema", "sweep_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Final[Mapping[Any, str]] = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", None: "null",
}  # fmt: skip
_LIMITS: Final = {"minimum": "minimum", "above": "exclusiveMinimum", "maximum": "maximum", "below": "exclusiveMaximum"}
_REFERENCE: Final = {"type": "string", "pattern": r"^\$\{[^{}]+\}$"}


def experiment_schema(*, as_written: bool = False, partial: bool = False) -> dict[str, Any]:
    """The schema of an experiment.

    Args:
        as_written: accept what a file may hold before it is composed: `extends`, references, the deletion marker.
        partial: require no keys, as for a file that is a part of a configuration.
    """
    generator = _Generator(as_written=as_written, partial=partial)
    schema = generator.root(ExperimentConfig, "Experiment")
    schema["properties"]["version"]["type"] = ["string", "number"]
    if as_written:
        names = {"type": "array", "items": {"type": "string"}}
        schema["properties"][EXTENDS] = {
            "description": "A file, or several, relative to this one, that this one builds on.",
            "anyOf": [{"type": "string"}, names],
        }
        required = schema.pop("required", [])
        schema |= {"if": {"not": {"required": [EXTENDS]}}, "then": {"required": required}} if required else {}
    return schema


def sweep_schema() -> dict[str, Any]:
    """The schema of a sweep file."""
    return settings_schema(SweepSpec, "Sweep")


def settings_schema(cls: type[Settings], title: str) -> dict[str, Any]:
    """The schema of any settings class."""
    return _Generator(as_written=False, partial=False).root(cls, title)


def schema_problems(data: Any, schema: Mapping[str, Any] | None = None) -> list[Problem]:
    """What a JSON Schema says against data.

    Args:
        data: plain data.
        schema: a schema of the user's own, say for the keys of an open section; by default that of experiments.

    Raises:
        ConfigurationError: the schema itself is not valid.
    """
    validator = _own_validator() if schema is None else _validator(schema)
    errors = [leaf for error in validator.iter_errors(data) for leaf in _leaves(error)]
    return [Problem(tuple(error.absolute_path), error.message[:500], error.instance) for error in errors]


def _leaves(error: Any) -> Iterator[Any]:
    """The errors that say most: of alternatives, those within the one that is of the right kind."""
    branches: dict[Any, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    fitting = [inner for inner in branches.values() if all(e.validator != "type" or e.relative_path for e in inner)]
    if len(fitting) != 1:
        yield error
    else:
        for inner in fitting[0]:
            yield from _leaves(inner)


@cache
def _own_validator() -> Any:
    return _validator(experiment_schema())


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigurationError.because(f"not a JSON Schema: {error.message}", subject="schema") from error
    return Draft202012Validator(schema)


class _Generator:
    """Writes dataclasses as schemas; sections go to `$defs`."""

    def __init__(self, *, as_written: bool, partial: bool) -> None:
        self.as_written = as_written
        self.partial = partial
        self.definitions: dict[str, Any] = {}

    def root(self, cls: type[Settings], title: str) -> dict[str, Any]:
        body = self.section(cls)
        return {"$schema": _DIALECT, "title": title} | body | {"$defs": dict(sorted(self.definitions.items()))}

    def section(self, cls: type[Settings]) -> dict[str, Any]:
        annotations = field_types(cls)
        properties: dict[str, Any] = {}
        required = []
        for item in dataclasses.fields(cls):
            if cls.open and item.name == "extra":
                continue
            formats = ITEM_FORMATS if cls is SLURMConfig else {}
            properties[item.name] = self.field(item, annotations[item.name], formats.get(item.name))
            if item.default is item.default_factory and (cls, item.name) != (ExperimentConfig, "training"):
                required.append(item.name)
        for name, message in cls.renamed.items():
            properties[name] = {"not": {}, "description": message}
        schema: dict[str, Any] = {"type": "object", "description": (cls.__doc__ or "").split("\n")[0]}
        schema |= {"properties": properties, "additionalProperties": cls.open}
        return schema | ({"required": required} if required and not self.partial else {})

    def field(self, item: dataclasses.Field[Any], annotation: Any, items: Format | None) -> dict[str, Any]:
        metadata = item.metadata
        schema = self.kind(annotation, metadata)
        if items:
            schema["items"]["pattern"] = _whole(items)
        if self.as_written and not _is_string(annotation):
            schema = {"anyOf": [schema, _REFERENCE]}
        text = metadata.get("doc", "") + (f" Unit: {metadata['unit']}." if "unit" in metadata else "")
        default = _default(item)
        return {"description": text} | schema | ({} if default is dataclasses.MISSING else {"default": default})

    def kind(self, annotation: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if annotation is Any:
            return {}
        if origin in (Union, types.UnionType):
            return _any_of([self.kind(argument, metadata) for argument in arguments])
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (list, tuple):
            return {"type": "array", "items": self.kind(arguments[0], {})}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.kind(arguments[1], {})}
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return {"enum": [member.value for member in annotation]}
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            if annotation.__name__ not in self.definitions:
                self.definitions[annotation.__name__] = {}
                self.definitions[annotation.__name__] = self.section(annotation)
            return {"$ref": f"#/$defs/{annotation.__name__}"}
        return {"type": _SCALARS[annotation]} | _constraints(annotation, metadata)


def _constraints(annotation: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if annotation in (int, float):
        return {keyword: metadata[name] for name, keyword in _LIMITS.items() if name in metadata}
    if annotation is not str:
        return {}
    if choices := metadata.get("choices"):
        return {"enum": list(choices)}
    check = metadata.get("check")
    return {"pattern": _whole(check)} if isinstance(check, Format) else {}


def _any_of(alternatives: list[dict[str, Any]]) -> dict[str, Any]:
    """One of several; `T | None` as a list of types where that says it all."""
    plain = [item for item in alternatives if item != {"type": "null"}]
    if len(plain) == 1 and len(alternatives) == 2 and isinstance(plain[0].get("type"), str) and "enum" not in plain[0]:
        return plain[0] | {"type": [plain[0]["type"], "null"]}
    return {"anyOf": alternatives}


def _whole(pattern: Format) -> str:
    return f"^(?:{pattern.pattern})$"


def _is_string(annotation: Any) -> bool:
    return annotation is str or str in get_args(annotation)


def _default(item: dataclasses.Field[Any]) -> Any:
    value = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    if isinstance(value, Settings):
        return dataclasses.MISSING  # its own fields say it
    return value.value if isinstance(value, enum.Enum) else value
