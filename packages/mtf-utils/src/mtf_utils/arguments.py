"""Arguments of a verb: a parser that knows what somebody meant, and what a shell may complete."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NoReturn

from mtf_utils.command import Command
from mtf_utils.names import nearest

__all__ = ["Completer", "Parser", "completed_by", "completer_of", "parser_of", "subparsers_of"]

Completer = Callable[[Sequence[str]], Iterable[str]]
"""What may stand in an argument's place, given the words of the command line before it."""

_ATTRIBUTE: Final = "mtf_completer"
_BAD_CHOICE: Final = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<known>.*)\)", re.DOTALL)


def completed_by(action: argparse.Action, completer: Completer) -> None:
    """Let shells complete an argument with what a function returns; without one they offer its choices, or files."""
    setattr(action, _ATTRIBUTE, completer)


def completer_of(action: argparse.Action) -> Completer | None:
    """What `completed_by` has set."""
    completer: Completer | None = getattr(action, _ATTRIBUTE, None)
    return completer


def subparsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a verb's own verbs, by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest option or choice, and that takes options before, between and behind."""

    def parse_words(self, words: list[str]) -> argparse.Namespace:
        """The arguments; ends the process with a message and status 2 if they make no sense."""
        if "--" in words or any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions):
            # behind -- nothing is an option, which argparse forgets where it parses twice; and it refuses to parse
            # twice where words belong to somebody else
            arguments, unknown = self.parse_known_args(words)
        else:
            arguments, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """End with usage, the message and, if one of few words was expected, the nearest."""
        if found := _BAD_CHOICE.search(message):
            guess = nearest(found["word"], re.findall(r"[\w.+-]+", found["known"]))
            message += f"; did you mean {guess!r}?" if guess else ""
        super().error(message)

    def _meant(self, unknown: Sequence[str]) -> str:
        known = list(_options(self))
        names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        guesses = [guess for name in names if (guess := nearest(name, known))]
        return f"; did you mean {', '.join(dict.fromkeys(guesses))}?" if guesses else ""


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (text for action in parser._actions for text in action.option_strings if text.startswith("--"))
    for inner in subparsers_of(parser).values():
        yield from _options(inner)


def parser_of(verb: str, command: Command) -> Parser:
    """The parser of a verb's arguments."""
    parser = Parser(prog=f"mtf {verb}", description=command.help, allow_abbrev=False)
    command.configure(parser)
    for action in parser._actions:
        if action.nargs in (argparse.ZERO_OR_MORE, argparse.REMAINDER):
            action.required = False  # argparse names them among what is missing, though there may be none
    return parser
