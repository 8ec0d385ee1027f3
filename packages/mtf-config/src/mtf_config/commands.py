"""The verbs of this package: `mtf validate`, `show`, `diff`, `schema`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mtf_config.compose import Composition
from mtf_config.errors import ConfigurationError, LocatedProblem
from mtf_config.manager import ConfigurationManager
from mtf_config.overrides import overridden
from mtf_config.reader import read_document
from mtf_config.setting_words import complete_keys, read_settings
from mtf_config.sweep import load_sweep
from mtf_config.writer import dump_yaml
from mtf_utils.arguments import completed_by
from mtf_utils.cli import DONE, USER_MISTAKE, WORK_FAILED, Command, CommandError
from mtf_utils.display import printable
from mtf_utils.output import output_schema, print_json
from mtf_utils.problems import KeyPath, Problem, describe, dotted
from mtf_utils.verbs import entry_point, known_verbs

__all__ = ["DIFF", "SCHEMA", "SHOW", "VALIDATE"]

_DIFFERENT: Final = WORK_FAILED
_CHECKED_POINTS: Final = 10_000
_DEFECT: Final = "valid, but not by the schema of `mtf schema`; that is a defect of mtf-config, please report it"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-dir", metavar="DIR", help="where relative paths are looked up first (default: ./configs)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _manager(arguments: argparse.Namespace) -> ConfigurationManager:
    return ConfigurationManager(Path.cwd(), arguments.config_dir)


def _configure_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a configuration or sweep file (YAML or JSON)")
    parser.add_argument("--schema", metavar="FILE", help="a JSON Schema of your own that experiments must meet as well")
    _common(parser)


def _validate(arguments: argparse.Namespace) -> int:
    manager = _manager(arguments)
    schema = read_document(Path(arguments.schema)).data if arguments.schema else None
    results = []
    defective = False
    for name in arguments.files:
        try:
            kind, defects, problems = *_check_file(name, manager, schema), list[Problem]()
        except ConfigurationError as error:
            kind, defects, problems = "unknown", [], list(error.problems)
            if not arguments.json:
                print(printable(str(error), lines=True))
        if not problems and not arguments.json:
            print(printable(f"{name}: a valid {kind}"))
        for defect in defects:
            defective = True
            print(printable(f"{name}: {_DEFECT}: {defect}", lines=True), file=sys.stderr)
        results.append(
            {"file": name, "kind": kind, "valid": not problems, "problems": [_as_json(item) for item in problems]}
        )
    if arguments.json:
        print_json("validate", {"files": results})
    if not all(result["valid"] for result in results):
        return USER_MISTAKE
    return WORK_FAILED if defective else DONE


def _check_file(
    name: str, manager: ConfigurationManager, schema: Mapping[str, Any] | None
) -> tuple[str, list[Problem]]:
    """What a valid file is, and what our own JSON Schema says against it all the same."""
    from mtf_config.json_schema import schema_problems, sweep_schema

    data = read_document(manager.find(name)).data
    if isinstance(data, Mapping) and "grids" in data:
        sweep = load_sweep(name, manager)
        points = sweep.search.get_point_count()
        defects = schema_problems(data, sweep_schema())
        if points <= _CHECKED_POINTS:
            return f"sweep of {sum(1 for _ in sweep.search.points())} runs", defects
        return f"sweep of up to {points} runs, of which the first is checked", defects
    composition = manager.composition(name)
    composition.experiment()
    if schema is not None:
        _meet_schema(composition, schema)
    return "experiment", schema_problems(composition.resolved())


def _meet_schema(composition: Composition, schema: Mapping[str, Any]) -> None:
    from mtf_config.json_schema import schema_problems

    if problems := schema_problems(composition.resolved(), schema):
        raise composition.error(problems)


def _as_json(problem: Problem) -> dict[str, Any]:
    written: dict[str, Any] = {
        "key": dotted(problem.path),
        "message": problem.message,
        "value": _json_value(problem.value),
        "suggestion": problem.suggestion,
    }
    source = problem.source if isinstance(problem, LocatedProblem) else None
    return written | (source._asdict() if source else {"file": None, "line": None, "column": None})


def _json_value(value: Any) -> Any:
    """A value that was found; what JSON does not have is described."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return describe(value)
    return value


