"""The verb `mtf completion`: scripts for bash, zsh and fish, and the words that they offer."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mtf_utils.arguments import completer_of, parser_of, subparsers_of
from mtf_utils.command import DONE, Command
from mtf_utils.verbs import known_verbs, load

__all__ = ["COMPLETION", "candidates"]

_BASH: Final = r"""# mtf completion for bash; in ~/.bashrc: eval "$(mtf completion bash)"
_mtf() {
    local line
    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        COMPREPLY+=("$line")
    done < <("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o default -F _mtf mtf
"""

_ZSH: Final = r"""# mtf completion for zsh; in ~/.zshrc, after compinit: eval "$(mtf completion zsh)"
_mtf() {
    local -a values displays
    local value description
    while IFS=$'\t' read -r value description; do
        values+=("$value")
        displays+=("${value}${description:+  -- $description}")
    done < <("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#values} )); then
        if [[ ${#values} -eq 1 && ${values[1]} == *= ]]; then
            compadd -S '' -d displays -l -- "${values[@]}"
        else
            compadd -d displays -l -- "${values[@]}"
        fi
    else
        _files
    fi
}
compdef _mtf mtf
"""

_FISH: Final = r"""# mtf completion for fish: mtf completion fish > ~/.config/fish/completions/mtf.fish
function __mtf_words
    set -l done (commandline -opc)
    set -l word (commandline -ct)
    set -l found (command $done[1] completion words $done[2..-1] "$word" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$word"
    end
end
complete -c mtf -f -a '(__mtf_words)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def candidates(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the last word may be, each with a few words about it; nothing where a file is expected.

    Args:
        words: of the command line behind `mtf`; the last one is being typed, and may be empty.
    """
    *before, word = _unsplit(words) or [""]
    yield from (item for item in _offers(list(before), word) if item[0].startswith(word) and item[0] != word)


def _unsplit(words: Sequence[str]) -> list[str]:
    """The words without the equals signs at which bash splits `--state=RUNNING` and `key=value`."""
    left: list[str] = []
    for index, word in enumerate(words):
        if word != "=":
            left.append(word)
        elif left and not left[-1].startswith("-"):
            left[-1] += "="
        elif index == len(words) - 1:
            left.append("")
    return left


def _offers(before: list[str], word: str) -> Iterator[tuple[str, str]]:
    if not before or before == ["help"]:
        yield from known_verbs().items()
        if not before and word.startswith("-"):
            yield from (("--help", "all verbs"), ("--version", "what is installed"))
        return
    parser: argparse.ArgumentParser = parser_of(before[0], load(before[0]))
    rest = before[1:]
    while inner := subparsers_of(parser):
        place = next((index for index, text in enumerate(rest) if text in inner), None)
        if place is None:
            yield from ((name, own.description or "") for name, own in inner.items())
            break
        parser, rest = inner[rest[place]], rest[place + 1 :]
    yield from _offers_of(parser, rest, word)


def _offers_of(parser: argparse.ArgumentParser, before: list[str], word: str) -> Iterator[tuple[str, str]]:
    previous = before[-1] if before else ""
    for action in parser._actions:
        if previous in action.option_strings and action.nargs != 0:
            yield from _values(action, before)
            return
    if word.startswith("-"):
        for action in parser._actions:
            text = next((text for text in action.option_strings if text.startswith("--")), None)
            if text and action.help is not argparse.SUPPRESS:
                yield text, (action.help or "").replace("%%", "%")
        return
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            yield from _values(action, before)


def _values(action: argparse.Action, before: list[str]) -> Iterator[tuple[str, str]]:
    completer = completer_of(action)
    found: Iterable[object] = completer(before) if completer else action.choices or ()
    yield from ((str(value), "") for value in found)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=[*_SCRIPTS, "words"], help='whose script to print; "words" is what they call')
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD", help=argparse.SUPPRESS)
    parser.epilog = 'For bash, in ~/.bashrc: eval "$(mtf completion bash)"'


def _run(arguments: argparse.Namespace) -> int:
    if arguments.shell != "words":
        sys.stdout.write(_SCRIPTS[arguments.shell])
        return DONE
    lines: list[str] = []
    with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stderr(io.StringIO()):
        # a line that is not finished may be wrong in any way, and a shell that completes has no place for messages
        lines = [f"{text}\t{' '.join(about.split())}\n" for text, about in candidates(arguments.words)]
    sys.stdout.writelines(lines)
    return DONE


COMPLETION: Final = Command("print a script that lets your shell complete mtf's words", _configure, _run)
