"""Slips of the keyboard: which known name somebody most likely meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest", "slip_of"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name to suggest to somebody who wrote `name`, or None.

    A suggestion costs nothing when it is wrong, so this also follows initials (`lr`), beginnings (`warn`) and shared
    words (`max_epochs`); `slip_of` is the strict question.
    """
    candidates = list(known)
    return (
        slip_of(name, candidates)
        or _by_initials(name, candidates)
        or _by_words(name, candidates)
        or _by_beginning(name, candidates)
        or _by_likeness(name, candidates)
    )


def slip_of(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` almost certainly is a slip for, or None.

    Only case, separators, and one wrong, missing, doubled or swapped letter (two in long names) count. A known name
    with a digit or an `s` behind it is a name of its own: `dropout2` beside `dropout`, `hidden_sizes` for a list.
    """
    best: tuple[int, str] | None = None
    for candidate in known:
        if _squeeze(candidate) == _squeeze(name):
            return candidate
        ending = name.removeprefix(candidate)
        if ending == "s" or ending.strip("_").isdecimal() or len(candidate) < 4:
            continue
        distance = _edits(_fold(name), _fold(candidate))
        if distance <= (1 if len(candidate) < 10 else 2) and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def _by_initials(name: str, known: list[str]) -> str | None:
    matches = [candidate for candidate in known if "".join(w[:1] for w in _fold(candidate).split("_")) == _fold(name)]
    return matches[0] if len(name) > 1 and len(matches) == 1 else None


def _by_words(name: str, known: list[str]) -> str | None:
    words = set(_fold(name).split("_"))
    matches = []
    for candidate in known:
        other = set(_fold(candidate).split("_"))
        if words <= other or other <= words:
            matches.append(candidate)
    return matches[0] if len(matches) == 1 else None


def _by_beginning(name: str, known: list[str]) -> str | None:
    folded = _fold(name)
    matches = [c for c in known if len(folded) > 2 and (_fold(c).startswith(folded) or _fold(c).endswith(folded))]
    return matches[0] if len(matches) == 1 else None


def _by_likeness(name: str, known: list[str]) -> str | None:
    import difflib  # at the first use: most programs never have a name to correct

    folded = {_fold(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=0.7)
    return folded[matches[0]] if matches else None


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")


def _squeeze(name: str) -> str:
    return _fold(name).replace("_", "")


def _edits(left: str, right: str) -> int:
    """How many letters to insert, drop, change or swap with their neighbour.

    Source: optimal string alignment, a restricted form of the Damerau-Levenshtein distance.
    """
    if abs(len(left) - len(right)) > 2:
        return 3  # more than any caller accepts
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        oldest, before, row = before, row, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, oldest[j - 2] + 1)
            row.append(cost)
    return row[-1]