def _configure_show(parser: argparse.ArgumentParser) -> None:
    words = parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE | KEY=VALUE",
        help="a base, then what goes over it: files, and settings with values as in YAML, such as training.epochs=3",
    )
    completed_by(words, complete_keys)
    parser.add_argument("--origin", action="store_true", help="say where each value comes from")
    parser.add_argument("--defaults", action="store_true", help="also show what no file says")
    _common(parser)


def _show(arguments: argparse.Namespace) -> int:
    files = [word for word in arguments.files if "=" not in word or Path(word).is_file()]
    if not files:
        raise CommandError("name a configuration file, before settings that go over it")
    base, *overrides = files
    settings = read_settings(word for word in arguments.files if word not in files)
    composition = overridden(_manager(arguments).composition(base, overrides), settings)
    experiment = composition.experiment()
    data = experiment.to_dict() if arguments.defaults else composition.resolved()
    if arguments.origin:
        _print_origins(composition, data, as_json=arguments.json)
    elif arguments.json:
        print_json("show", {"config": data, "origins": None})
    else:
        text = dump_yaml(data)
        print(printable(text, lines=True) if sys.stdout.isatty() else text, end="")
    return DONE


def _print_origins(composition: Composition, data: Mapping[str, Any], *, as_json: bool) -> None:
    rows = [(dotted(path), value, composition.origin(path)) for path, value in _leaves(data, ())]
    if as_json:
        print_json("show", {"config": data, "origins": {key: str(origin or "default") for key, _, origin in rows}})
        return
    texts = [
        (f"{key}: {json.dumps(value, ensure_ascii=False)}", str(origin or "default")) for key, value, origin in rows
    ]
    width = min(max((len(text) for text, _ in texts), default=0), 60)
    for text, origin in texts:
        print(printable(f"{text:{width}}  # {origin}"))


def _leaves(data: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _configure_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="FIRST", help="a configuration file")
    parser.add_argument("second", metavar="SECOND", help="another one")
    _common(parser)


def _diff(arguments: argparse.Namespace) -> int:
    from mtf_config.identity import run_identity

    manager = _manager(arguments)
    first, second = (manager.load_experiment(name) for name in (arguments.first, arguments.second))
    left, right = (dict(_leaves(config.to_dict(), ())) for config in (first, second))
    changes = [(path, path in left, left.get(path), path in right, right.get(path)) for path in {**left, **right}]
    changes = [change for change in changes if change[1:3] != change[3:]]
    same_run = run_identity(first) == run_identity(second)
    if arguments.json:
        entries = [{"key": dotted(path), "first": a, "second": b} for path, _, a, _, b in changes]
        print_json("diff", {"same_run": same_run, "changes": entries})
    else:
        for path, in_left, a, in_right, b in changes:
            old, new = _shown(in_left, a), _shown(in_right, b)
            print(printable(f"{dotted(path)}: {old} -> {new}"))
        print("the same run" if same_run else "different runs")
    return _DIFFERENT if changes else DONE


def _shown(present: bool, value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if present else "(absent)"


def _configure_schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sweep", action="store_true", help="of sweep files rather than of experiments")
    parser.add_argument("--partial", action="store_true", help="require no keys, for files that are parts of others")
    output = parser.add_argument("--output", metavar="VERB", help="of what a verb prints with --json")
    completed_by(output, lambda before: known_verbs())


def _schema(arguments: argparse.Namespace) -> int:
    from mtf_config.json_schema import experiment_schema, sweep_schema

    if arguments.output is not None:
        print(json.dumps(_schema_of_output(arguments.output), indent=2, ensure_ascii=False))
        return DONE
    schema = sweep_schema() if arguments.sweep else experiment_schema(as_written=True, partial=arguments.partial)
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return DONE


def _schema_of_output(verb: str) -> dict[str, Any]:
    entry = entry_point(verb)
    schema = output_schema(entry.value.partition(".")[0], verb)
    if schema is None:
        raise CommandError(f"mtf {verb} has no --json")
    return schema


VALIDATE: Final = Command("check configuration files; every problem with its line", _configure_validate, _validate)
SHOW: Final = Command("print a configuration as it is composed", _configure_show, _show)
DIFF: Final = Command("compare two configurations, defaults included; status 1 if they differ", _configure_diff, _diff)
SCHEMA: Final = Command("print the JSON Schema of a configuration, for editors", _configure_schema, _schema)
