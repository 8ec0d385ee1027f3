"""Pages of the reference that are made from the code: every setting, every verb of `mtf`, every file of a sweep.

Usage:
    reference.py           say which pages are not as the code is; the status is 1 if there are any
    reference.py --write   write them
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtf_config.json_schema import experiment_schema, settings_schema, sweep_schema
from mtf_slurm.testing import ClusterSettings
from mtf_trainer import GenericTrainerConfig
from mtf_utils.arguments import parser_of, subparsers_of
from mtf_utils.rundir import CONTRACT
from mtf_utils.verbs import VERBS, load

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

SETTINGS = """\
# Every setting

What a configuration may say, made from the code by `hatch run reference`; `mtf schema` prints the same as JSON Schema,
for editors and programs. What it means to leave a key out stands under *default*; *required* keys have none. How files
become a configuration, and which sections take keys of your own: [Configuration](configuration.md).
"""

SWEEPS = """\
## A sweep file

How its parts work together: [Sweeps](sweeps.md).
"""

TRAINER = """\
## GenericTrainerConfig

What a script tells the trainer in Python. The sections `checkpoint`, `preemption`, `performance`, `distributed` and
`logging` are those of an experiment, above.
"""

CLUSTER = """\
## ClusterSettings

What a [throw-away cluster](local-cluster.md) pretends to be.
"""

COMMANDS = """\
# The command line

Every verb of `mtf`, made from the code by `hatch run reference`; `mtf VERB --help` prints the same. A verb is there
when its package is installed. Options may stand anywhere, and `mtf completion bash` (or `zsh`, `fish`) lets your shell
complete verbs, options and names of runs.

The exit status is 0 when it is done, 1 when the work failed, 2 for a mistake in what was asked, 3 when the cluster
could not be reached, and 130 after Ctrl-C. What `--json` prints is told in [Output for programs](json.md).

| variable of the environment | what it does |
|---|---|
| `MTF_DEBUG=1` | errors come with their trace |
| `NO_COLOR`, `TERM=dumb` | no colours |
| `MTF_NO_INSTALL=1` | `python -m mtf_slurm.testing.install` installs nothing, and says what is missing |
| `CUDA_VISIBLE_DEVICES` | the GPUs that runs on this machine share |
| `SBATCH_ACCOUNT`, … | [what a template and the experiment leave open](slurm.md#a-template-of-your-own) |
| `MTF_CONFIG`, `MTF_RUN_DIR`, … | [what a run is told](running.md#what-a-run-is-told) |
| `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, … | [where ranks meet](distributed.md#who-meets-where); torchrun sets them |
| `SUBMITIT_PREEMPT_SIGNAL` | one more signal that a training takes for a preemption |
"""

FILES = """\
# The files of a sweep

What lies in the folder of a sweep, made from the code by `hatch run reference`. `<name>` is that of a run, `<n>` the
number of an attempt, `<token>` a submission, `<k>` a job of it. A number in brackets is the version of what a JSON file
says; its keys are those of the record classes in [`mtf_utils.rundir`](api/utils.md).

"""


def row(*cells: str) -> str:
    """A line of a table; what is no code in it is text to the letter."""
    return f"| {' | '.join(map(literal, cells))} |\n"


def literal(cell: str) -> str:
    """The content of a cell, with what Markdown and HTML would take for something else written so that they do not."""
    parts = re.split(r"(`[^`]+`)", cell)
    parts[::2] = [part.replace("<", "&lt;").replace("*", r"\*") for part in parts[::2]]
    return "".join(parts).replace("|", r"\|")


def table(*titles: str) -> str:
    """The head of a table."""
    return row(*titles) + "|---" * len(titles) + "|\n"


def kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind(item) for item in schema["anyOf"])
    named = schema.get("type", "anything")
    if isinstance(named, list):
        return " or ".join(kind({**schema, "type": name}) for name in named)
    if named == "array":
        inner = kind(schema["items"])
        return f"list of {inner}{'' if inner == 'anything' else 's'}"
    words = {"object": "mapping", "boolean": "true or false"}.get(named, str(named))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    if named not in ("integer", "number"):
        return words
    limits = [f"{sign} {short(schema[key])}" for key, sign in signs.items() if key in schema]
    return f"{words} {', '.join(limits)}".rstrip()


def short(number: float) -> str:
    """A number; a power of two that nobody would recognise as one."""
    return f"2^{number.bit_length() - 1}" if isinstance(number, int) and number > 1 << 32 else str(number)


def keys(schema: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table of the keys of a section."""
    yield table("key", "value", "default", "meaning")
    required = schema.get("required", ())
    for name, item in schema["properties"].items():
        if "$ref" in str(item) or "not" in item:
            continue
        default = "required" if name in required else f"`{json.dumps(item['default'])}`" if "default" in item else ""
        yield row(f"`{name}`", kind(item), default, item["description"])
    if schema["additionalProperties"]:
        yield row("…", "anything", "", "Keys of your own.")


def sections(schema: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A heading and a table for every section below one."""
    for name, item in schema["properties"].items():
        text = json.dumps(item)
        if "#/$defs/" not in text:
            continue
        inner = known[text.partition("#/$defs/")[2].partition('"')[0]]
        yield f"\n### `{prefix}{name}`\n\n{inner['description']}\n\n{''.join(keys(inner))}"
        yield from sections(inner, known, f"{prefix}{name}.")


def settings_page() -> str:
    """Every key of a configuration, of a sweep file, and of what is told in Python alone."""
    experiment, sweep = experiment_schema(), sweep_schema()
    parts = [SETTINGS, "\n## An experiment\n\n", *keys(experiment), *sections(experiment, experiment["$defs"])]
    parts += ["\n", SWEEPS, "\n", *keys(sweep), *sections(sweep, sweep["$defs"])]
    for text, cls in ((TRAINER, GenericTrainerConfig), (CLUSTER, ClusterSettings)):
        parts += ["\n", text, "\n", *keys(settings_schema(cls, cls.__name__))]
    return "".join(parts)


def words(action: argparse.Action) -> str:
    """An argument as it is typed."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    many = {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …"}.get(str(action.nargs), str(value))
    if not action.option_strings:
        return f"`{many}`"
    shown = "" if action.nargs == 0 else f" {many}"
    return f"`{', '.join(action.option_strings)}{shown}`"


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The lines of a table of the arguments of a verb."""
    formatter = parser._get_formatter()
    shown = [action for action in parser._actions if action.help not in (None, argparse.SUPPRESS)]
    shown = [action for action in shown if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)]
    if shown:
        yield "\n" + table("argument", "meaning")
        yield from (row(words(action), formatter._expand_help(action)) for action in shown)


def commands_page() -> str:
    """Every verb with its arguments."""
    parts = [COMMANDS]
    for name, verb in VERBS.items():
        parser = parser_of(name, load(name))
        parts += [f"\n## mtf {name}\n\n{sentence(parser.description or verb.help)}\n", *arguments(parser)]
        for inner, own in subparsers_of(parser).items():
            parts += [f"\n### mtf {name} {inner}\n\n{sentence(own.description or '')}\n", *arguments(own)]
    return "".join(parts)


def sentence(text: str) -> str:
    """A help text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def files_page() -> str:
    """Every file of a sweep's folder."""
    lines = [
        row(f"`{each.path}`", each.content + (f" ({each.version})" if each.version else ""), each.writer, each.readers)
        for each in CONTRACT
    ]
    return "".join([FILES, table("file", "holds", "written by", "read by"), *lines])


PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "settings.md": settings_page,
    DOCS / "command-line.md": commands_page,
    DOCS / "files.md": files_page,
}


def main() -> int:
    """Run the command line; 0 if the pages are as the code is, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        for page, made in PAGES.items():
            page.write_text(made(), "utf-8")
    stale = [page for page, made in PAGES.items() if not page.exists() or page.read_text("utf-8") != made()]
    for page in stale:
        print(f"{page.relative_to(ROOT)} is not as the code is: hatch run reference", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
